"""Small extractions, and what a cache file holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import torch

from featbench.backbones.identity import Identity
from featbench.backbones.load import Backbone, load_backbone
from featbench.config import BackboneConfig, DatasetConfig
from featbench.data.datasets import load_dataset
from featbench.data.splits import Dataset
from featbench.features.cache import CacheInfo
from featbench.features.extraction import cache_keys, extract_split, plan_extraction
from featbench.features.parts import PART_S
from tests.tiny import Recorder

CPU = torch.device("cpu")


def folder_dataset(root: Path, **settings: Any) -> Dataset:
    return load_dataset(DatasetConfig(name="folder", root=root, **settings), root, seed=0)


def small_network(**settings: Any) -> BackboneConfig:
    exact = {"name": "resnet20", "weights": "random", "layers": ("layer1", "layer3"), "precision": "float32"}
    return BackboneConfig(**(exact | settings))


def run(
    dataset: Dataset,
    config: BackboneConfig,
    cache_dir: Path,
    *,
    split: str = "train",
    backbone: Backbone | None = None,
    on_bad_image: Any = "skip",
    progress: Recorder | None = None,
    part_s: float = PART_S,
) -> CacheInfo:
    backbone = backbone or load_backbone(config, seed=0)
    extraction = replace(plan_extraction(config, CPU, on_bad_image), part_s=part_s)
    key = cache_keys(dataset, Identity.of(backbone), extraction, cache_dir)[split]
    return extract_split(dataset.splits[split], backbone, extraction, key, progress or Recorder())


def content(path: Path) -> dict[str, Any]:
    """Read all of a cache file but the seconds it took."""
    with h5py.File(path) as file:
        found = {layer: file["features"][layer][:].tobytes() for layer in file["features"]}
        return found | dict(file.attrs) | {"labels": file["labels"][:].tolist(), "ids": file["ids"][:].tolist()}
