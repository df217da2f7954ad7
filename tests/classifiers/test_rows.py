from __future__ import annotations

import numpy as np
import pytest

from featbench.classifiers.rows import LabelledFeatures, train_subsets
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
