"""The table of data sets: name -> how it is read, and `load_dataset`, which returns its splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from featbench.config import DatasetConfig
from featbench.data.folder import check_counts, scan_folder
from featbench.data.images import FileImages, gather_array
from featbench.data.names import plain_name
from featbench.data.splits import Dataset, Skipped, Split, limit, split_whole
from featbench.data.torchvision_sets import TORCHVISION_SETS, load_torchvision
from featbench.errors import UsageError, unknown
from featbench.fingerprint import fingerprint

DATASETS: dict[str, str] = {
    "digits": "1,797 scanned digits of 8x8 pixels, part of scikit-learn; no download",
    "folder": "your own images: train/ val/ test/ folders, or one folder a class",
    **{name: f"torchvision.datasets.{spec.cls}" for name, spec in TORCHVISION_SETS.items()},
}


def check_dataset(config: DatasetConfig) -> None:
    """Refuse an unknown name, and settings that have no effect on this data set, before anything is read.

    Raises:
        UsageError: The name is not in the table, or a fraction would change nothing.
    """
    if config.name not in DATASETS:
        raise unknown("data set", config.name, DATASETS, listed_by="featbench list datasets")
    if config.name in TORCHVISION_SETS:
        _check_fractions(config, list(TORCHVISION_SETS[config.name].splits))


def load_dataset(
    config: DatasetConfig, data_dir: Path, *, seed: int, offline: bool = False, memo_dir: Path | None = None
) -> Dataset:
    """Read a data set's splits; images of files are decoded later.

    Args:
        config: The experiment's `[dataset]`.
        data_dir: torchvision's root; downloads go there.
        seed: Chooses the rows of splits that the set does not have itself, and of limited ones.
        offline: Forbids downloads.
        memo_dir: Where the hashes of image files are remembered; nowhere if None.

    Raises:
        UsageError: The name, the folder or a setting is wrong.
        DataError: Images are missing, or too few.
    """
    check_dataset(config)
    skipped: Sequence[Skipped] = ()
    remarks: tuple[str, ...] = ()
    name = config.name
    if config.name == "digits":
        classes, splits = _digits()
    elif config.name == "folder":
        assert config.root is not None  # the config's own check
        name = plain_name(Path(config.root.resolve().name))
        scanned = scan_folder(config.root, on_bad_image=config.on_bad_image)
        classes, splits, skipped, remarks = scanned.classes, scanned.splits, scanned.skipped, scanned.layout.remarks
        if "all" in splits:
            check_counts(splits["all"], scanned.layout.classes["all"])
        _check_fractions(config, list(splits))
    else:
        classes, splits = load_torchvision(TORCHVISION_SETS[config.name], data_dir, offline=offline)
    if "all" in splits:
        splits = split_whole(splits["all"], config, classes, seed)
    splits["train"] = limit(splits["train"], config.limit_train, seed)
    splits["test"] = limit(splits["test"], config.limit_test, seed)
    if memo_dir is not None:
        place = fingerprint([config.name, str((config.root or data_dir).resolve())])
        splits = {part: _remembering(split, memo_dir / f"{place}-{part}") for part, split in splits.items()}
    return Dataset(name, classes, splits, tuple(skipped), remarks)


def _remembering(split: Split, memo: Path) -> Split:
    return replace(split, images=replace(split.images, memo=memo)) if isinstance(split.images, FileImages) else split


def _digits() -> tuple[tuple[str, ...], dict[str, Split]]:
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 17 grey levels, 0 to 16
    ids = tuple(f"digits/{row:04d}" for row in range(len(pixels)))
    labels = bunch.target.astype(np.int64)
    return tuple("0123456789"), {"all": Split("all", gather_array(pixels), labels, ids)}


def _check_fractions(config: DatasetConfig, splits: list[str]) -> None:
    """Refuse fractions of splits that the data set has itself."""
    for key, split in (("val_fraction", "val"), ("test_fraction", "test")):
        if key in config.model_fields_set and split in splits:
            raise UsageError(f"dataset.{key} has no effect: {config.name} has a {split} split of its own; remove it")
