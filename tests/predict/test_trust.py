"""No code that a results folder names is imported or run, unless the caller says so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

import featbench
from featbench.cli.main import app
from featbench.errors import UsageError
from featbench.predict.export import export_onnx
from tests.predict.conftest import Kept
from tests.predict.signing import sign
from tests.tiny import digits_content

EVIL = "from pathlib import Path\nPath('it_ran').touch()\ndef make(): raise AssertionError\n"
MESSAGE = (
    "names the network '{}', which is code that would be imported, from the current folder first, and run; .*--trust"
)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def sent(digits: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of somebody else's, whose cards name a module in it, where the command runs."""
    monkeypatch.chdir(tmp_path)
    digits.copy(tmp_path)
    (tmp_path / "copy" / "evil_network.py").write_text(EVIL)
    (tmp_path / "evil_network.py").write_text(EVIL)
    for method in ("linear_svc-resnet20", "linear_head", "scratch"):
        sign(digits.model_file(tmp_path / "copy", method, ".json"), backbone="python:evil_network:make")
    return tmp_path / "copy"


CALLS: dict[str, Callable[[Path], object]] = {
    "classifier": lambda folder: featbench.load_model(folder, "linear_svc/resnet20/layer3"),
    "head": lambda folder: featbench.load_model(folder, "linear_head/resnet20"),
    "network": lambda folder: featbench.load_model(folder, "scratch/resnet20"),
    "export of a network": lambda folder: export_onnx(folder, "scratch/resnet20"),
    "export of a head": lambda folder: export_onnx(folder, "linear_head/resnet20"),
    "trust in another": lambda folder: featbench.load_model(
        folder, "scratch/resnet20", trust=["python:evil_network:made", "python:evil_network"]
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_card_leads_to_no_import(sent: Path, call: str) -> None:
    with pytest.raises(UsageError, match=MESSAGE.format("python:evil_network:make")):
        CALLS[call](sent)
    assert "evil_network" not in sys.modules
    assert not Path("it_ran").exists()


def test_nor_does_a_part_of_a_fusion(fused: Kept, tmp_path: Path) -> None:
    folder = fused.copy(tmp_path)
    name = "linear_svc/resnet20+pixels+resnet20/layer1+pixels+layer3"
    (card,) = (folder / "models").glob(f"*-{featbench.load_model(folder, name).card.fingerprint}.json")
    parts = json.loads(card.read_text())["fused_with"]
    sign(card, fused_with=[parts[0], parts[1] | {"backbone": "python:antigravity:make"}])
    with pytest.raises(UsageError, match=MESSAGE.format("python:antigravity:make")):
        featbench.load_model(folder, name)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("command", [("predict", "seven.png"), ("export",)])
@pytest.mark.parametrize("code", ["python:os:abort", "python:signal:pause"])
def test_the_commands_neither_end_nor_hang(digits: Kept, tmp_path: Path, command: tuple[str, ...], code: str) -> None:
    folder = digits.copy(tmp_path)
    sign(digits.model_file(folder, "scratch", ".json"), backbone=code)
    name, *images = command
    result = invoke(name, folder, *images, "--model", "scratch/resnet20")
    assert result.exit_code == 2
    assert f"names the network '{code}', which is code that would be imported" in result.output
    assert f"--trust {code}" in result.output


@pytest.mark.parametrize("trust", [["resnet20"], "python:my_networks:make", [""]])
def test_trust_is_a_list_of_such_names(digits: Kept, trust: list[str]) -> None:
    with pytest.raises(UsageError, match=r"trust is for code of somebody's own, as in --trust python:my_networks:make"):
        featbench.load_model(digits.folder, "scratch/resnet20", trust=trust)


NETWORK = """
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""
CLASSIFIER = """
from sklearn.ensemble import ExtraTreesClassifier
def make():
    return ExtraTreesClassifier(3)
"""


def test_with_the_word_models_of_ones_own_code_work_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trusted_network.py").write_text(NETWORK)
    Path("trusted_classifier.py").write_text(CLASSIFIER)
    network, classifier = "python:trusted_network:make", "python:trusted_classifier:make"
    content = digits_content(
        backbones=[{"name": network, "image_size": 16}],
        evaluate={"classifiers": ["linear_svc", classifier], "selection": "none"},
        baselines=[{"strategy": "scratch", "epochs": 1}],
    )
    rows = featbench.run(content, results="results", cache="cache", device="cpu")
    image = np.zeros((8, 8), np.uint8)
    np.save("image.npy", image)
    script = (
        "import sys, featbench, numpy as np\n"
        "for model in sys.argv[1].split(','):\n"
        "    loaded = featbench.load_model('results', model, device='cpu', trust=sys.argv[2:])\n"
        "    print(loaded.predict(np.load('image.npy'))[0])"
    )
    words = [network, classifier]
    expected = [
        featbench.load_model("results", model, device="cpu", trust=words).predict(image)[0]
        for model in rows.fingerprint
    ]
    command = [sys.executable, "-c", script, ",".join(rows.fingerprint), *words]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == expected
    for model in rows.fingerprint:
        with pytest.raises(UsageError, match=f"--trust {network}"):
            featbench.load_model("results", model)
    (row,) = rows[rows.method == classifier].itertuples()
    with pytest.raises(
        UsageError, match=f"ExtraTreesClassifier, whose numbers featbench cannot check.*--trust {classifier}"
    ):
        featbench.load_model("results", row.fingerprint, trust=[network])
