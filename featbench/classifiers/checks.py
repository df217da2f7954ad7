"""What a fit needs of the training rows, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

from featbench.classifiers.registry import ClassifierSpec, get_classifier
from featbench.classifiers.rows import train_subsets
from featbench.classifiers.select import HOLDOUT_FRACTION, final_rows, how_to_select
from featbench.classifiers.transforms import learns
from featbench.config import EvaluateConfig
from featbench.errors import DataError


def check_trainable(
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    config: EvaluateConfig,
    val_labels: npt.NDArray[np.int64] | None,
) -> None:
    """Check, before any features are extracted, that every fit of this experiment has the rows it needs.

    Args:
        labels: Of the training split, (N,) int64.
        classes: Names of the classes.
        config: The `[evaluate]` table.
        val_labels: Of the val split, (M,) int64; None where the data set has none.

    Raises:
        DataError: A class has too few training images, or only one class has any.
        UsageError: A classifier does not exist, or a training size is larger than a class.
    """
    for name in config.classifiers:
        spec = get_classifier(name)
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
