"""A folder of images: its splits, its classes, and the files that are skipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from featbench.config.table import is_utf8
from featbench.data.images import file_images
from featbench.data.layout import Classes, Layout, class_folders, entries_of, read_layout
from featbench.data.names import plain_name
from featbench.data.shell_lines import hide_lines, listed, quoted
from featbench.data.splits import LEAST_IMAGES, Skipped, Split
from featbench.data.walk import ENDINGS, HIDDEN, NO_ENDING, is_folder, is_hidden, is_own, walk
from featbench.errors import DataError, UsageError
from featbench.terminal import one_line


class Scanned(NamedTuple):
    """What a folder holds.

    Attributes:
        classes: The class names.
        splits: "train" and "test", with "val" where all three are there, or "all" where one folder a class is all.
        skipped: Files that are not used, with the reason.
        layout: The folders of these.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    skipped: list[Skipped]
    layout: Layout


def scan_folder(root: Path, *, on_bad_image: Literal["skip", "error"] = "skip") -> Scanned:
    """List the images of a folder, sorted by path, so that every machine sees them in one order.

    Whatever has the ending of an image is in a split, even a broken link: whether it can be read is seen when it is.

    Raises:
        UsageError: There is no such folder, or its path is not UTF-8.
        DataError: There is no image, only one class, or classes differ between the splits; or a
            folder cannot be listed, and it is one of these or `on_bad_image` is "error".
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {str(root)!r}; dataset.root must be a folder of images")
    if not is_utf8(str(root)):
        raise UsageError(
            f"the path {plain_name(root)} is not UTF-8, so experiment.toml cannot name it; rename the folder"
        )
    layout = read_layout(root)
    _check_same_classes(root, layout)
    scan = _Scan(root, on_bad_image)
    if "all" not in layout.folders:
        scan.leave_out("", root, layout.folders.values(), "split")
    splits = {name: scan.split(name, layout.folders[name], found) for name, found in layout.classes.items()}
    return Scanned(tuple(next(iter(layout.classes.values()))), splits, scan.skipped, layout)


def check_counts(whole: Split, classes: Classes) -> None:
    """Check that images can be split into train, val and test.

    Raises:
        DataError: A class has too few.
    """
    counts = np.bincount(whole.labels, minlength=len(classes))
    few = [(name, int(count)) for name, count in zip(classes, counts, strict=True) if count < LEAST_IMAGES]
    if few:
        ways = "add images, or make train/ and test/ folders of your own"
        if len(classes) - len(few) > 1:
            ways += ", or hide it:" + hide_lines(place for name, _ in few for place in classes[name])
        raise DataError(
            f"too few images to be split into train, val and test: {listed(f'{name!r} has {n}' for name, n in few)}. "
            f"A class needs at least {LEAST_IMAGES}; {ways}",
            with_lines=True,
        )


@dataclass(frozen=True)
class _Scan:
    """What is the same for every split; `skipped` grows."""

    root: Path
    on_bad_image: Literal["skip", "error"]
    skipped: list[Skipped] = field(default_factory=list)

    def split(self, name: str, folder: Path, classes: Classes) -> Split:
        """Find the images of each class."""
        self.leave_out(name, folder, [place for places in classes.values() for place in places], "class")
        paths: list[str] = []
        labels: list[int] = []
        for label, (class_name, places) in enumerate(classes.items()):
            before = len(self.skipped)
            images = [path for place in places for path in self._images(name, place)]
            if not images and len(classes) > 1:
                raise DataError(
                    f"class {class_name!r} has no image in {places[0]}{_endings(self.skipped[before:])}; add some, or "
                    "remove it"
                )
            paths += images
            labels += [label] * len(images)
        if not paths:
            raise DataError(
                f"there are no images in {folder}{_endings(self.skipped)}: expected one folder a class, with files "
                f"that end in {' '.join(ENDINGS)}"
            )
        if len(classes) < 2:
            raise DataError(_one_class(folder, classes))
        return Split(name, file_images(paths), np.asarray(labels, np.int64), tuple(map(self._id, paths)))

    def leave_out(self, split: str, folder: Path, used: Iterable[Path], kind: str) -> None:
        """List files and folders next to the split or class folders, without those that featbench wrote."""
        taken = set(used)
        for entry in entries_of(folder):
            if Path(entry.path) not in taken and not (is_folder(entry) and is_own(entry.path)):
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
                raise DataError(f'{found.path}: {found.reason} (on_bad_image = "skip" skips it)')
        return images

    def _skip(self, split: str, path: str, reason: str) -> None:
        self.skipped.append(Skipped(split, self._id(path), reason))

    def _id(self, path: str) -> str:
        return plain_name(path.removeprefix(self._below))

    @cached_property
    def _below(self) -> str:
        return os.path.join(self.root, "")  # noqa: PTH118  # with the separator at its end


def _endings(skipped: Sequence[Skipped]) -> str:
    """Count the skipped files by their endings, as in " (.npy: 12 files)"."""
    files = [Path(one.id).suffix.lower() for one in skipped if one.reason == NO_ENDING]
    counts = Counter(ending or "no ending" for ending in files).most_common()
    return (
        f" ({', '.join(f'{ending}: {count} file' + 's' * (count > 1) for ending, count in counts)})" if counts else ""
    )


def _one_class(folder: Path, classes: Classes) -> str:
    name, (place, *_) = next(iter(classes.items()))
    below = listed(class_folders(place))
    deeper = f"; where {below} are the classes, run {quoted(place)}" if len(class_folders(place)) > 1 else ""
    return f"there is only one class, {name!r}, in {folder}; a classifier needs two{deeper}"


def _check_same_classes(root: Path, layout: Layout) -> None:
    """Refuse classes that some split lacks: nothing could be learned, or tested, of them."""
    every = {name: place for classes in layout.classes.values() for name, (place, *_) in classes.items()}
    lacking = {
        layout.folders[split].name: sorted(every.keys() - classes.keys()) for split, classes in layout.classes.items()
    }
    lacking = {split: names for split, names in lacking.items() if names}
    if lacking:
        odd = {name for names in lacking.values() for name in names}
        places = [
            p for classes in layout.classes.values() for name in sorted(odd & classes.keys()) for p in classes[name]
        ]
        what = "; ".join(f"{split} lacks {listed(names)}" for split, names in lacking.items())
        raise DataError(
            f"{one_line(str(root))}: the splits have different classes: {what}. Add images there"
            + (f", or hide them everywhere:{hide_lines(places)}" if len(every) - len(odd) > 1 else ""),
            with_lines=True,
        )
