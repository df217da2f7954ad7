from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featbench.classifiers.registry import CLASSIFIERS, get_classifier
from featbench.classifiers.rows import LabelledFeatures, check_rows, check_trainable, train_subsets
from featbench.config import EvaluateConfig
from featbench.errors import DataError, UsageError

LABELS = np.array([0] * 20 + [1] * 10 + [2] * 31)


def counts(indices: np.ndarray) -> list[int]:
    return np.bincount(LABELS[indices]).tolist()


def test_parts_that_do_not_belong_together() -> None:
    with pytest.raises(DataError, match="3 feature rows, 2 labels and 3 ids do not belong together"):
        LabelledFeatures(np.zeros((3, 2)), np.zeros(2, dtype=np.int64), ("a", "b", "c"))


def test_take_keeps_rows_together() -> None:
    whole = LabelledFeatures(np.arange(6.0).reshape(3, 2), np.array([0, 1, 2]), ("a", "b", "c"))
    part = whole.take(np.array([2, 0]))
    assert (part.X.tolist(), part.y.tolist(), part.ids) == ([[4, 5], [0, 1]], [2, 0], ("c", "a"))


@pytest.mark.parametrize("seeded", [False, True])
def test_repeat_0_is_every_row(seeded: bool) -> None:
    (only,) = train_subsets(LABELS, (), 1, 7, seeded=seeded)
    assert (only.size, only.repeat, only.seed) == (None, 0, 7)
    assert only.indices.tolist() == list(range(61))


def test_repeats_of_a_seeded_method_keep_the_rows() -> None:
    subsets = list(train_subsets(LABELS, (), 3, 7, seeded=True))
    assert [(s.repeat, s.seed, len(s.indices)) for s in subsets] == [(0, 7, 61), (1, 8, 61), (2, 9, 61)]


def test_repeats_of_a_convex_method_drop_a_tenth_of_each_class() -> None:
    _, first, second = train_subsets(LABELS, (), 3, 7, seeded=False)
    assert (first.seed, second.seed) == (8, 9)
    assert counts(first.indices) == counts(second.indices) == [18, 9, 28]
    assert len(np.unique(first.indices)) == len(first.indices)
    assert first.indices.tolist() != second.indices.tolist()


@pytest.mark.parametrize("seeded", [False, True])
def test_learning_curves_are_stratified_and_nested(seeded: bool) -> None:
    subsets = list(train_subsets(LABELS, (2, 10, 5), 2, 0, seeded=seeded))
    assert [(s.size, s.repeat, s.seed) for s in subsets] == [
        *((2, 0, 0), (10, 0, 0), (5, 0, 0)),
        *((2, 1, 1), (10, 1, 1), (5, 1, 1)),
    ]
    for draw in (subsets[:3], subsets[3:]):
        two, ten, five = (set(s.indices.tolist()) for s in draw)
        assert two < five < ten
    for subset in subsets:
        assert counts(subset.indices) == [subset.size] * 3
        assert (np.diff(subset.indices) > 0).all()
    assert subsets[0].indices.tolist() != subsets[3].indices.tolist()


def test_the_same_seed_draws_the_same_rows() -> None:
    first, second = ([s.indices.tolist() for s in train_subsets(LABELS, (3,), 2, 5, seeded=False)] for _ in range(2))
    assert first == second


def test_a_size_above_the_smallest_class() -> None:
    with pytest.raises(UsageError, match="asks for 12 images a class, and the smallest class has 10 training images"):
        list(train_subsets(LABELS, (5, 12), 1, 0, seeded=False))


CLASSES = ("cat", "dog", "owl")


def check_all(labels: np.ndarray, config: EvaluateConfig, val: np.ndarray | None) -> None:
    check_trainable(map(get_classifier, config.classifiers), labels, CLASSES, config, val)


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
    check_all(labels, EvaluateConfig(**settings), val)


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
        check_all(labels, EvaluateConfig(**settings), val)


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
        check_all(labels_of(9, 9), EvaluateConfig(**settings), None)
