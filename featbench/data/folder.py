"""A folder of images: `train/ val/ test/` with one folder a class in each, or just one folder a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featbench.data.images import file_images
from featbench.data.splits import Skipped, Split
from featbench.errors import DataError, UsageError

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's ImageFolder's


def scan_folder(root: Path) -> tuple[tuple[str, ...], dict[str, Split], list[Skipped]]:
    """List the images of a folder, sorted by path, so that every machine sees them in one order.

    Returns:
        The class names; the splits found: "train" and "test", with "val" where all three are there, or "all" where
        the folder holds one folder a class; and the files left out. Where there is no `test/`, `val/` is the test
        split.

    Raises:
        UsageError: There is no such folder.
        DataError: There is no image, only one class, or classes differ between the splits.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {str(root)!r}; dataset.root must be a folder of images")
    parts = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    if "train" not in parts:
        if parts and len(parts) == len(_classes(root)):
            raise DataError(f"{root} has {' and '.join(parts)}, but no train folder; add it")
        parts = {"all": root}
    elif len(parts) == 1:
        parts = {"all": parts["train"]}
    elif "test" not in parts:
        parts["test"] = parts.pop("val")
    classes = _classes(next(iter(parts.values())))
    skipped: list[Skipped] = []
    splits = {}
    for name, folder in parts.items():
        found = _classes(folder)
        if found != classes:
            odd = ", ".join(sorted(set(found) ^ set(classes)))
            raise DataError(f"{root}: train and {folder.name} have different classes: {odd} is only in one of them")
        splits[name] = _scan_split(name, folder, classes, root, skipped)
    return classes, splits, skipped


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")))


def _scan_split(name: str, folder: Path, classes: tuple[str, ...], root: Path, skipped: list[Skipped]) -> Split:
    paths: list[Path] = []
    labels: list[int] = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            skipped.append(Skipped(name, path.relative_to(root).as_posix(), "it lies outside the class folders"))
    for label, class_name in enumerate(classes):
        before = len(paths)
        for path in sorted((folder / class_name).rglob("*")):
            if path.is_dir():
                continue
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if hidden or path.suffix.lower() not in ENDINGS:
                why = "it is hidden" if hidden else f"its ending is not one of {' '.join(ENDINGS)}"
                skipped.append(Skipped(name, path.relative_to(root).as_posix(), why))
                continue
            paths.append(path)
            labels.append(label)
        if classes and len(paths) == before and len(classes) > 1:
            raise DataError(f"class {class_name!r} has no image in {folder / class_name}; add some, or remove it")
    if not paths:
        raise DataError(
            f"there are no images in {folder}: expected one folder a class, with files that end in {' '.join(ENDINGS)}"
        )
    if len(classes) < 2:
        raise DataError(f"there is only one class, {classes[0]!r}, in {folder}; a classifier needs at least two")
    ids = tuple(path.relative_to(root).as_posix() for path in paths)
    return Split(name, file_images(paths), np.asarray(labels, np.int64), ids)
