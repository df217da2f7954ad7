from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from featbench.classifiers import engine as engine_
from featbench.classifiers.engine import fit_engine, search_engine
from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.rows import LabelledFeatures
from featbench.classifiers.select import select
from featbench.config import EvaluateConfig
from featbench.solvers.linear_folds import LinearSettings
from featbench.solvers.linear_grid import linear_grid
from featbench.solvers.rbf_grid import rbf_grid

Digits = Callable[[int, int], LabelledFeatures]
Splits = list[tuple[np.ndarray, np.ndarray]]


def folds_of(y: np.ndarray, count: int = 3) -> Splits:
    return list(StratifiedKFold(count, shuffle=True, random_state=0).split(y, y))


def by_hand(model: Any, X: np.ndarray, y: np.ndarray, splits: Splits) -> list[float]:
    pipeline = make_pipeline(StandardScaler(), model)
    return [float(pipeline.fit(X[kept], y[kept]).score(X[out], y[out])) for kept, out in splits]


@pytest.mark.parametrize("name", ["linear_svc", "svm_rbf"])
@pytest.mark.parametrize("selection", ["cv", "holdout"])
def test_both_engines_choose_the_same(digits: Digits, name: str, selection: Any) -> None:
    train, test = digits(0, 900), digits(900, 1797)
    fitted = [
        fit_and_test(
            name, train, None, test, EvaluateConfig(classifiers=(name,), selection=selection, engine=engine), 3, 10
        )
        for engine in ("auto", "sklearn")
    ]
    ours, theirs = fitted
    assert (ours.engine, theirs.engine) == ("featbench", "scikit-learn")
    assert ours.params == theirs.params
    assert ours.val_accuracy == pytest.approx(theirs.val_accuracy, abs=1e-3)
    assert ours.metrics.accuracy == pytest.approx(theirs.metrics.accuracy, abs=1e-3)
    assert (ours.predicted == theirs.predicted).mean() >= 0.999
    assert (ours.n_not_converged, ours.converged, ours.n_val) == (0, True, theirs.n_val)
    assert [type(step) for _, step in ours.model.steps] == [type(step) for _, step in theirs.model.steps]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "settings", [{}, {"fit_intercept": False}, {"intercept_scaling": 5.0}, {"class_weight": "balanced"}]
)
def test_a_linear_grid_scores_as_the_loop(digits: Digits, settings: dict[str, Any], dtype: type) -> None:
    rows = digits(0, 400)
    X, splits = rows.X.astype(dtype), folds_of(rows.y)
    grid = linear_grid(X, rows.y, splits, [1e-2, 1e-5, 1.0], LinearSettings(tol=1e-6, **settings))
    for C, found in zip([1e-2, 1e-5, 1.0], grid, strict=True):
        model = LinearSVC(C=C, dual=False, tol=1e-6, max_iter=5000, **settings)
        expected = by_hand(model, X, rows.y, splits)
        assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=0.0076)  # one of 133 rows
        assert all(converged for _, converged in found)


def test_a_held_out_row_far_away_changes_nothing_of_the_fit() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = np.where(y == 1, 1.0, -1.0)[:, None] + 0.7 * rng.normal(size=(200, 3))
    X[-1] = 1e6
    X[:100, 2] = 5.0  # constant where the first split is fitted, not where it is scored
    splits = [(np.arange(100), np.arange(100, 200)), (np.arange(100, 200), np.arange(100))]
    for dtype in (np.float64, np.float32):
        (found,) = linear_grid(X.astype(dtype), y, splits, [0.1], LinearSettings())
        expected = by_hand(LinearSVC(C=0.1, dual=False), X, y, splits)
        assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=1e-12)


def test_a_class_missing_in_a_fold(digits: Digits) -> None:
    rows = digits(0, 300)
    few = np.flatnonzero(np.isin(rows.y, (3, 8)))
    splits = [(np.flatnonzero(rows.y != 4), np.arange(300)), (few, np.arange(300)), (np.arange(300), few)]
    (found,) = linear_grid(rows.X, rows.y, splits, [0.01], LinearSettings(tol=1e-6))
    expected = by_hand(LinearSVC(C=0.01, dual=False, tol=1e-6), rows.X, rows.y, splits)
    assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "settings", [{}, {"fit_intercept": False}, {"intercept_scaling": 5.0, "class_weight": "balanced"}]
)
def test_a_linear_grid_with_more_features_than_rows(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    X = (rng.normal(size=(90, 200)) + rng.normal(size=(3, 200))[y] + 3).astype(np.float32)
    X[:, 5] = 1.0
    grid = linear_grid(X, y, folds_of(y), [1.0, 1e-4, 1e-2], LinearSettings(tol=1e-6, **settings))
    for C, found in zip([1.0, 1e-4, 1e-2], grid, strict=True):
        model = LinearSVC(C=C, dual=False, tol=1e-6, max_iter=5000, **settings)
        expected = by_hand(model, X.astype(np.float64), y, folds_of(y))
        assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=1e-12)
        assert all(converged for _, converged in found)


