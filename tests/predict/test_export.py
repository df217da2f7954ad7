from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from featbench.cli.main import app
from featbench.errors import ResultsError, UsageError
from featbench.predict.export import export_onnx
from featbench.predict.from_card import read_tensors, trained_network
from featbench.results.artifacts import load_predictions
from featbench.results.cards import read_card
from tests.predict.conftest import Kept

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("method", ["scratch", "linear_head"])
def test_the_file_says_of_test_images_what_the_run_said(digits: Kept, tmp_path: Path, method: str) -> None:
    exported = export_onnx(digits.folder, f"{method}/resnet20", tmp_path / "network.onnx", offline=True)
    assert exported.path == tmp_path / "network.onnx"
    session = onnxruntime.InferenceSession(exported.path)
    (row,) = digits.rows[digits.rows.method == method].itertuples()
    said = load_predictions(digits.folder, row.fingerprint)
    numbers = [int(name.removeprefix("digits/")) for name in said.id]
    pixels = torch.from_numpy(np.rint(load_digits().images[numbers] * (255 / 16)).astype(np.uint8))
    meta = session.get_modelmeta().custom_metadata_map
    how = json.loads(meta["preprocess"])
    assert how["resize_px"] == how["crop_px"] == 32
    large = torch.nn.functional.interpolate(
        pixels[:, None].float(), 32, mode=how["interpolation"], align_corners=False, antialias=True
    ).round()
    images = (large / 255).expand(-1, 3, -1, -1).numpy()
    logits, probabilities = session.run(None, {"images": images})
    scores = said.filter(like="score:").to_numpy()
    # torchvision rounds bytes as it resizes, which moves a pixel by one now and then
    np.testing.assert_allclose(probabilities, scores, atol=0.02)
    assert (probabilities.argmax(1) == scores.argmax(1)).mean() > 0.95
    np.testing.assert_allclose(probabilities, torch.from_numpy(logits).softmax(1), atol=1e-6)


def test_the_metadata_says_what_to_do_before(digits: Kept, tmp_path: Path) -> None:
    exported = export_onnx(digits.folder, "scratch/resnet20", tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(exported.path)
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["classes"]) == list("0123456789")
    assert meta["model"] == "scratch/resnet20"
    assert meta["fingerprint"] in set(digits.rows.fingerprint)
    assert "shorter side to 32 px (bilinear, antialiased)" in meta["preprocessing"]
    assert "RGB, scale to [0, 1]; standardisation is inside" in meta["preprocessing"]
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("images", ["batch", 3, 32, 32])
    assert [output.name for output in session.get_outputs()] == ["logits", "probabilities"]


def test_the_best_network_by_validation_goes_beside_its_weights(digits: Kept, tmp_path: Path) -> None:
    folder = digits.copy(tmp_path)
    networks = digits.rows[digits.rows.kind == "baseline"]
    best = networks.loc[networks.val_accuracy.idxmax()]
    exported = export_onnx(folder)
    assert exported.path.with_suffix(".safetensors") == read_card(folder, best.fingerprint)[1]
    assert exported.name == f"{best.method}/resnet20"


def test_how_far_the_runtimes_are_apart_is_told_with_the_tolerance(digits: Kept, tmp_path: Path) -> None:
    exported = export_onnx(digits.folder, "scratch/resnet20", tmp_path / "a.onnx")
    (row,) = digits.rows[digits.rows.method == "scratch"].itertuples()
    card, file = read_card(digits.folder, row.fingerprint)
    network = trained_network(card, read_tensors(file), file)
    session = onnxruntime.InferenceSession(exported.path)
    mean, std = (torch.tensor(of).view(-1, 1, 1) for of in (card.preprocess.mean, card.preprocess.std))
    generator = torch.Generator().manual_seed(0)  # the noise that the export was checked on
    differences, shares = [], []
    for count in (1, 3):
        images = torch.rand(count, 3, 32, 32, generator=generator)
        with torch.inference_mode():
            logits = network((images - mean) / std)
        for ours, theirs in zip(
            (logits, logits.softmax(1)), session.run(None, {"images": images.numpy()}), strict=True
        ):
            apart = np.abs(theirs - ours.numpy())
            shares.append((apart / (1e-4 + 1e-3 * np.abs(ours.numpy()))).max())
            differences.append((apart.max(), ours.numpy().flat[apart.argmax()]))
    assert exported.share == pytest.approx(max(shares), rel=1e-3)
    assert 0 < exported.share < 1
    assert (exported.difference, exported.logit) == pytest.approx(max(differences[::2]), rel=1e-3)


def test_a_classifier_is_refused_with_the_networks_that_there_are(digits: Kept) -> None:
    with pytest.raises(UsageError, match=r"is a classifier.*linear_head/resnet20, scratch/resnet20"):
        export_onnx(digits.folder, "linear_svc/pixels/pixels")


def test_a_folder_without_networks(photos: Kept) -> None:
    with pytest.raises(UsageError, match=r"no reference network to export; add \[\[baselines\]\]"):
        export_onnx(photos.folder)


def test_other_numbers_leave_no_file(digits: Kept, tmp_path: Path) -> None:
    message = (
        r"other numbers than torch for scratch/resnet20: a logit of .* is .*, and may differ by 0 x \|logit\| \+ 1e-30"
    )
    with pytest.raises(ResultsError, match=message):
        export_onnx(digits.folder, "scratch/resnet20", tmp_path / "a.onnx", rtol=0.0, atol=1e-30)
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_error_names_it(digits: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"onnxscript, which is not installed; pip install featbench\[onnx\]"):
        export_onnx(digits.folder)


def test_the_command(digits: Kept, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["export", str(digits.folder), "--model", "scratch/resnet20", "--output", str(tmp_path / "a.onnx")]
    )
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        r".*a\.onnx: scratch/resnet20; its numbers use at most [0-9.]+% of the tolerance of "
        r"0\.001 x \|number\| \+ 0\.0001; the largest difference from torch's is [0-9.e-]+, of a logit of [0-9.e-]+\n",
        result.stdout,
    )
    assert result.stderr == ""
    result = CliRunner().invoke(app, ["export", str(tmp_path)])
    assert result.exit_code == 1
    assert "there is no results.csv" in result.stderr
