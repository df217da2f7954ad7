from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.rows import LabelledFeatures
from featbench.config import EvaluateConfig
from featbench.errors import DataError
from featbench.solvers.memory import COLUMN_BYTES
from featbench.solvers.products import ScaledRows
from featbench.solvers.streamed import StreamedRows, concatenated, read_rows

Digits = Callable[[int, int], LabelledFeatures]
N_CLASSES = 10


def on_disk(path: Path, *splits: LabelledFeatures, columns: int = 4, store: str = "float32") -> list[LabelledFeatures]:
    """Put rows into one file; a fit may take the memory for so many columns of the first split."""
    X = np.concatenate([np.asarray(split.X) for split in splits]).astype(store)
    X.tofile(path)
    file: Any = np.memmap(path, store, "r", shape=X.shape)
    ends = np.cumsum([len(split.y) for split in splits]).tolist()
    memory_bytes = columns * COLUMN_BYTES * len(splits[0].y)
    return [
        LabelledFeatures(StreamedRows(file, np.arange(end - len(split.y), end), memory_bytes), split.y, split.ids)
        for split, end in zip(splits, ends, strict=True)
    ]


def test_a_view_is_of_the_rows_it_names(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    (split,) = on_disk(tmp_path / "x", LabelledFeatures(X, np.zeros(20, np.int64), ("",) * 20))
    rows = split.take(np.array([7, 3, 11, 19])).X
    assert isinstance(rows, StreamedRows)
    assert (rows.shape, len(rows), rows[1:3].shape) == ((4, 3), 4, (2, 3))
    np.testing.assert_array_equal(rows[1:].read(slice(2)), X[[3, 11]])
    np.testing.assert_array_equal(read_rows(rows, np.array([3, 0])), X[[19, 7]])
    both = concatenated(rows[:1], rows[2:])
    np.testing.assert_array_equal(read_rows(both, slice(None)), X[[7, 11, 19]])
    np.testing.assert_array_equal(read_rows(rows.transformed(np.square), slice(None)), X[[7, 3, 11, 19]] ** 2)
    scaling = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.tensor([0.5, 0.0, 3.0], dtype=torch.float64)
    scaled = ScaledRows(rows, *scaling, torch.float64)[torch.tensor([3])]
    np.testing.assert_allclose(scaled, (X[[19]].astype(np.float64) - [1, 2, 3]) * [0.5, 0, 3])


@pytest.mark.parametrize(
    ("selection", "store", "has_val", "steps"),
    [("cv", "float32", False, ()), ("holdout", "float16", True, ()), ("holdout", "float32", False, ("power", "l2"))],
)
def test_rows_on_disk_give_what_those_in_memory_do(
    digits: Digits, tmp_path: Path, selection: Any, store: str, has_val: bool, steps: tuple[str, ...]
) -> None:
    splits = [digits(0, 500), digits(500, 800), digits(800, 900)]
    grids = {"linear_svc": {"C": [1e-4, 1e-2], "class_weight": ["balanced"]}}
    folds = {"folds": 3} if selection == "cv" else {}
    config = EvaluateConfig(classifiers=("linear_svc",), selection=selection, grids=grids, **folds)

    def run(parts: list[LabelledFeatures]) -> Any:
        train, test, val = parts
        return fit_and_test(
            CLASSIFIERS["linear_svc"], train, val if has_val else None, test, config, 3, N_CLASSES, steps
        )

    mine, expected = run(on_disk(tmp_path / "x", *splits, store=store)), run(splits)
    assert (mine.params, mine.engine) == (expected.params, "featbench")
    assert mine.val_accuracy == pytest.approx(expected.val_accuracy, abs=1e-12)
    assert (mine.n_train, mine.n_val, mine.converged) == (expected.n_train, expected.n_val, True)
    np.testing.assert_array_equal(mine.predicted, expected.predicted)
    np.testing.assert_allclose(mine.scores, expected.scores, atol=2e-3)
    np.testing.assert_allclose(mine.model[-1].coef_, expected.model[-1].coef_, atol=1e-3)
    np.testing.assert_allclose(mine.model[-2].scale_, expected.model[-2].scale_, rtol=1e-6)
    assert mine.temperature == pytest.approx(expected.temperature, rel=1e-2)
    again = mine.model.predict(np.asarray(splits[1].X))
    np.testing.assert_array_equal(again, mine.predicted)


@pytest.mark.parametrize(("n", "d", "n_classes"), [(300, 1100, 3), (1200, 1100, 2)])
def test_many_features(tmp_path: Path, n: int, d: int, n_classes: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n + 100)
    X = (rng.normal(size=(n + 100, d)) + 0.3 * rng.normal(size=(n_classes, d))[y] + 3).astype(np.float32)
    X[:, 5] = 1.0  # constant
    ids = tuple(map(str, range(n + 100)))
    splits = [LabelledFeatures(X[part], y[part], ids[part]) for part in (slice(n), slice(n, None))]
    grids = {"linear_svc": {"C": [1e-4]}}
    config = EvaluateConfig(classifiers=("linear_svc",), selection="holdout", grids=grids)
    mine, expected = (
        fit_and_test(CLASSIFIERS["linear_svc"], train, None, test, config, 0, n_classes)
        for train, test in (on_disk(tmp_path / "x", *splits, columns=1), splits)
    )
    np.testing.assert_array_equal(mine.predicted, expected.predicted)
    np.testing.assert_allclose(mine.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(mine.model[-1].coef_[:, 5], 0, atol=1e-6)


def test_features_on_disk_that_are_not_finite(digits: Digits, tmp_path: Path) -> None:
    train, test = digits(0, 100), digits(100, 150)
    wrong = np.asarray(train.X).copy()
    wrong[[3, 50], 7] = np.nan
    splits = on_disk(tmp_path / "x", LabelledFeatures(wrong, train.y, train.ids), test)
    with pytest.raises(DataError, match="2 of 100 train rows hold features that are not finite"):
        fit_and_test(CLASSIFIERS["linear_svc"], splits[0], None, splits[1], EvaluateConfig(), 0, N_CLASSES)