@pytest.mark.parametrize("gamma", ["scale", "auto", 0.01])
def test_a_kernel_grid_scores_as_the_loop(digits: Digits, gamma: Any) -> None:
    rows, splits = digits(0, 300), folds_of(digits(0, 300).y)
    machines = [SVC(C=C, gamma=gamma, break_ties=True, class_weight="balanced") for C in (0.1, 10.0)]
    for machine, found in zip(machines, rbf_grid(rows.X, rows.y, splits, machines), strict=True):
        assert [accuracy for accuracy, _ in found] == pytest.approx(by_hand(machine, rows.X, rows.y, splits), abs=1e-12)


def test_a_precomputed_kernel_is_the_same_machine(digits: Digits) -> None:
    X = StandardScaler().fit_transform(digits(0, 300).X).astype(np.float64)
    distances = ((X[:, None] - X) ** 2).sum(2)
    plain = SVC(gamma=0.01).fit(X, digits(0, 300).y)
    precomputed = SVC(kernel="precomputed").fit(np.exp(-0.01 * distances), digits(0, 300).y)
    assert np.array_equal(plain.support_, precomputed.support_)
    expected = plain.decision_function(X)
    np.testing.assert_allclose(precomputed.decision_function(np.exp(-0.01 * distances)), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "params", "engine"),
    [
        ("linear_svc", {"C": 1.0, "class_weight": "balanced", "penalty": "l2"}, "featbench"),
        ("linear_svc", {"penalty": "l1"}, "scikit-learn"),
        ("linear_svc", {"multi_class": "crammer_singer"}, "scikit-learn"),
        ("logistic_regression", {"C": 100.0, "max_iter": 50}, "featbench"),
        ("logistic_regression", {"C": 1000.0}, "scikit-learn"),
        ("logistic_regression", {"class_weight": "balanced"}, "scikit-learn"),
        ("svm_rbf", {}, "scikit-learn"),  # the final model is scikit-learn's own
        ("random_forest", {}, "scikit-learn"),
    ],
)
def test_which_engine_fits(name: str, params: dict[str, Any], engine: str) -> None:
    assert fit_engine(name, [params], EvaluateConfig()) == engine
    assert fit_engine(name, [params], EvaluateConfig(engine="sklearn")) == "scikit-learn"


def test_other_problems_are_left_to_scikit_learn(digits: Digits) -> None:
    rows = digits(0, 200)
    config = EvaluateConfig(classifiers=("linear_svc",), grids={"linear_svc": {"penalty": ("l1",), "C": (0.1,)}})
    assert select("linear_svc", rows.X, rows.y, 200, config, 0).engine == "scikit-learn"


@pytest.mark.parametrize(("installed", "beyond"), [(True, "scikit-learn-intelex"), (False, "scikit-learn")])
def test_kernels_stay_within_their_memory(installed: bool, beyond: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_, "installed", lambda: installed)
    small, large = np.arange(1000), np.arange(40_000)
    two, ten = np.arange(40_000) % 2, np.arange(40_000) % 10

    def engine(y: np.ndarray, kept: np.ndarray, asked: str = "auto") -> str:
        config = EvaluateConfig(engine=asked)  # type: ignore[arg-type]
        return search_engine("svm_rbf", [{}], y, [(small, small), (kept, small)], config)

    assert engine(two, small) == "featbench"
    assert engine(ten, large) == "featbench"  # two classes at a time
    assert engine(two, large) == beyond
    assert engine(two, small, "sklearn") == "scikit-learn"


def test_grids_of_several_parameters_keep_their_order(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = digits(0, 200)
    grid = [{"C": 1e-2, "tol": 1e-3}, {"C": 1e-6, "tol": 1e-5}, {"C": 1e-6, "tol": 1e-3}, {"C": 1e-2, "tol": 1e-5}]
    calls: list[list[float]] = []

    def recorded(
        X: Any, y: Any, splits: Any, Cs: list[float], settings: Any, device: str
    ) -> list[list[tuple[float, bool]]]:
        calls.append(Cs)
        return [[(C + settings.tol, True)] for C in Cs]

    monkeypatch.setattr("featbench.solvers.linear_grid.linear_grid", recorded)
    tried = engine_.try_grid("linear_svc", grid, rows.X, rows.y, [])
    assert calls == [[1e-2, 1e-6], [1e-6, 1e-2]]
    assert [accuracy for accuracy, _ in tried] == pytest.approx([params["C"] + params["tol"] for params in grid])


@pytest.mark.parametrize(("largest", "engine"), [(10.0, "featbench"), (100.0, "scikit-learn")])
def test_a_large_c_goes_to_scikit_learn(largest: float, engine: str) -> None:
    assert fit_engine("linear_svc", [{"C": 1e-3}, {"C": largest}], EvaluateConfig()) == engine
