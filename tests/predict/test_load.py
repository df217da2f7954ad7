"""What was changed, damaged or lost is not used."""

from __future__ import annotations

import json
import os
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
from featbench.fingerprint import hash_file
from tests.predict.conftest import Kept
from tests.predict.signing import sign
from tests.tiny import digits_content


def change_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def edit(card: Path, **changes: object) -> None:
    content = json.loads(card.read_text())
    card.write_text(json.dumps(content | changes))


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


def inner(card: Path, table: str, **changes: object) -> None:
    sign(card, **{table: json.loads(card.read_text())[table] | changes})


WRONG_CARDS: dict[str, Callable[[Path], None]] = {
    "resize_px: .*greater than": lambda card: inner(card, "preprocess", resize_px=0),
    "resize_px is more than twice crop_px": lambda card: inner(card, "preprocess", resize_px=10**9),
    "crop_px: .*less than": lambda card: inner(card, "preprocess", crop_px=10**6),
    "crop_px: .*integer": lambda card: inner(card, "preprocess", crop_px=None),
    "mean and std have a number for each": lambda card: inner(card, "preprocess", mean=[0.5, 0.5]),
    "std.0: .*greater than": lambda card: inner(card, "preprocess", std=[0.0, 1.0, 1.0]),
    "mean.0: .*number": lambda card: inner(card, "preprocess", mean=["x", 0.5, 0.5]),
    "interpolation: ": lambda card: inner(card, "preprocess", interpolation="lanczos"),
    "colour: ": lambda card: inner(card, "preprocess", colour="red"),
    "preprocess: ": lambda card: sign(card, preprocess=[]),
    "array_shape.0: ": lambda card: sign(card, array_shape=[-1, 8, 1]),
    "array_shape.2: ": lambda card: sign(card, array_shape=[8, 8, 2]),
    "array_shape.1: ": lambda card: sign(card, array_shape=[8, 10**6, 1]),
    "temperature: ": lambda card: sign(card, temperature=0),
    "two classes have one name": lambda card: sign(card, classes=["a"] * 10),
    "classes: ": lambda card: sign(card, classes=["a"]),
    "classes.0: ": lambda card: sign(card, classes=["a" * 20_000, "b"]),
    r"classes.0: .*unicode": lambda card: sign(card, classes=["\ud800", "b"]),
    "seed: ": lambda card: sign(card, seed=-1),
    "layer: .*at least 1": lambda card: sign(card, layer=""),
    "layer: .*control characters": lambda card: sign(card, layer="layer3\x1b[2J"),
    "backbone: .*at most": lambda card: sign(card, backbone="r" * 5000),
    "a classifier is of a layer": lambda card: sign(card, layer=None),
    "weights: .*control characters": lambda card: sign(card, weights="a\0b.pth"),
    "weights: .*another machine": lambda card: sign(card, weights="\\\\far.away\\share\\own.pth"),
    "weights: .*at most": lambda card: sign(card, weights="a" * 5000 + ".pth"),
    "pixels have no weights": lambda card: sign(card, backbone="pixels"),
    "sha256: ": lambda card: sign(card, sha256="../x"),
    "fused_with.0.backbone": lambda card: sign(card, fused_with=[{}]),
}


@pytest.mark.parametrize("says", WRONG_CARDS)
def test_a_card_that_no_run_writes_is_refused_with_the_place(digits: Kept, tmp_path: Path, says: str) -> None:
    folder = digits.copy(tmp_path)
    WRONG_CARDS[says](digits.model_file(folder, "linear_svc-resnet20", ".json"))
    with pytest.raises(ResultsError, match=rf"is of another version of featbench \(.*{says}.*\); use that one, or run"):
        featbench.load_model(folder, "linear_svc/resnet20/layer3")


WRONG_TEXTS: dict[str, bytes] = {
    "deep": b"[" * 100_000,
    "no number": b'{"card_hash": NaN}',
    "infinite": b'{"card_hash": "", "seed": 1e999}',
    "many digits": b'{"card_hash": "", "seed": ' + b"9" * 10_000 + b"}",
    "twice": b'{"card_hash": "", "card_hash": "x"}',
    "utf-16": '{"card_hash": ""}'.encode("utf-16"),
    "large": b" " * (2**24 + 1),
}


