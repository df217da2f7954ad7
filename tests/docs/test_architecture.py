"""The changes that the page about the architecture describes, made to a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.manual import PAGES, ROOT, blocks

PAGE = next(page for page in PAGES if page.name == "architecture.md")

METRIC = """
import numpy as np
from featbench.stats.measures import metric_table
from featbench.stats.models import Predictions

labels, predicted = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0])
ids = np.arange(6).astype(str).astype(object)
scores = np.eye(2)[predicted]
table = metric_table([Predictions("f", "a model", "data", ("a", "b"), ids, labels, predicted, scores)])
(value,) = table.loc[table["metric"] == "cohens_kappa", "value"]
assert abs(value - 1 / 3) < 1e-12, value  # observed 4/6, by chance 1/2
"""
CLASSIFIER = """
import featbench
import numpy as np

settings = ["dataset.limit_train=200", "dataset.limit_test=50", "backbones=[{name='pixels'}]", "baselines=[]"]
settings += ["evaluate.classifiers=['perceptron']"]
rows = featbench.run("digits", overrides=settings, results="r", cache="c", device="cpu", stages=("extract", "evaluate"))
assert rows["method"].tolist() == ["perceptron"]
assert featbench.load_model("r").scores([np.zeros((8, 8), np.uint8)]).shape == (1, 10)
"""
NETWORK = """
import torch
from featbench.backbones.load import load_backbone
from featbench.config import BackboneConfig
backbone = load_backbone(BackboneConfig(name="linear", weights="random"), seed=0)
assert backbone.network(torch.zeros(2, 3, 28, 28)).shape == (2, 10)
"""
DATASET = """
from featbench.config import DatasetConfig
from featbench.data.datasets import DATASETS, check_dataset
check_dataset(DatasetConfig(name="emnist_letters"))
assert DATASETS["emnist_letters"] == "torchvision.datasets.EMNIST"
"""
AUGMENTATION = """
import torch
from featbench.baselines.augment import augment
from featbench.config import BaselineConfig
preset = BaselineConfig(strategy="finetune", augment="aug_mix").augment
images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
changed = augment(images, preset, torch.Generator().manual_seed(0))
assert changed.shape == images.shape and not changed.equal(images)
"""
CHECKS = {
    "A metric": METRIC,
    "A classifier": CLASSIFIER,
    "A network to train from scratch": NETWORK,
    "A data set": DATASET,
    "An augmentation": AUGMENTATION,
}


def change(heading: str) -> dict[str, list[tuple[str, str]]]:
    """Return what a section changes: file -> pairs of the text before and after."""
    section = PAGE.read_text("utf-8").partition(f"### {heading}\n")[2]
    diff = re.split(r"^```diff\n|^```\n", section, flags=re.MULTILINE)[1]
    found: dict[str, list[tuple[str, str]]] = {}
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        file, _, text = part.partition("\n")
        for hunk in text.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            found.setdefault(file, []).append((before, after))
    return found


def test_every_section_is_tried() -> None:
    assert len(blocks(PAGE, "diff")) == len(CHECKS)


def test_a_metric_and_a_classifier_take_one_file() -> None:
    assert list(change("A metric")) == ["featbench/stats/measures.py"]
    assert list(change("A classifier")) == ["featbench/classifiers/registry.py"]


@pytest.mark.parametrize("heading", CHECKS)
def test_the_change_fits_the_code_and_does_what_the_page_says(heading: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "featbench", tmp_path / "featbench", ignore=shutil.ignore_patterns("__pycache__"))
    for file, pairs in change(heading).items():
        path = tmp_path / file
        text = path.read_text("utf-8")
        for before, after in pairs:
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        path.write_text(text, "utf-8")
    (tmp_path / "here").mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "FEATBENCH_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", CHECKS[heading]],
        cwd=tmp_path / "here",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
