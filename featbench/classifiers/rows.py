"""Which rows a classifier is trained on: labelled features, and the subsets of repeats and learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from featbench.errors import DataError, UsageError
from featbench.solvers.streamed import FeatureRows, read_rows

SUBSAMPLE = 0.9  # of each class: enough rows to be the same problem, few enough to differ


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """The features of one split.

    Attributes:
        X: (N, D) float, finite; in memory or on disk.
        y: (N,) int64 in [0, n_classes).
        ids: N sample ids.
    """

    X: FeatureRows
    y: npt.NDArray[np.int64]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.X) == len(self.y) == len(self.ids):
            raise DataError(
                f"{len(self.X)} feature rows, {len(self.y)} labels and {len(self.ids)} ids do not belong together; "
                "extract the features again"
            )

    def take(self, rows: npt.NDArray[np.intp]) -> LabelledFeatures:
        """Return the rows with these indices."""
        return LabelledFeatures(self.X[rows], self.y[rows], tuple(self.ids[row] for row in rows))

    def in_memory(self) -> LabelledFeatures:
        """Return the same, read from disk if it lies there."""
        return LabelledFeatures(read_rows(self.X, slice(None)), self.y, self.ids)


@dataclass(frozen=True, eq=False)
class Subset:
    """The training rows of one fit.

    Attributes:
        size: Images a class, or None for the whole training split and its subsamples.
        repeat: 0 to repeats - 1.
        seed: What to give to `fit_and_test`.
        indices: Rows of the training split, ascending.
    """

    size: int | None
    repeat: int
    seed: int
    indices: npt.NDArray[np.intp]


def train_subsets(
    labels: npt.NDArray[np.int64], train_sizes: Sequence[int], repeats: int, seed: int, *, seeded: bool
) -> Iterator[Subset]:
    """Draw the training rows of every repeat and size; repeat r has the seed `seed + r`.

    Without sizes repeat 0 is all rows. The others are all rows again for a seeded method, whose seed then makes the
    difference, and a stratified subsample of 90% for the rest, which would otherwise repeat themselves. With sizes
    every repeat draws anew, and within a repeat each size contains the smaller ones.

    Args:
        labels: (N,) int64.
        train_sizes: Images a class; empty for all rows.
        repeats: Number of repeats.
        seed: Of the draws.
        seeded: Whether the method has a seed of its own.

    Raises:
        UsageError: A size is larger than the smallest class.
    """
    _, counts = np.unique(labels, return_counts=True)
    too_large = [size for size in train_sizes if size > counts.min()]
    if too_large:
        raise UsageError(
            f"evaluate.train_sizes asks for {max(too_large)} images a class, and the smallest class has {counts.min()} "
            "training images; remove the larger sizes, or add images"
        )
    for repeat in range(repeats):
        drawn = _shuffled_classes(labels, np.random.default_rng(seed + repeat))
        for size in train_sizes:
            yield Subset(size, repeat, seed + repeat, np.sort(np.concatenate([rows[:size] for rows in drawn])))
        if not train_sizes and (repeat == 0 or seeded):
            yield Subset(None, repeat, seed + repeat, np.arange(len(labels)))
        elif not train_sizes:
            kept = [rows[: ceil(SUBSAMPLE * len(rows))] for rows in drawn]
            yield Subset(None, repeat, seed + repeat, np.sort(np.concatenate(kept)))


def _shuffled_classes(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> list[npt.NDArray[np.intp]]:
    return [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
