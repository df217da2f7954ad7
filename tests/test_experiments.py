"""The built-in experiments: each loads, names only what there is, and runs when cut down."""

from __future__ import annotations

from pathlib import Path

import pytest

import featbench
from featbench.backbones.architectures import get_architecture
from featbench.backbones.describe import outline
from featbench.backbones.expand import expand_layers
from featbench.backbones.load import check_backbone
from featbench.classifiers.params import check_grids
from featbench.classifiers.registry import get_classifier
from featbench.config import Experiment, builtin_experiments, load_experiment
from featbench.data.datasets import check_dataset
from featbench.errors import UsageError
from tests.tiny import image_folder

NAMES = sorted(builtin_experiments())
NEEDS_ROOT = ["cats_dogs_vgg16", "hymenoptera_resnet18"]


def load(name: str, *settings: str) -> Experiment:
    return load_experiment(name, [*(["dataset.root=photos"] if name in NEEDS_ROOT else []), *settings])


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_says_what_it_is(name: str) -> None:
    first = builtin_experiments()[name].splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith((".", ":", "?"))
    assert load(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_it_names_only_what_there_is(name: str) -> None:
    experiment = load(name)
    check_dataset(experiment.dataset)
    check_grids(map(get_classifier, experiment.evaluate.classifiers), experiment.evaluate)
    for config in experiment.backbones:
        check_backbone(config)
        architecture = get_architecture(config.name)
        size_px = architecture.preprocess_at(config.image_size).crop_px
        traced = outline(architecture, size_px)
        layers = expand_layers(traced, config.layers, (3, size_px, size_px)) if config.name != "pixels" else ()
        frozen = [b.freeze_until for b in experiment.baselines if b.freeze_until and b.backbone in (None, config.name)]
        for layer in (*layers, *frozen):
            traced.find(layer)


@pytest.mark.parametrize("name", NEEDS_ROOT)
def test_a_folder_that_is_not_given_is_asked_for(name: str) -> None:
    with pytest.raises(UsageError, match=r"root is missing.*--set dataset\.root=photos/"):
        load_experiment(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_cut_down_it_runs(name: str, tmp_path: Path) -> None:
    experiment = load(name)
    root = image_folder(tmp_path / "photos", per_class=10)
    settings = ["dataset.name=folder", f"dataset.root={root}", "dataset.val_fraction=0.25"]
    settings += ["dataset.limit_train=16", "dataset.limit_test=6"]
    for number, backbone in enumerate(experiment.backbones):
        if backbone.name != "pixels":
            small = backbone.name.startswith(("mlp", "convnet", "resnet20"))
            settings += [f"backbones.{number}.weights=random", f"backbones.{number}.image_size={32 if small else 72}"]
    for number, baseline in enumerate(experiment.baselines):
        settings += [f"baselines.{number}.epochs={baseline.warmup_epochs + 1}", f"baselines.{number}.batch_size=8"]
    rows = featbench.run(
        name, overrides=settings, results=tmp_path / "r", cache=tmp_path / "c", device="cpu", offline=True
    )
    layers = sum(len(backbone.layers) for backbone in experiment.backbones)
    assert (rows.kind == "classifier").sum() >= layers * len(experiment.evaluate.classifiers)
    baselines = rows[rows.kind == "baseline"]
    assert set(baselines.method) == {baseline.method for baseline in experiment.baselines}
    table = (tmp_path / "r" / "accuracy.csv").read_text().splitlines()[0].split(",")
    assert set(table) >= set(rows.method)
