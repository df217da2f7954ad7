from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_info

from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.rows import HOLDOUT_ABOVE, LabelledFeatures
from featbench.classifiers.select import convergence_recorded, fit, select
from featbench.config import EvaluateConfig
from featbench.errors import UsageError

Digits = Callable[[int, int], LabelledFeatures]

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "linear_svc": {"C": (1e-4, 1e-3, 1e-2, 1e-1)},
    "svm_rbf": {"C": (1.0, 10.0), "gamma": (0.001, 0.005, 0.02)},
    "random_forest": {"n_estimators": (30,), "max_features": (2, 8), "min_samples_leaf": (1, 5)},
}


def by_hand(name: str) -> tuple[Pipeline, dict[str, list[Any]]]:
    steps: dict[str, Pipeline] = {
        "linear_svc": make_pipeline(StandardScaler(), LinearSVC(dual=False)),
        "svm_rbf": make_pipeline(StandardScaler(), SVC(break_ties=True)),
        "random_forest": make_pipeline(RandomForestClassifier(random_state=5, n_jobs=-1)),
    }
    pipeline = steps[name]
    return pipeline, {f"{pipeline.steps[-1][0]}__{key}": list(values) for key, values in GRIDS[name].items()}


def config_of(name: str, **settings: Any) -> EvaluateConfig:
    return EvaluateConfig(classifiers=(name,), grids={name: GRIDS[name]}, **settings)


def params_of(search: GridSearchCV) -> dict[str, Any]:
    return {key.partition("__")[2]: value for key, value in search.best_params_.items()}


@pytest.mark.parametrize("name", ["linear_svc", "svm_rbf"])
def test_cv_chooses_what_grid_search_does(digits: Digits, name: str) -> None:
    rows = digits(0, 300)
    pipeline, grid = by_hand(name)
    search = GridSearchCV(pipeline, grid, cv=StratifiedKFold(4, shuffle=True, random_state=5)).fit(rows.X, rows.y)
    ours = select(CLASSIFIERS[name], rows.X, rows.y, 300, config_of(name, selection="cv", folds=4), seed=5)
    assert ours.how == "cv"
    assert ours.params == params_of(search)
    assert ours.val_accuracy == pytest.approx(search.best_score_, abs=1e-12)
    assert (ours.n_val, ours.n_not_converged) == (300, 0)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("selection", ["auto", "holdout"])
def test_a_val_split_is_what_is_held_out(digits: Digits, name: str, selection: str) -> None:
    rows = digits(0, 300)
    pipeline, grid = by_hand(name)
    split = PredefinedSplit([-1] * 200 + [0] * 100)
    search = GridSearchCV(pipeline, grid, cv=split).fit(rows.X, rows.y)
    ours = select(CLASSIFIERS[name], rows.X, rows.y, 200, config_of(name, selection=selection), seed=5)
    assert (ours.how, ours.n_val) == ("holdout", 100)
    assert ours.params == params_of(search)
    assert ours.val_accuracy == pytest.approx(search.best_score_, abs=1e-12)


def test_without_a_val_split_a_fifth_of_train_is_held_out(digits: Digits) -> None:
    rows = digits(0, 300)
    pipeline, grid = by_hand("linear_svc")
    _, held_out = train_test_split(np.arange(300), test_size=0.2, stratify=rows.y, random_state=5)
    folds = np.full(300, -1)
    folds[held_out] = 0
    search = GridSearchCV(pipeline, grid, cv=PredefinedSplit(folds)).fit(rows.X, rows.y)
    ours = select(CLASSIFIERS["linear_svc"], rows.X, rows.y, 300, config_of("linear_svc", selection="holdout"), seed=5)
    assert (ours.how, ours.n_val, ours.params) == ("holdout", 60, params_of(search))
    assert ours.val_accuracy == pytest.approx(search.best_score_, abs=1e-12)


def test_cv_takes_the_val_split_too_but_not_for_learning_curves(digits: Digits) -> None:
    rows = digits(0, 200)
    config = config_of("linear_svc", selection="cv", folds=2)
    assert select(CLASSIFIERS["linear_svc"], rows.X, rows.y, 150, config, seed=0).n_val == 200
    curve = config_of("linear_svc", selection="cv", folds=2, train_sizes=(10,))
    assert select(CLASSIFIERS["linear_svc"], rows.X, rows.y, 150, curve, seed=0).n_val == 150


@pytest.mark.parametrize(
    ("n_train", "n_val", "how"), [(HOLDOUT_ABOVE, 0, "cv"), (HOLDOUT_ABOVE + 1, 0, "holdout"), (50, 10, "holdout")]
)
def test_auto_takes_folds_only_for_small_sets_without_a_val_split(n_train: int, n_val: int, how: str) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(n_train + n_val) % 2
    X = (y + rng.normal(size=len(y)))[:, None]
    config = EvaluateConfig(classifiers=("linear_svc",), grids={"linear_svc": {"C": (0.1,)}}, folds=2)
    assert select(CLASSIFIERS["linear_svc"], X, y, n_train, config, seed=0).how == how


