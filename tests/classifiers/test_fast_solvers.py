from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featbench.classifiers.fast_solvers import rbf_solver
from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.rows import LabelledFeatures
from featbench.classifiers.select import select
from featbench.classifiers.spec import engine_of, fit_engine, search_solver
from featbench.config import EvaluateConfig

Digits = Callable[[int, int], LabelledFeatures]


@pytest.mark.parametrize("name", ["linear_svc", "svm_rbf"])
@pytest.mark.parametrize("selection", ["cv", "holdout"])
def test_both_engines_choose_the_same(digits: Digits, name: str, selection: Any) -> None:
    train, test = digits(0, 900), digits(900, 1797)
    ours, theirs = (
        fit_and_test(CLASSIFIERS[name], train, None, test, config, 3, 10)
        for config in (
            EvaluateConfig(classifiers=(name,), selection=selection, engine="auto"),
            EvaluateConfig(classifiers=(name,), selection=selection, engine="sklearn"),
        )
    )
    assert (ours.engine, theirs.engine) == ("featbench", "scikit-learn")
    assert ours.params == theirs.params
    assert ours.val_accuracy == pytest.approx(theirs.val_accuracy, abs=1e-3)
    assert (ours.predicted == theirs.predicted).mean() >= 0.999
    assert (ours.n_not_converged, ours.converged, ours.n_val) == (0, True, theirs.n_val)
    assert [type(step) for _, step in ours.model.steps] == [type(step) for _, step in theirs.model.steps]


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
    assert fit_engine(CLASSIFIERS[name], [params], EvaluateConfig()) == engine
    assert fit_engine(CLASSIFIERS[name], [params], EvaluateConfig(engine="sklearn")) == "scikit-learn"


def test_other_problems_are_left_to_scikit_learn(digits: Digits) -> None:
    rows = digits(0, 200)
    config = EvaluateConfig(classifiers=("linear_svc",), grids={"linear_svc": {"penalty": ("l1",), "C": (0.1,)}})
    assert select(CLASSIFIERS["linear_svc"], rows.X, rows.y, 200, config, 0).engine == "scikit-learn"


@pytest.mark.parametrize(("installed", "beyond"), [(True, "scikit-learn-intelex"), (False, "scikit-learn")])
def test_kernels_beyond_the_memory_go_to_another_solver(installed: bool, beyond: str) -> None:
    rbf = rbf_solver()
    assert rbf.fallback is not None
    fallback = replace(rbf.fallback, serves=lambda params: installed)
    spec = replace(CLASSIFIERS["svm_rbf"], solver=replace(rbf, fallback=fallback))
    small, large = np.arange(1000), np.arange(40_000)
    two, ten = np.arange(40_000) % 2, np.arange(40_000) % 10

    def engine(y: np.ndarray, kept: np.ndarray, wanted: str = "auto") -> str:
        config = EvaluateConfig(engine=wanted)  # type: ignore[arg-type]
        return engine_of(search_solver(spec, [{}], config, y, [(small, small), (kept, small)]))

    assert engine(two, small) == "featbench"
    assert engine(ten, large) == "featbench"  # two classes at a time
    assert engine(two, large) == beyond
    assert engine(two, small, "sklearn") == "scikit-learn"


def test_a_grid_of_several_parameters_keeps_its_order(digits: Digits) -> None:
    rows = digits(0, 200)
    X = rows.X + np.random.default_rng(0).normal(scale=8, size=rows.X.shape)  # so that each C has its own accuracy
    grid = [{"C": 1e-2, "tol": 1e-3}, {"C": 1e-6, "tol": 1e-5}, {"C": 1e-6, "tol": 1e-3}, {"C": 1.0, "tol": 1e-5}]
    spec, splits = CLASSIFIERS["linear_svc"], [(np.arange(100), np.arange(100, 200))]
    assert spec.solver is not None
    found = spec.solver.search(X, rows.y, splits, [spec.make(params, 0, 64)[-1] for params in grid], "cpu")
    expected = [
        make_pipeline(StandardScaler(), LinearSVC(dual=False, **params))
        .fit(X[:100], rows.y[:100])
        .score(X[100:], rows.y[100:])
        for params in grid
    ]
    assert len(set(expected)) == 3
    assert [accuracy for ((accuracy, _),) in found] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("largest", "engine"), [(10.0, "featbench"), (100.0, "scikit-learn")])
def test_a_large_c_goes_to_scikit_learn(largest: float, engine: str) -> None:
    assert fit_engine(CLASSIFIERS["linear_svc"], [{"C": 1e-3}, {"C": largest}], EvaluateConfig()) == engine
