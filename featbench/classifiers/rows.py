"""Which rows a classifier is trained, selected and tested on, and whether there are enough.

| `selection` | hyper-parameters are scored on | recorded as |
| --- | --- | --- |
| `cv` | stratified folds of train (+ val); for a random forest the rows out of each tree's bag | `cv`, `oob` |
| `holdout` | the data set's val split, or a stratified 20% of train where it has none | `holdout` |
| `auto` | as `holdout` where there is a val split or more than 5,000 training rows, else as `cv` | |
| `none` | nothing: scikit-learn's defaults are taken | `none` |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold, train_test_split

from featbench.classifiers.spec import ClassifierSpec, Rows
from featbench.classifiers.transforms import learns
from featbench.config import EvaluateConfig
from featbench.errors import DataError, UsageError
from featbench.solvers.streamed import FeatureRows, read_rows

SUBSAMPLE = 0.9  # of each class: enough rows to be the same problem, few enough to differ
HOLDOUT_FRACTION = 0.2
HOLDOUT_ABOVE = 5_000  # rows: 20% of them give an accuracy of 90% a standard error below 1 point, as folds would

How = Literal["cv", "oob", "holdout", "none"]


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
        seed: Seed of the draws.
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


def final_rows(n_train: int, n_val: int, config: EvaluateConfig) -> int:
    """Return how many of the rows (train, then val) the final model is fitted on.

    All of them, but for a learning curve, where val rows would outnumber the few training rows that the curve is about.
    """
    return n_train if config.train_sizes else n_train + n_val


def how_to_select(spec: ClassifierSpec, config: EvaluateConfig, n_train: int, *, has_val: bool, learning: bool) -> How:
    """Resolve `selection` for `n_train` rows, with or without a val split and steps that learn from rows."""
    how = config.selection
    if how == "auto":
        how = "holdout" if has_val or n_train > HOLDOUT_ABOVE else "cv"
    return "oob" if how == "cv" and spec.out_of_bag and not learning else how


def splits_of(
    how: How, y: npt.NDArray[np.int64], n_train: int, n_final: int, folds: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """List (rows to fit on, rows to score on)."""
    if how == "cv":
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return list(splitter.split(np.zeros(n_final), y[:n_final]))
    train = np.arange(n_train)
    if len(y) > n_train:
        return [(train, np.arange(n_train, len(y)))]
    kept, held_out = train_test_split(train, test_size=HOLDOUT_FRACTION, stratify=y, random_state=seed)
    return [(np.sort(kept), np.sort(held_out))]


def check_trainable(
    specs: Iterable[ClassifierSpec],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    config: EvaluateConfig,
    val_labels: npt.NDArray[np.int64] | None,
) -> None:
    """Check, before any features are extracted, that every fit of this experiment has the rows it needs.

    Args:
        specs: The classifiers.
        labels: Of the training split, (N,) int64.
        classes: Names of the classes.
        config: The `[evaluate]` table.
        val_labels: Of the val split, (M,) int64; None where the data set has none.

    Raises:
        DataError: A class has too few training images, or only one class has any.
        UsageError: A training size is larger than a class.
    """
    for spec in specs:
        for subset in train_subsets(labels, config.train_sizes, config.repeats, 0, seeded=spec.seeded):
            rows = labels[subset.indices]
            both = rows if val_labels is None else np.concatenate([rows, val_labels])
            check_rows(spec, both, len(rows), classes, config)


def check_rows(
    spec: ClassifierSpec, y: npt.NDArray[np.int64], n_train: int, classes: Sequence[str], config: EvaluateConfig
) -> None:
    """Check that one fit has the rows it needs.

    Args:
        spec: The classifier.
        y: Labels of the training rows, then of the val split, (N,) int64.
        n_train: The number of training rows.
        classes: Names of the classes.
        config: The `[evaluate]` table.

    Raises:
        DataError: A class has too few rows, or only one class has any.
    """
    train_classes = np.unique(y[:n_train])
    if len(train_classes) < 2:
        names = ", ".join(repr(classes[label]) for label in train_classes) or "none"
        raise DataError(
            f"training needs images of at least two classes, and the training split has: {names}; add images"
        )
    learning = any(learns(steps) for steps in config.steps)
    how = how_to_select(spec, config, n_train, has_val=len(y) > n_train, learning=learning)
    if how == "cv":
        _check_folds(y[: final_rows(n_train, len(y) - n_train, config)], classes, config)
    if how == "holdout" and len(y) == n_train:
        _check_carving(y, classes)


def _check_folds(y: npt.NDArray[np.int64], classes: Sequence[str], config: EvaluateConfig) -> None:
    name, count = _smallest(y, classes)
    if count < config.folds:
        more = "remove the smaller train_sizes" if config.train_sizes else "add images"
        fewer = f"set evaluate.folds to at most {count}, or " if count >= 2 else ""
        raise DataError(
            f"class {name!r} has {count} images to train on, too few for evaluate.folds = {config.folds}; {more}, "
            f'{fewer}set evaluate.selection to "holdout" (five images a class) or "none" (no selection)'
        )


def _check_carving(y: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
    name, count = _smallest(y, classes)
    n_classes, n_held_out = len(np.unique(y)), ceil(HOLDOUT_FRACTION * len(y))
    if count < 2 or n_held_out < n_classes:
        raise DataError(
            f"holding out {n_held_out} of {len(y)} training images cannot show each of {n_classes} classes "
            f"on both sides (class {name!r} has {count}); add images (five a class do), a val split, "
            'or set evaluate.selection to "cv" with few folds, or to "none"'
        )


def _smallest(y: npt.NDArray[np.int64], classes: Sequence[str]) -> tuple[str, int]:
    labels, counts = np.unique(y, return_counts=True)
    smallest = int(np.argmin(counts))
    return classes[labels[smallest]], int(counts[smallest])
