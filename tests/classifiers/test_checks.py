from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featbench.classifiers.checks import check_rows, check_trainable
from featbench.classifiers.registry import CLASSIFIERS
from featbench.config import EvaluateConfig
from featbench.errors import DataError, UsageError

CLASSES = ("cat", "dog", "owl")


def labels_of(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize(
    ("labels", "val", "settings"),
    [
        (labels_of(5, 5, 5), None, {}),
        (labels_of(3, 3, 3), labels_of(2, 2, 2), {"selection": "cv"}),
        (labels_of(1, 1, 1), labels_of(1, 1, 1), {}),
        (labels_of(2, 20, 20), None, {"selection": "holdout"}),
        (labels_of(1, 1), None, {"selection": "none"}),
        (labels_of(1, 9), None, {"classifiers": ("random_forest",)}),
        (labels_of(9, 0, 9), None, {}),
        (labels_of(9, 9), None, {"train_sizes": (5, 9)}),
    ],
)
def test_enough_rows(labels: np.ndarray, val: np.ndarray | None, settings: dict[str, Any]) -> None:
    check_trainable(labels, CLASSES, EvaluateConfig(**settings), val)


@pytest.mark.parametrize(
    ("labels", "val", "settings", "message"),
    [
        (
            labels_of(9, 3, 9),
            None,
            {},
            r"class 'dog' has 3 images .*folds = 5; add images, set evaluate\.folds to at most 3, ",
        ),
        (labels_of(9, 1), None, {}, r"class 'dog' has 1 images .*; add images, set evaluate\.selection to .holdout"),
        (labels_of(3, 3), labels_of(2, 1), {"selection": "cv"}, "class 'dog' has 4 images"),
        # Nine tenths of five images are still five, of ten they are nine.
        (labels_of(10, 20), None, {"folds": 10, "repeats": 2}, "class 'cat' has 9 images .*folds = 10"),
        (
            labels_of(9, 9),
            None,
            {"train_sizes": (2, 5)},
            "class 'cat' has 2 images .*folds = 5; remove the smaller train_sizes, ",
        ),
        (labels_of(1, 30), None, {"selection": "holdout"}, r"holding out 7 of 31 .* \(class 'cat' has 1\)"),
        (labels_of(2, 2, 2), None, {"selection": "holdout"}, "holding out 2 of 6 training images .* each of 3 classes"),
        (labels_of(9), None, {}, "at least two classes, and the training split has: 'cat'"),
        (labels_of(9), labels_of(0, 9), {"selection": "none"}, "at least two classes"),
    ],
)
def test_too_few_rows(labels: np.ndarray, val: np.ndarray | None, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_trainable(labels, CLASSES, EvaluateConfig(**settings), val)


def test_no_rows_at_all() -> None:
    with pytest.raises(DataError, match="the training split has: none"):
        check_rows(CLASSIFIERS["svm_rbf"], labels_of(), 0, CLASSES, EvaluateConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classifiers": ("nearest",)}, "unknown classifier 'nearest'"),
        ({"train_sizes": (10,)}, "asks for 10 images a class"),
    ],
)
def test_a_wrong_setting_is_the_users(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_trainable(labels_of(9, 9), CLASSES, EvaluateConfig(**settings), None)
