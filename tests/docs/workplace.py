"""A folder as a reader of the manual has it: photos, an experiment file, the results of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import featbench
from tests.tiny import image_folder

_PETS = """
name = "pets"
dataset = { name = "folder", root = "photos", val_fraction = 0.25, test_fraction = 0.25 }
backbones = [{ name = "resnet20", weights = "random", layers = ["layer3"], precision = "float32" }]
evaluate = { classifiers = ["linear_svc"], grids.linear_svc.C = [1e-3, 1e-2] }
baselines = [{ strategy = "linear_head", epochs = 1 }]
"""


def make_workplace(home: Path) -> Path:
    """Make the folder; all pages run in it."""
    image_folder(home / "photos", per_class=12, classes=("red", "blue"))
    for name in ("cat.jpg", "dog.jpg"):
        shutil.copy(home / "photos" / "red" / "00.jpg", home / name)
    for name in ("pets.toml", "hymenoptera.toml"):
        (home / name).write_text(_PETS, "utf-8")
    featbench.run(home / "pets.toml", results=home / "results" / "pets", cache=home / "cache", device="cpu")
    return home
