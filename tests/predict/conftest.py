from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import featbench
from tests.tiny import GRIDS, digits_content, image_folder

BASELINES = [{"strategy": "linear_head", "epochs": 2}, {"strategy": "scratch", "epochs": 1, "dropout": 0.3}]


@dataclass(frozen=True)
class Kept:
    """A results folder with its models, and where its images are (None for digits)."""

    folder: Path
    rows: pd.DataFrame
    images: Path | None = None
    cache: Path | None = None

    def copy(self, to: Path) -> Path:
        return shutil.copytree(self.folder, to / "copy")

    def model_file(self, folder: Path, method: str, suffix: str) -> Path:
        (file,) = (folder / "models").glob(f"{method}-*{suffix}")
        return file


def _run(home: Path, images: Path | None, **changes: object) -> Kept:
    content = digits_content(**changes)
    rows = featbench.run(content, results=home / "results", cache=home / "cache", device="cpu")
    return Kept(home / "results", rows, images, home / "cache")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Models of grey arrays of 8x8, which a network sees enlarged, and the pixels as they are."""
    home = tmp_path_factory.mktemp("digits")
    network = {"name": "resnet20", "layers": ["layer3"], "store": "float16", "precision": "float32"}
    backbones = [network, {"name": "pixels"}]
    return _run(home, None, backbones=backbones, baselines=BASELINES)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Models of JPEG files."""
    home = tmp_path_factory.mktemp("photos")
    root = image_folder(home / "photos", per_class=14)
    grids = {"linear_svc": GRIDS["linear_svc"]}
    return _run(
        home,
        root,
        dataset={"name": "folder", "root": str(root)},
        backbones=[{"name": "resnet20", "layers": ["layer3"]}],
        evaluate={"classifiers": ["linear_svc"], "grids": grids},
    )


FUSIONS = [
    ["resnet20/layer1", "pixels/pixels", "resnet20/layer3"],
    ["resnet20/layer3", "resnet20/layer1"],
]


@pytest.fixture(scope="session")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Models of JPEG files on layers side by side: of one network, and of two that see images in another size."""
    home = tmp_path_factory.mktemp("fused")
    root = image_folder(home / "photos", per_class=14)
    network = {"name": "resnet20", "layers": ["layer1", "layer3"], "store": "float16", "precision": "float32"}
    return _run(
        home,
        root,
        dataset={"name": "folder", "root": str(root)},
        backbones=[network, {"name": "pixels", "image_size": 8}],
        evaluate={"classifiers": ["linear_svc"], "selection": "none", "fusions": FUSIONS},
    )
