from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import ParameterGrid
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from featbench.classifiers.params import candidates, check_grids, used_params
from featbench.classifiers.registry import CLASSIFIERS, get_classifier
from featbench.config import EvaluateConfig
from featbench.errors import UsageError

X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.arange(30) % 3


def config_of(name: str, grid: dict[str, tuple[Any, ...]]) -> EvaluateConfig:
    return EvaluateConfig(classifiers=(name,), grids={name: grid})


def test_the_table_is_what_the_experiment_file_may_name() -> None:
    assert set(CLASSIFIERS) >= set(EvaluateConfig().classifiers)


@pytest.mark.parametrize(
    ("name", "estimator", "scaled"),
    [
        ("linear_svc", LinearSVC, True),
        ("svm_rbf", SVC, True),
        ("random_forest", RandomForestClassifier, False),
        ("logistic_regression", LogisticRegression, True),
        ("knn", KNeighborsClassifier, False),
        ("ridge", RidgeClassifier, True),
        ("lda", LinearDiscriminantAnalysis, True),
        ("gaussian_nb", GaussianNB, True),
        ("gradient_boosting", HistGradientBoostingClassifier, False),
    ],
)
def test_each_makes_its_pipeline(name: str, estimator: type, scaled: bool) -> None:
    model = CLASSIFIERS[name].make({}, seed=3, n_features=4)
    assert type(model[-1]) is estimator
    assert isinstance(model[0], StandardScaler) == scaled


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_each_can_be_cloned_fitted_and_recorded(name: str) -> None:
    spec = CLASSIFIERS[name]
    params = candidates(CLASSIFIERS[name], EvaluateConfig())[0]
    model = clone(spec.make(params, seed=3, n_features=4)).fit(X, Y)
    recorded = json.loads(json.dumps(used_params(spec, params, model)))
    assert params.items() <= recorded.items()
    assert spec.fixed.items() <= recorded.items()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_only_a_seeded_method_depends_on_the_seed(name: str) -> None:
    spec = CLASSIFIERS[name]
    params = {"n_estimators": 3} if name == "random_forest" else {}
    forks = [spec.make(params, seed=seed, n_features=4).fit(X, Y) for seed in (0, 1, 1)]
    score = "predict_proba" if hasattr(forks[0], "predict_proba") else "decision_function"
    first, second, third = (getattr(fork, score)(X) for fork in forks)
    assert np.array_equal(first, second) == (not spec.seeded)
    assert np.array_equal(second, third)


def test_gamma_scale_is_a_multiple_of_scikit_learns_scale() -> None:
    spec = CLASSIFIERS["svm_rbf"]
    ours = spec.make({"gamma_scale": 1.0}, seed=0, n_features=4).fit(X, Y)
    theirs = spec.make({"gamma": "scale"}, seed=0, n_features=4).fit(X, Y)
    assert np.allclose(ours.decision_function(X), theirs.decision_function(X))
    params = used_params(spec, {"gamma_scale": 2.0}, spec.make({"gamma_scale": 2.0}, seed=0, n_features=4))
    assert (params["gamma"], params["gamma_scale"]) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear_svc", True),
        ("svm_rbf", True),
        ("logistic_regression", True),
        ("random_forest", None),
        ("knn", None),
        ("lda", None),
    ],
)
def test_convergence_is_seen(name: str, expected: bool | None) -> None:
    spec = CLASSIFIERS[name]
    assert spec.converged(spec.make({}, seed=0, n_features=4).fit(X, Y)[-1]) is expected


@pytest.mark.parametrize("name", ["linear_svc", "svm_rbf", "logistic_regression"])
def test_non_convergence_is_seen_where_scikit_learn_warns(name: str) -> None:
    spec = CLASSIFIERS[name]
    model = spec.make({"max_iter": 1}, seed=0, n_features=4)
    with pytest.warns(ConvergenceWarning):
        model.fit(X, Y)
    assert spec.converged(model[-1]) is False


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_built_in_grid_is_valid(name: str) -> None:
    check_grids([CLASSIFIERS[name]], EvaluateConfig(classifiers=(name,)))
    assert len(candidates(CLASSIFIERS[name], EvaluateConfig())) > 1


def test_a_users_grid_replaces_the_built_in_one() -> None:
    grid = {"gamma": ("scale", 0.5), "C": (3.0, 1.0)}
    given = candidates(CLASSIFIERS["svm_rbf"], config_of("svm_rbf", grid))
    assert given == list(ParameterGrid({key: list(values) for key, values in grid.items()}))
    assert given[0] == {"C": 3.0, "gamma": "scale"}


def test_an_unknown_classifier() -> None:
    with pytest.raises(UsageError, match="unknown classifier 'linear_svm'; did you mean 'linear_svc'"):
        get_classifier("linear_svm")


@pytest.mark.parametrize(
    ("name", "grid", "message"),
    [
        (
            "svm_rbf",
            {"gama_scale": (1.0,)},
            "unknown parameter of grids.svm_rbf 'gama_scale'; did you mean 'gamma_scale'",
        ),
        ("linear_svc", {"gamma_scale": (1.0,)}, "unknown parameter of grids.linear_svc 'gamma_scale'"),
        ("random_forest", {"n_estimator": (10,)}, "did you mean 'n_estimators'"),
        ("linear_svc", {"dual": (True,)}, "grids.linear_svc.dual is not for a grid: featbench sets it"),
        ("random_forest", {"random_state": (1,)}, "grids.random_forest.random_state is not for a grid"),
        ("linear_svc", {"C": (1.0, -1.0)}, "grids.linear_svc: The 'C' parameter of LinearSVC must be .* Got -1.0"),
        ("random_forest", {"max_features": ("many",)}, "The 'max_features' parameter of RandomForestClassifier"),
        ("svm_rbf", {"gamma_scale": ("scale",)}, "gamma_scale = 'scale': give numbers above 0"),
        ("svm_rbf", {"gamma_scale": (0,)}, "gamma_scale = 0: give numbers above 0"),
        ("svm_rbf", {"gamma_scale": (1.0,), "gamma": (1.0,)}, "holds both gamma and gamma_scale"),
    ],
)
def test_a_wrong_grid_is_refused(name: str, grid: dict[str, tuple[Any, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_grids([CLASSIFIERS[name]], config_of(name, grid))


def test_making_one_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for spec in CLASSIFIERS.values():
            spec.make({}, seed=0, n_features=4).fit(X, Y)