@pytest.mark.parametrize("text", WRONG_TEXTS)
def test_a_card_that_is_no_json_of_ours_is_damaged(digits: Kept, tmp_path: Path, text: str) -> None:
    folder = digits.copy(tmp_path)
    digits.model_file(folder, "linear_svc-resnet20", ".json").write_bytes(WRONG_TEXTS[text])
    with pytest.raises(
        ResultsError, match=r"\.json is damaged, or an older version wrote it; run the experiment again"
    ):
        featbench.load_model(folder, "linear_svc/resnet20/layer3")


@pytest.mark.parametrize("suffix", [".json", ".skops"])
def test_a_pipe_in_place_of_a_card_or_a_model_is_not_waited_for(digits: Kept, tmp_path: Path, suffix: str) -> None:
    folder = digits.copy(tmp_path)
    file = digits.model_file(folder, "linear_svc-resnet20", suffix)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ResultsError, match=r"has no card in|found: none"):
        featbench.load_model(folder, "linear_svc/resnet20/layer3")


def test_the_card_of_another_model_is_refused(digits: Kept, tmp_path: Path) -> None:
    folder = digits.copy(tmp_path)
    one, other = (digits.model_file(folder, name, ".json") for name in ("linear_svc-resnet20", "linear_svc-pixels"))
    one.write_bytes(other.read_bytes())
    with pytest.raises(ResultsError, match=r"\.json is the card of [0-9a-f]{16} by what is in it"):
        featbench.load_model(folder, "linear_svc/resnet20/layer3")


def test_a_weights_file_that_cannot_be_looked_for_is_not_there(digits: Kept, tmp_path: Path) -> None:
    folder = digits.copy(tmp_path)
    card = digits.model_file(folder, "linear_svc-resnet20", ".json")
    os.mkfifo(tmp_path / "pipe.pth")
    for place in ("a" * 300 + ".pth", str(tmp_path / "pipe.pth"), str(tmp_path / "gone" / "own.safetensors")):
        sign(card, weights=place)
        with pytest.raises(WeightsError, match="is not there any more; put it back"):
            featbench.load_model(folder, "linear_svc/resnet20/layer3")


def heads() -> dict[str, dict[str, torch.Tensor]]:
    weight, bias = torch.zeros(10, 64), torch.zeros(10)
    return {
        "is not the head of 10 classes on 64 features": {"weight": weight},
        "is not the head of": {"weight": weight, "bias": torch.zeros(9)},
        "is not the head of 10": {"weight": torch.zeros(10, 65), "bias": bias},
        "is not the head": {"weight": weight.to(torch.int64), "bias": bias},
        "is not": {"weight": weight, "bias": bias, "more": bias + 1},
        r"holds numbers that are not finite \(bias\)": {"weight": weight, "bias": bias * torch.nan},
    }


@pytest.mark.parametrize("says", heads())
def test_a_head_of_another_kind_is_refused(digits: Kept, tmp_path: Path, says: str) -> None:
    folder = digits.copy(tmp_path)
    replace_model(folder, digits, "linear_head", ".safetensors", safetensors.torch.save(heads()[says]))
    with pytest.raises(ResultsError, match=says):
        featbench.load_model(folder, "linear_head/resnet20")


def replace_model(folder: Path, kept: Kept, method: str, suffix: str, content: bytes) -> None:
    file = kept.model_file(folder, method, suffix)
    file.write_bytes(content)
    sign(file.with_suffix(".json"), sha256=hash_file(file))


def test_another_classifier_under_right_hashes_is_refused(digits: Kept, tmp_path: Path) -> None:
    folder = digits.copy(tmp_path)
    rng = np.random.default_rng(0)
    model = make_pipeline(LinearSVC()).fit(rng.normal(size=(20, 5)), np.arange(20) % 2)
    replace_model(folder, digits, "linear_svc-resnet20", ".skops", skops.io.dumps(model))
    with pytest.raises(ResultsError, match="it was trained on 5 features, and its card is of 64"):
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
