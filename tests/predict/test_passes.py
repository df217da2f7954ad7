"""Models on layers side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import featbench
from featbench.cli.main import app
from featbench.data.given import as_split
from featbench.data.images import LazyImages
from featbench.errors import ResultsError, WeightsError
from featbench.features.load import load_features
from featbench.features.passes import Passes
from featbench.predict.from_card import make_passes
from featbench.results.artifacts import load_predictions
from featbench.results.cards import Card
from tests.predict.conftest import FUSIONS, Kept
from tests.predict.signing import sign
from tests.tiny import Recorder

NAMES = ["linear_svc/resnet20+pixels+resnet20/layer1+pixels+layer3", "linear_svc/resnet20/layer3+layer1"]


def run_images(kept: Kept, fingerprint: str) -> tuple[list[Path], Any]:
    said = load_predictions(kept.folder, fingerprint)
    assert kept.images is not None
    return [kept.images / name for name in said.id], said


def columns_of(kept: Kept, fusion: list[str]) -> np.ndarray[Any, Any]:
    """Put what the cache holds of the test images side by side."""
    assert kept.cache is not None
    parts = []
    for part in fusion:
        backbone, _, layer = part.partition("/")
        (file,) = kept.cache.glob(f"*/{backbone}/test-*.h5")
        parts.append(load_features(file, layer)[0].astype(np.float32))
    return np.concatenate(parts, axis=1)


def passes_of(fused: Kept, name: str, batch_size: int | None = None) -> tuple[Passes, list[int], Card]:
    """Build what a model looks at images with."""
    card = featbench.load_model(fused.folder, name, device="cpu").card
    passes, places = make_passes(fused.folder, card, offline=True)
    return Passes(passes, torch.device("cpu"), batch_size), places, card


@pytest.mark.parametrize(("name", "fusion"), list(zip(NAMES, FUSIONS, strict=True)))
def test_a_fusion_says_of_the_test_images_what_the_run_said(fused: Kept, name: str, fusion: list[str]) -> None:
    loaded = featbench.load_model(fused.folder, name, device="cpu")
    files, said = run_images(fused, loaded.card.fingerprint)
    expected = said[[f"score:{label}" for label in loaded.classes]].to_numpy()
    np.testing.assert_allclose(loaded.scores(files), expected, rtol=1e-5, atol=1e-6)  # six digits are in the file
    assert loaded.predict(files) == said.predicted.tolist()


@pytest.mark.parametrize(("name", "fusion"), list(zip(NAMES, FUSIONS, strict=True)))
def test_its_features_are_those_of_the_cache_bit_by_bit(fused: Kept, name: str, fusion: list[str]) -> None:
    passes, places, card = passes_of(fused, name)
    files, _ = run_images(fused, card.fingerprint)
    ((_, outputs),) = passes.stream(as_split(files), Recorder())
    columns = [
        outputs[place][str(part.layer)].astype(part.store).astype(np.float32)
        for part, place in zip(card.parts, places, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(columns, axis=1), columns_of(fused, fusion))


class Counted:
    """Images that count how often each is decoded."""

    def __init__(self, images: LazyImages) -> None:
        self._images = images
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Image.Image:
        self.decoded.append(index)
        return self._images.read(index)


@pytest.mark.parametrize(("name", "n_passes"), list(zip(NAMES, (2, 1), strict=True)))
def test_one_pass_a_backbone_and_an_image_is_decoded_once(fused: Kept, name: str, n_passes: int) -> None:
    loaded = featbench.load_model(fused.folder, name, device="cpu")
    files, _ = run_images(fused, loaded.card.fingerprint)
    split = as_split(files)
    counted: Any = Counted(split.images)
    ran: set[int] = set()

    def note(module: torch.nn.Module, *_: Any) -> None:
        if isinstance(module, torch.fx.GraphModule):
            ran.add(id(module))

    with torch.nn.modules.module.register_module_forward_pre_hook(note):
        list(loaded.stream(replace(split, images=counted)))
    assert len(ran) == n_passes
    assert sorted(counted.decoded) == list(range(len(files)))


def test_batches_come_in_order_and_without_what_cannot_be_read(fused: Kept, tmp_path: Path) -> None:
    passes, _, card = passes_of(fused, NAMES[0], batch_size=2)
    files, _ = run_images(fused, card.fingerprint)
    batches = list(passes.stream(as_split([tmp_path / "gone.jpg", *files]), Recorder()))
    assert np.concatenate([batch.rows for batch, _ in batches]).tolist() == list(range(1, len(files) + 1))
    assert [skipped.id for batch, _ in batches for skipped in batch.skipped] == [str(tmp_path / "gone.jpg")]
    whole = np.concatenate([outputs[0]["layer3"] for _, outputs in batches])
    ((_, expected),) = passes_of(fused, NAMES[0])[0].stream(as_split(files), Recorder())
    np.testing.assert_allclose(whole, expected[0]["layer3"], rtol=1e-2, atol=1e-2)


def test_the_card_has_every_part(fused: Kept) -> None:
    card = featbench.load_model(fused.folder, NAMES[0]).card
    assert [f"{part.backbone}/{part.layer}" for part in card.parts] == FUSIONS[0]
    assert [part.store for part in card.parts] == ["float16", "float32", "float16"]
    assert [part.pooling for part in card.parts] == ["avg", None, "avg"]
    assert [part.preprocess.crop_px for part in card.parts] == [32, 8, 32]
    assert len({part.weights_hash for part in card.parts}) == 2


@pytest.mark.parametrize("place", [0, 1])
def test_the_weights_of_every_part_are_checked(fused: Kept, tmp_path: Path, place: int) -> None:
    folder = fused.copy(tmp_path)
    fingerprint = featbench.load_model(folder, NAMES[0]).card.fingerprint
    (card,) = (folder / "models").glob(f"*-{fingerprint}.json")
    others = json.loads(card.read_text())["fused_with"]
    others[place]["weights_hash"] = "0" * 64
    sign(card, fused_with=others)
    with pytest.raises(WeightsError, match=f"weights of {others[place]['backbone']} .* are not those"):
        featbench.load_model(folder, NAMES[0])


def test_a_fusion_with_a_part_too_few_is_refused(fused: Kept, tmp_path: Path) -> None:
    folder = fused.copy(tmp_path)
    fingerprint = featbench.load_model(folder, NAMES[0]).card.fingerprint
    (card,) = (folder / "models").glob(f"*-{fingerprint}.json")
    sign(card, fused_with=json.loads(card.read_text())["fused_with"][:1])
    with pytest.raises(ResultsError, match="it was trained on 272 features, and its card is of 208"):
        featbench.load_model(folder, NAMES[0])


def test_a_card_of_a_version_without_fusions_is_read(fused: Kept, tmp_path: Path) -> None:
    folder = fused.copy(tmp_path)
    name = "linear_svc/resnet20/layer3"
    before = featbench.load_model(folder, name)
    files, _ = run_images(fused, before.card.fingerprint)
    (card,) = (folder / "models").glob(f"*-{before.card.fingerprint}.json")
    content = json.loads(card.read_text())
    del content["fused_with"]
    card.write_text(json.dumps(content))
    sign(card)
    np.testing.assert_array_equal(featbench.load_model(folder, name).scores(files), before.scores(files))


def test_the_command_takes_the_name_that_is_listed(fused: Kept) -> None:
    listed = CliRunner().invoke(app, ["list", "models", str(fused.folder)])
    assert (listed.exit_code, listed.stderr) == (0, "")
    header, *lines = listed.stdout.splitlines()
    assert header.split() == ["MODEL", "VALIDATION", "TEST", "FINGERPRINT"]
    assert [line.split()[0] for line in lines[-2:]] == NAMES
    files, said = run_images(fused, lines[-1].split()[3])
    arguments = ["predict", str(fused.folder), *map(str, files), "--model", NAMES[1], "--format", "json", "--quiet"]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [entry["top"][0]["class"] for entry in json.loads(result.stdout)] == said.predicted.tolist()
