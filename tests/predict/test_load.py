"""What was changed, damaged or lost is not used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import skops.io
import torch
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import featbench
from featbench.backbones.architectures import get_architecture
from featbench.config import Experiment
from featbench.errors import ResultsError, WeightsError
from featbench.fingerprint import fingerprint, hash_file
from tests.predict.conftest import Kept
from tests.tiny import digits_content


def change_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def edit(card: Path, **changes: object) -> None:
    content = json.loads(card.read_text())
    card.write_text(json.dumps(content | changes))


def sign(card: Path, **changes: object) -> None:
    """Change a card as somebody would who knows how its hash is made."""
    content = json.loads(card.read_text()) | changes
    del content["card_hash"]
    card.write_text(json.dumps(content | {"card_hash": fingerprint(content)}))


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        (".skops", change_a_byte, "was changed after it was written, and is not loaded"),
        (".skops", Path.unlink, "found: none"),
        (".json", lambda card: edit(card, classes=["a", "b"]), "was changed after it was written, and is not used"),
        (".json", lambda card: edit(card, card_hash=None), "was changed after it was written"),
        (".json", lambda card: card.write_text("{}"), "is damaged, or an older version wrote it"),
        (".json", lambda card: card.write_text("[1]"), "is damaged"),
        (".json", lambda card: card.write_bytes(b"\xff\x00"), "is damaged"),
        (".json", lambda card: sign(card, colour="red"), "is of another version of featbench"),
        (".json", lambda card: sign(card, format=2), "is of another version of featbench"),
        (
            ".json",
            Path.unlink,
            r"has no card in .*models: an older version made it, .*take another with --model \(`featbench list models ",
        ),
    ],
)
def test_a_changed_artefact_is_refused(
    digits: Kept, tmp_path: Path, suffix: str, change: Callable[[Path], object], message: str
) -> None:
    folder = digits.copy(tmp_path)
    change(digits.model_file(folder, "random_forest-resnet20", suffix))
    with pytest.raises(ResultsError, match=message):
        featbench.load_model(folder, "random_forest/resnet20/layer3")
    assert featbench.load_model(folder, "linear_svc/resnet20/layer3").classes == tuple("0123456789")


def replace_model(folder: Path, kept: Kept, method: str, suffix: str, content: bytes) -> None:
    file = kept.model_file(folder, method, suffix)
    file.write_bytes(content)
    sign(file.with_suffix(".json"), sha256=hash_file(file))


def test_another_classifier_under_right_hashes_is_refused(digits: Kept, tmp_path: Path) -> None:
    folder = digits.copy(tmp_path)
    rng = np.random.default_rng(0)
    model = make_pipeline(LinearSVC()).fit(rng.normal(size=(20, 5)), np.arange(20) % 2)
    replace_model(folder, digits, "linear_svc-resnet20", ".skops", skops.io.dumps(model))
    with pytest.raises(ResultsError, match="was not trained on what its card says"):
        featbench.load_model(folder, "linear_svc/resnet20/layer3")


def test_another_network_under_right_hashes_is_refused(digits: Kept, tmp_path: Path) -> None:
    folder = digits.copy(tmp_path)
    replace_model(folder, digits, "scratch", ".safetensors", safetensors.torch.save({"x": torch.zeros(2)}))
    with pytest.raises(ResultsError, match="does not fit resnet20: "):
        featbench.load_model(folder, "scratch/resnet20")
    replace_model(folder, digits, "scratch", ".safetensors", b"no tensors")
    with pytest.raises(ResultsError, match="is damaged"):
        featbench.load_model(folder, "scratch/resnet20")


def test_other_backbone_weights_are_refused(digits: Kept, tmp_path: Path) -> None:
    folder = digits.copy(tmp_path)
    for method in ("linear_svc-resnet20", "linear_head"):
        sign(digits.model_file(folder, method, ".json"), seed=1)  # which draws other random weights
    for name in ("linear_svc/resnet20/layer3", "linear_head/resnet20"):
        with pytest.raises(WeightsError, match=r"random weights of resnet20 .* are not those"):
            featbench.load_model(folder, name)
    assert featbench.load_model(folder, "scratch/resnet20").predict([]) == []


def test_a_weights_file_that_moved_is_found_beside_the_results(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    torch.manual_seed(5)
    safetensors.torch.save_file(get_architecture("resnet20").make(32).state_dict(), file)
    content = digits_content(
        backbones=[{"name": "resnet20", "weights": str(file), "layers": ["layer3"]}],
        evaluate={"classifiers": ["linear_svc"], "selection": "none"},
    )
    folder = tmp_path / "results"
    rows = featbench.run(Experiment.model_validate(content), results=folder, cache=tmp_path / "cache", device="cpu")
    name = "linear_svc/resnet20/layer3"
    image = np.zeros((8, 8), np.uint8)
    expected = featbench.load_model(folder, name).scores(image)

    file.rename(tmp_path / "kept")
    with pytest.raises(WeightsError, match=r"own\.safetensors that the model was trained on is not there any more"):
        featbench.load_model(folder, rows.fingerprint[0])
    (folder / "weights").mkdir()
    moved = folder / "weights" / "own.safetensors"
    moved.write_bytes((tmp_path / "kept").read_bytes())
    np.testing.assert_array_equal(featbench.load_model(folder, name).scores(image), expected)

    safetensors.torch.save_file(get_architecture("resnet20").make(32).state_dict(), moved)
    with pytest.raises(WeightsError, match=r"weights of resnet20 .* are not those that the model was trained on"):
        featbench.load_model(folder, name)