def test_a_forest_takes_its_out_of_bag_score(digits: Digits) -> None:
    rows = digits(0, 300)
    scores = {
        (max_features, min_samples_leaf): RandomForestClassifier(
            30, max_features=max_features, min_samples_leaf=min_samples_leaf, oob_score=True, random_state=5
        )
        .fit(rows.X, rows.y)
        .oob_score_
        for max_features in (2, 8)
        for min_samples_leaf in (1, 5)
    }
    best = max(scores, key=lambda params: scores[params])
    ours = select(CLASSIFIERS["random_forest"], rows.X, rows.y, 300, config_of("random_forest", selection="cv"), seed=5)
    assert (ours.how, ours.n_val) == ("oob", 300)
    assert (ours.params["max_features"], ours.params["min_samples_leaf"]) == best
    assert ours.val_accuracy == scores[best]
    assert ours.model is not None
    again = fit(CLASSIFIERS["random_forest"], ours.params, rows.X, rows.y, seed=5)
    assert ours.model.get_params().keys() == again.get_params().keys()
    assert vars(ours.model[-1]).keys() == vars(again[-1]).keys()
    assert np.array_equal(ours.model.predict_proba(rows.X), again.predict_proba(rows.X))


def test_of_equals_the_first_wins() -> None:
    X = np.repeat([[-5.0], [5.0]], 20, axis=0)
    y = np.repeat([0, 1], 20)
    config = EvaluateConfig(classifiers=("linear_svc",), grids={"linear_svc": {"C": (1.0, 0.1, 10.0)}})
    chosen = select(CLASSIFIERS["linear_svc"], X, y, 40, config, seed=0)
    assert (chosen.params, chosen.val_accuracy) == ({"C": 1.0}, 1.0)


def test_none_chooses_nothing(digits: Digits) -> None:
    rows = digits(0, 100)
    chosen = select(CLASSIFIERS["svm_rbf"], rows.X, rows.y, 100, EvaluateConfig(selection="none"), seed=0)
    assert (chosen.how, chosen.params, chosen.val_accuracy, chosen.n_val) == ("none", {}, None, 0)


def test_candidates_that_did_not_converge_are_counted(digits: Digits) -> None:
    rows = digits(0, 200)
    config = EvaluateConfig(
        classifiers=("linear_svc",), grids={"linear_svc": {"max_iter": (1, 1000), "C": (0.01, 0.1)}}
    )
    assert select(CLASSIFIERS["linear_svc"], rows.X, rows.y, 200, config, seed=0).n_not_converged == 2


def test_other_warnings_go_through(digits: Digits) -> None:
    rows = digits(0, 100)
    config = EvaluateConfig(classifiers=("random_forest",), grids={"random_forest": {"n_estimators": (1,)}})
    with pytest.warns(UserWarning, match="Some inputs do not have OOB scores"):
        select(CLASSIFIERS["random_forest"], rows.X, rows.y, 100, config, seed=0)
    with convergence_recorded(CLASSIFIERS["linear_svc"]), pytest.raises(UserWarning, match="another"):
        warnings.warn("another", UserWarning, stacklevel=1)


def test_a_scaler_sees_nothing_of_the_held_out_rows() -> None:
    # One held-out row is 1e6 away. A scaler fitted on it too would press the others together and C = 1e-3 would fail.
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = np.where(y == 1, 1.0, -1.0)[:, None] + 0.1 * rng.normal(size=(200, 1))
    X[-1] = 1e6
    config = EvaluateConfig(classifiers=("linear_svc",), grids={"linear_svc": {"C": (1e-3,)}})
    chosen = select(CLASSIFIERS["linear_svc"], X, y, 100, config, seed=0)
    assert chosen.val_accuracy == 1.0
    leaked = StandardScaler().fit_transform(X)
    assert LinearSVC(dual=False, C=1e-3).fit(leaked[:100], y[:100]).score(leaked[100:], y[100:]) < 0.9


def test_a_refused_combination_names_the_classifier() -> None:
    y = np.arange(20) % 2
    config = EvaluateConfig(classifiers=("linear_svc",), grids={"linear_svc": {"loss": ("hinge",)}})
    with pytest.raises(UsageError, match=r"scikit-learn refuses to fit linear_svc with \{'loss': 'hinge'\}"):
        select(CLASSIFIERS["linear_svc"], y[:, None] * 1.0, y, 20, config, seed=0)


@pytest.mark.parametrize(("grid", "limited"), [((0.1, 0.5), True), ((0.1,), False)])
def test_fits_side_by_side_take_a_core_each(digits: Digits, grid: tuple[float, ...], limited: bool) -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    seen: list[list[int]] = []

    def watch(estimator: Any) -> None:  # asked in the thread that has fitted
        seen.append(threads())

    lda = replace(CLASSIFIERS["lda"], converged=watch)
    before, rows = threads(), digits(0, 300)
    config = EvaluateConfig(classifiers=("lda",), selection="holdout", grids={"lda": {"shrinkage": grid}})
    select(lda, rows.X, rows.y, 300, config, 0)
    assert seen == [[1] * len(before) if limited else before] * len(grid)
    assert threads() == before
