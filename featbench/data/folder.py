"""A folder of images: `train/ val/ test/` with one folder a class in each, or just one folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from featbench.data.images import file_images
from featbench.data.names import plain_name
from featbench.data.splits import Skipped, Split
from featbench.data.walk import ENDINGS, HIDDEN, is_folder, is_hidden, leads_back, list_folder, walk
from featbench.errors import DataError, UsageError


def scan_folder(
    root: Path, *, on_bad_image: Literal["skip", "error"] = "skip"
) -> tuple[tuple[str, ...], dict[str, Split], list[Skipped]]:
    """List the images of a folder, sorted by path, so that every machine sees them in one order.

    Whatever has the ending of an image is in a split, even a broken link: whether it can be read is seen when it is.

    Returns:
        The class names; the splits found: "train" and "test", with "val" where all three are there, or "all" where
        the folder holds one folder a class; and the files left out. Where there is no `test/`, `val/` is the test
        split.

    Raises:
        UsageError: There is no such folder, or its path is not UTF-8.
        DataError: There is no image, only one class, or classes differ between the splits; or a folder cannot be
            listed, and it is one of these or `on_bad_image` is "error".
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {str(root)!r}; dataset.root must be a folder of images")
    if not _is_utf8(root):
        raise UsageError(
            f"the path {plain_name(root)} is not UTF-8, so experiment.toml cannot name it; rename the folder"
        )
    scan = _Scan(root, on_bad_image)
    parts = _parts(root)
    if "all" not in parts:
        scan.leave_out("", (entry for entry in _list(root) if Path(entry.path) not in parts.values()), "split")
    classes = tuple(_classes(next(iter(parts.values()))))
    splits = {}
    for name, folder in parts.items():
        found = _classes(folder)
        if found.keys() != set(classes):
            odd = ", ".join(sorted(found.keys() ^ set(classes)))
            raise DataError(f"{root}: train and {folder.name} have different classes: {odd} is only in one of them")
        splits[name] = scan.split(name, folder, found)
    return classes, splits, scan.skipped


@dataclass(frozen=True)
class _Scan:
    """What is the same for every split; `skipped` grows."""

    root: Path
    on_bad_image: Literal["skip", "error"]
    skipped: list[Skipped] = field(default_factory=list)

    def split(self, name: str, folder: Path, classes: Mapping[str, Path]) -> Split:
        """Find the images of each class."""
        self.leave_out(name, (entry for entry in _list(folder) if Path(entry.path) not in classes.values()), "class")
        paths: list[str] = []
        labels: list[int] = []
        for label, (class_name, class_folder) in enumerate(classes.items()):
            images = self._images(name, class_folder)
            if not images and len(classes) > 1:
                raise DataError(f"class {class_name!r} has no image in {class_folder}; add some, or remove it")
            paths += images
            labels += [label] * len(images)
        if not paths:
            raise DataError(
                f"there are no images in {folder}: expected one folder a class, with files that end in "
                f"{' '.join(ENDINGS)}"
            )
        if len(classes) < 2:
            raise DataError(f"there is only one class, {next(iter(classes))!r}, in {folder}; a classifier needs two")
        return Split(name, file_images(paths), np.asarray(labels, np.int64), tuple(map(self._id, paths)))

    def leave_out(self, split: str, entries: Iterable[os.DirEntry[str]], kind: str) -> None:
        """List what lies beside the split or class folders."""
        for entry in entries:
            reason = HIDDEN if is_hidden(entry.name) else f"it lies outside the {kind} folders"
            self._skip(split, entry.path, reason)

    def _images(self, split: str, folder: Path) -> list[str]:
        images = []
        for found in walk(folder):
            if not found.reason:
                images.append(found.path)
                continue
            self._skip(split, found.path, found.reason)
            if found.lost and self.on_bad_image == "error":
                raise DataError(f'{found.path}: {found.reason} (on_bad_image = "skip" leaves it out)')
        return images

    def _skip(self, split: str, path: str, reason: str) -> None:
        self.skipped.append(Skipped(split, self._id(path), reason))

    def _id(self, path: str) -> str:
        return plain_name(path.removeprefix(self._below))

    @cached_property
    def _below(self) -> str:
        return os.path.join(self.root, "")  # noqa: PTH118  # with the separator at its end


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _parts(root: Path) -> dict[str, Path]:
    """Find the folders of the splits; "all" is the one that holds the classes where there are none."""
    folders = {entry.name for entry in _list(root) if is_folder(entry)}
    parts: dict[str, Path] = {name: root / name for name in ("train", "val", "test") if name in folders}
    if "train" not in parts:
        if parts and len(parts) == len(_classes(root)):
            raise DataError(f"{root} has {' and '.join(parts)}, but no train folder; add it")
        return {"all": root}
    if len(parts) == 1:
        return {"all": parts["train"]}
    if "test" not in parts:
        parts["test"] = parts.pop("val")
    return parts


def _classes(folder: Path) -> dict[str, Path]:
    """Find the class folders, in order; links count, but not those that lead back."""
    return {
        plain_name(Path(entry.name)): Path(entry.path)
        for entry in _list(folder)
        if is_folder(entry) and not is_hidden(entry.name) and not leads_back(entry)
    }


def _list(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list_folder(folder)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be listed: {error.strerror}; open it, or remove it") from error
