from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featbench.solvers import RBFSVCCV
from featbench.solvers.memory import KERNEL_BYTES, kernels_fit
from featbench.solvers.rbf import fit_rbf, rbf_grid
from featbench.solvers.rbf_pairs import decision_values

Splits = list[tuple[np.ndarray, np.ndarray]]


def digits(n_classes: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first classes, not scaled."""
    X, y = load_digits(return_X_y=True)
    kept = np.flatnonzero(y[:n] < n_classes)
    return X[kept].astype(np.float32), y[kept]


def folds_of(y: np.ndarray) -> Splits:
    return list(StratifiedKFold(3, shuffle=True, random_state=0).split(y, y))


def by_hand(machine: SVC, X: np.ndarray, y: np.ndarray, splits: Splits) -> list[float]:
    pipeline = make_pipeline(StandardScaler(), machine)
    return [float(pipeline.fit(X[kept], y[kept]).score(X[out], y[out])) for kept, out in splits]


@parametrize_with_checks([RBFSVCCV(Cs=(1.0, 10.0), gamma_scales=(0.3, 1.0), cv=3)])
def test_the_search_is_an_estimator_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("memory_bytes", [KERNEL_BYTES, 0])  # 0: by pairs of classes, and scikit-learn's final fit
@pytest.mark.parametrize("n_classes", [2, 10])
def test_the_search_is_scikit_learns(n_classes: int, memory_bytes: float) -> None:
    X, y = digits(n_classes)
    names = np.array(["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay"])
    X = X.astype(np.float64)
    X, y, X_test = X[::2], names[y[::2]], X[1::2]
    Cs, gammas = (10.0, 0.1, 1.0), (0.1, 0.01, 0.003)
    splits = folds_of(y)
    pipeline = make_pipeline(StandardScaler(), SVC(break_ties=True))
    theirs = GridSearchCV(pipeline, {"svc__C": Cs, "svc__gamma": gammas}, cv=splits).fit(X, y)
    ours = RBFSVCCV(Cs, gammas=gammas, cv=splits, memory_bytes=memory_bytes).fit(X, y)
    assert (ours.C_, ours.gamma_) == (theirs.best_params_["svc__C"], theirs.best_params_["svc__gamma"])
    expected = np.stack([theirs.cv_results_[f"split{fold}_test_score"] for fold in range(3)])
    np.testing.assert_allclose(ours.scores_, expected.reshape(3, 3, 3), atol=1e-12)
    assert np.array_equal(ours.predict(X_test), theirs.predict(X_test))
    np.testing.assert_allclose(ours.decision_function(X_test), theirs.decision_function(X_test), rtol=1e-6, atol=1e-6)


def test_gamma_scales_are_multiples_of_scale_and_features_may_stay_as_they_are() -> None:
    X, y = digits(10, 200)
    plain = RBFSVCCV((1.0,), gammas=(1e-3, 1e-2), cv=3, standardize=False).fit(X, y)
    theirs = GridSearchCV(SVC(break_ties=True), {"gamma": (1e-3, 1e-2)}, cv=3).fit(X.astype(float), y)
    assert plain.gamma_ == theirs.best_params_["gamma"]
    assert plain.scores_.mean(axis=0)[0] == pytest.approx(theirs.cv_results_["mean_test_score"])
    scaled = RBFSVCCV((1.0,), gamma_scales=(0.5,), cv=3).fit(X, y)
    assert scaled.gamma_ == 0.5 / 64


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"Cs": ()}, "at least one C and one gamma"),
        ({"Cs": (-1.0,)}, "'C' parameter of SVC"),
        ({"cv": 1}, "'cv' parameter of RBFSVCCV"),
        ({"max_iter": -2}, "'max_iter' parameter of RBFSVCCV"),
    ],
)
def test_wrong_parameters_of_a_search(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RBFSVCCV(**params).fit(*digits(2, 100))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_kernel_values", [400**2, 100**2, 0])  # all rows, two classes, none
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"C": 3.0, "gamma": 0.01, "break_ties": True},
        {"gamma": "auto", "class_weight": "balanced", "tol": 1e-5},
        {"max_iter": 2},
    ],
)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_a_fit_leaves_what_scikit_learns_own_leaves(
    n_classes: int, params: dict[str, Any], n_kernel_values: int
) -> None:
    X, y = digits(n_classes)
    X = StandardScaler().fit_transform(X)
    ours, expected = fit_rbf(SVC(**params), X, y, 16 * n_kernel_values), SVC(**params).fit(X, y)
    assert vars(ours).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        found = vars(ours)[name]
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-8, err_msg=name)
        else:
            assert found == (pytest.approx(value) if name == "_gamma" else value), name
    np.testing.assert_allclose(ours.decision_function(X), expected.decision_function(X), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("block_bytes", [2**27, 10_000, 1])
@pytest.mark.parametrize(
    "params", [{"break_ties": True}, {"decision_function_shape": "ovo"}, {"class_weight": "balanced"}]
)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_decision_values_are_scikit_learns(n_classes: int, params: dict[str, Any], block_bytes: int) -> None:
    X, y = digits(n_classes)
    X = StandardScaler().fit_transform(X)
    machine = SVC(C=3.0, **params).fit(X[::2], y[::2])
    before = dict(vars(machine))
    found = decision_values(machine, X, block_bytes)
    np.testing.assert_allclose(found, machine.decision_function(X), rtol=1e-9, atol=1e-9)
    assert all(vars(machine)[name] is value for name, value in before.items())


@pytest.mark.parametrize("memory_bytes", [KERNEL_BYTES, 0])
@pytest.mark.parametrize(
    ("n_classes", "params"),
    [(2, {}), (10, {}), (10, {"class_weight": "balanced"})],
)
def test_every_machine_scores_as_by_itself(n_classes: int, params: dict[str, Any], memory_bytes: float) -> None:
    X, y = digits(10)
    y, splits = y % n_classes, folds_of(y)
    machines = [SVC(C=C, gamma=g, break_ties=True, **params) for C in (0.1, 10.0) for g in (1e-3, "scale", "auto", 1.0)]
    for machine, found in zip(machines, rbf_grid(X, y, splits, machines, memory_bytes), strict=True):
        assert found == [(accuracy, True) for accuracy in by_hand(clone(machine), X, y, splits)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # `select` silences it
def test_weights_of_classes_and_non_convergence() -> None:
    X, y = digits(10)
    y, splits = np.where(y == 3, 1, 0), folds_of(y)
    weighted, cut_short = rbf_grid(X, y, splits, [SVC(class_weight={1: 9.0}), SVC(max_iter=1)])
    assert weighted == [(accuracy, True) for accuracy in by_hand(SVC(class_weight={1: 9.0}), X, y, splits)]
    assert [converged for _, converged in cut_short] == [False] * 3


def test_features_that_are_all_constant() -> None:
    X, y = np.ones((20, 3)), np.arange(20) % 2
    ((accuracy, converged),) = rbf_grid(X, y, [(np.arange(10), np.arange(10, 20))], [SVC()])[0]
    assert (accuracy, converged) == (0.5, True)


def test_memory_is_that_of_distances_and_one_kernel() -> None:
    y, half = np.arange(1000) % 2, np.arange(500)
    splits = [(half, half)]
    whole = 2 * 8 * 500 * (500 + 500)  # distances and a kernel: 500 x 500 within, 500 x 500 across
    pair = 2 * 8 * 500**2
    assert kernels_fit(y, splits, whole)
    assert kernels_fit(y, splits, pair)  # both classes are all rows, but nothing goes across
    assert not kernels_fit(y, splits, pair - 1)
    assert kernels_fit(np.arange(1000) % 5, splits, 2 * 8 * 200**2)
    assert not kernels_fit(np.arange(1000) % 5, [*splits, (np.arange(1000), half)], 2 * 8 * 200**2)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of probability
@pytest.mark.parametrize("memory_bytes", [KERNEL_BYTES, 0])
def test_probabilities_change_nothing_in_a_search(memory_bytes: float) -> None:
    X, y = digits(3)
    machine = SVC(probability=True, random_state=0)
    (found,) = rbf_grid(X, y, folds_of(y), [machine], memory_bytes)
    assert [accuracy for accuracy, _ in found] == by_hand(SVC(), X, y, folds_of(y))
    assert hasattr(fit_rbf(clone(machine), X, y), "predict_proba")
