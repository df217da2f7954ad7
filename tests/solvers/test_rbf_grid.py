from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.classifiers import rbf_grid as rbf_grid_
from featbench.solvers.rbf import KERNEL_BYTES
from featbench.solvers.rbf_grid import fits_memory, rbf_grid

Splits = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, Splits]:
    X, y = load_digits(return_X_y=True)
    X, y = X[:400].astype(np.float32), y[:400]
    return X, y, list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))


@pytest.mark.parametrize("memory", [KERNEL_BYTES, 0])
@pytest.mark.parametrize(("n_classes", "break_ties"), [(2, False), (10, False), (10, True)])
def test_every_machine_scores_as_by_itself(
    digits: tuple[np.ndarray, np.ndarray, Splits],
    n_classes: int,
    break_ties: bool,
    memory: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rbf_grid_, "KERNEL_BYTES", memory)  # without it: one pair of classes after the other
    X, y, splits = digits
    y = y % n_classes
    machines = [SVC(C=C, gamma=g, break_ties=break_ties) for C in (0.1, 10.0) for g in (1e-3, "scale", 1.0)]
    for machine, found in zip(machines, rbf_grid(X, y, splits, machines), strict=True):
        pipeline = make_pipeline(StandardScaler(), machine)
        expected = [pipeline.fit(X[kept], y[kept]).score(X[out], y[out]) for kept, out in splits]
        assert found == [(accuracy, True) for accuracy in expected]


def test_the_machine_is_libsvms(digits: tuple[np.ndarray, np.ndarray, Splits], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its support vectors and decision values are those of SVC on the same rows, whatever their order."""
    X, y, splits = digits
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    attempt: Callable[..., tuple[float, bool]] = rbf_grid_._try

    def keep(params: dict[str, object], within: np.ndarray, across: np.ndarray, *labels: np.ndarray) -> object:
        machine = SVC(**{**params, "kernel": "precomputed", "gamma": 1.0}).fit(within, labels[0])
        seen.append((machine.n_support_, machine.decision_function(across)))
        return attempt(params, within, across, *labels)

    monkeypatch.setattr(rbf_grid_, "_try", keep)
    rbf_grid(X, y, splits[:1], [SVC(C=3.0, gamma=0.01)])
    kept, out = splits[0]
    scaler = StandardScaler().fit(X[kept].astype(np.float64))
    expected = SVC(C=3.0, gamma=0.01).fit(scaler.transform(X[kept]), y[kept])
    assert np.array_equal(seen[0][0], expected.n_support_)
    np.testing.assert_allclose(seen[0][1], expected.decision_function(scaler.transform(X[out])), atol=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the callers' to silence, see `select`
def test_weights_of_classes_and_non_convergence(digits: tuple[np.ndarray, np.ndarray, Splits]) -> None:
    X, y, splits = digits
    y = np.where(y == 3, 1, 0)
    weighted, cut_short = rbf_grid(X, y, splits, [SVC(class_weight={1: 9.0}), SVC(max_iter=1)])
    pipeline = make_pipeline(StandardScaler(), SVC(class_weight={1: 9.0}))
    assert weighted == [(pipeline.fit(X[kept], y[kept]).score(X[out], y[out]), True) for kept, out in splits]
    assert [converged for _, converged in cut_short] == [False] * 3


def test_features_that_are_all_constant() -> None:
    X, y = np.ones((20, 3)), np.arange(20) % 2
    ((accuracy, converged),) = rbf_grid(X, y, [(np.arange(10), np.arange(10, 20))], [SVC()])[0]
    assert (accuracy, converged) == (0.5, True)


def test_a_refused_machine() -> None:
    X, y = np.eye(4), np.arange(4) % 2
    with pytest.raises(ValueError, match="'C' parameter of SVC"):
        rbf_grid(X, y, [(np.arange(4), np.arange(4))], [SVC(C=-1.0)])


def test_memory_is_that_of_distances_and_one_kernel() -> None:
    def split(n: int) -> Splits:
        return [(np.arange(n), np.arange(n))]

    largest = int((KERNEL_BYTES / 32) ** 0.5)
    assert fits_memory(np.zeros(largest, dtype=int), split(largest))
    n = 2 * int((KERNEL_BYTES / 16) ** 0.5)
    assert not fits_memory(np.arange(n) % 2, split(n))
    assert fits_memory(np.arange(n) % 5, split(n))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of probability
def test_probabilities_are_nothing_to_a_search(
    digits: tuple[np.ndarray, np.ndarray, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbf_grid_, "KERNEL_BYTES", 0)
    X, y, splits = digits
    one, other = rbf_grid(X, y, splits, [SVC(probability=True, break_ties=True), SVC(break_ties=True)])
    assert one == other


def test_a_kernel_of_rows_in_another_order_is_the_same_machine() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    order = np.argsort(y, kind="stable")
    here = SVC(kernel="precomputed").fit(rbf_kernel(X), y)
    there = SVC(kernel="precomputed").fit(rbf_kernel(X[order]), y[order])
    assert np.array_equal(np.sort(order[there.support_]), np.sort(here.support_))
