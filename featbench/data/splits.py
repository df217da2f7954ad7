"""Splits of labelled images: their type, and how rows are shared out, stratified and seeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from featbench.config import DatasetConfig
from featbench.data.images import ArrayImages, Hashes, Indices, LazyImages
from featbench.errors import DataError
from featbench.fingerprint import fingerprint, hash_array

LEAST_IMAGES = 3  # of a class that is split: one each for train, val and test
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Images of one split in a fixed order: `labels` (N,) int64, `ids` N strings that name an image for good."""

    name: str
    images: ArrayImages | LazyImages
    labels: Labels
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.labels) == len(self.ids), self.name

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Indices, name: str | None = None) -> Split:
        """Return these rows, in this order."""
        ids = tuple(self.ids[index] for index in indices)
        return Split(name or self.name, self.images.subset(indices), self.labels[indices], ids)

    def digest(self) -> str:
        """Hash the content of the images, the labels and the ids, in order."""
        return self._digest

    @cached_property
    def hashes(self) -> Hashes:
        """A hash of the content of each image; None where there is none to compare."""
        return self.images.hashes()

    @cached_property
    def _digest(self) -> str:
        return fingerprint([self.images.digest(), hash_array(self.labels), fingerprint(self.ids)])


@dataclass(frozen=True)
class Skipped:
    """An image that is not used, and why."""

    split: str
    id: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: Its name.
        classes: The class names.
        splits: "train", "test" and, where it has one, "val".
        skipped: Files that are not used.
        remarks: Sentences for the user about decisions that may surprise, as which folder is which split.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    skipped: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the images: 1 where they are grey arrays, else 3, since files are decoded as RGB."""
        images = self.splits["train"].images
        return images.pixels.shape[3] if isinstance(images, ArrayImages) else 3

    @property
    def array_shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of every image; None where they are decoded from files, and have no one shape."""
        images = self.splits["train"].images
        return images.pixels.shape[1:] if isinstance(images, ArrayImages) else None


def split_whole(whole: Split, config: DatasetConfig, classes: tuple[str, ...], seed: int) -> dict[str, Split]:
    """Divide images into train, val and test, stratified by class; each keeps their order.

    Raises:
        DataError: A class has fewer than three images, or some split would have no image of a class.
    """
    counts = np.bincount(whole.labels, minlength=len(classes))
    if counts.min() < LEAST_IMAGES:
        raise DataError(
            f"class {classes[int(counts.argmin())]!r} has too few images ({counts.min()}) to be split into train, val "
            "and test; it needs at least three, or train/ and test/ folders of your own"
        )
    rest, test = held_out_rows(whole.labels, config.test_fraction, seed)
    train, val = held_out_rows(whole.labels[rest], config.val_fraction / (1 - config.test_fraction), seed)
    rows = {"train": rest[train], "val": rest[val], "test": test}
    return {name: whole.subset(chosen, name) for name, chosen in rows.items()}


def held_out_rows(labels: Labels, size: float | int, seed: int) -> tuple[Indices, Indices]:
    """Choose a stratified share of the rows: `size` is a fraction of them (float) or a count (int).

    Returns:
        The rows that stay and the rows that are held out, both in ascending order.

    Raises:
        DataError: There are too few images for one of each class on both sides.
    """
    rows = np.arange(len(labels))
    try:
        kept, held = train_test_split(rows, test_size=size, stratify=labels, random_state=seed)
    except ValueError:
        n_classes = len(np.unique(labels))
        raise DataError(
            f"{size:.3g} of {len(labels)} images cannot be held out so that each of {n_classes} classes is on both "
            "sides; add images, change the fraction or limit, or make train/ val/ and test/ folders of your own"
        ) from None
    return np.sort(kept), np.sort(held)


def limit(split: Split, count: int | None, seed: int) -> Split:
    """Return a stratified, seeded subset of at most `count` images, in the split's order.

    Raises:
        DataError: The count is too small for one image of each class.
    """
    if count is None or count >= len(split):
        return split
    n_classes = len(np.unique(split.labels))
    if count < n_classes:
        raise DataError(f"limit_{split.name} = {count} is fewer than one image for each of {n_classes} classes")
    if len(split) - count < n_classes:  # too few left over for scikit-learn to stratify
        return split.subset(_drop_rows(split.labels, len(split) - count, seed))
    _, chosen = held_out_rows(split.labels, count, seed)
    return split.subset(chosen)


def _drop_rows(labels: Labels, count: int, seed: int) -> Indices:
    """Drop `count` random rows, each from the class that is largest then, so that no class is lost."""
    rows = np.random.default_rng(seed).permutation(len(labels))
    for _ in range(count):
        largest = np.bincount(labels[rows]).argmax()
        rows = np.delete(rows, np.flatnonzero(labels[rows] == largest)[0])
    return np.sort(rows)
