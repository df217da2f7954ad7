from __future__ import annotations

import numpy as np
import pytest
from sklearn import clone
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.solvers.rbf_pairs import PairKernels, fit_pairs

Digits = tuple[np.ndarray, np.ndarray]
SETTINGS = [
    {"C": 3.0, "gamma": 0.01},
    {"C": 1.0, "class_weight": "balanced", "break_ties": True},
    {"C": 0.1, "class_weight": {0: 5.0}, "gamma": "auto", "decision_function_shape": "ovo"},
    {"max_iter": 3},
]


@pytest.fixture(scope="module")
def digits() -> Digits:
    X, y = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def check_is_scikit_learns(found: SVC, expected: SVC, X: np.ndarray) -> None:
    assert vars(found).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(getattr(found, name), value, rtol=1e-6, atol=1e-9, err_msg=name)
            assert getattr(found, name).dtype == value.dtype
        else:
            np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    assert np.array_equal(found.predict(X), expected.predict(X))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("cores", [1, 8])  # 8 are more than there are pairs of two or three classes
@pytest.mark.parametrize("labels", [[0, 1], [0, 5, 9], list(range(10))])
def test_all_of_a_machine_is_scikit_learns(digits: Digits, labels: list[int], cores: int) -> None:
    X, y = digits
    rows = np.flatnonzero(np.isin(y, labels))
    kept, out = rows[::2], rows[1::2]
    machines = [SVC(**settings) for settings in SETTINGS]
    found = fit_pairs([clone(machine) for machine in machines], X[kept], y[kept], n_cores=cores)
    for one, machine in zip(found, machines, strict=True):
        check_is_scikit_learns(one, machine.fit(X[kept], y[kept]), X[out])


def test_a_class_of_one_row(digits: Digits) -> None:
    X, y = digits
    rows = np.concatenate([np.flatnonzero(y < 2), np.flatnonzero(y == 7)[:1]])
    (found,) = fit_pairs([SVC()], X[rows], y[rows])
    check_is_scikit_learns(found, SVC().fit(X[rows], y[rows]), X)


@pytest.mark.parametrize("n_shared", [0, 1, 3])
def test_the_kernels_of_pairs_are_scikit_learns(n_shared: int) -> None:
    rng, gammas = np.random.default_rng(0), [0.01, 0.3]
    class_rows = [rng.normal(size=(n, 5)) for n in (300, 1, 140)]
    memory_bytes = sum(4 * len(gammas) * len(rows) ** 2 for rows in class_rows[:n_shared])
    kernels = PairKernels(class_rows, gammas, 2, memory_bytes)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        rows = np.concatenate([class_rows[a], class_rows[b]])
        for gamma, kernel in zip(gammas, kernels.of_pair(a, b), strict=True):
            np.testing.assert_allclose(kernel, rbf_kernel(rows, gamma=gamma), rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
            assert kernel.flags.c_contiguous
            assert kernel.dtype == np.float64


def test_shared_kernels_are_rounded_as_libsvm_does() -> None:
    class_rows = [np.random.default_rng(number).normal(size=(40, 3)) for number in range(3)]
    (kernel,) = PairKernels(class_rows, [0.2], n_jobs=1).of_pair(0, 1)
    within = kernel[:40, :40]
    assert np.array_equal(within, within.astype(np.float32))
    assert (np.diag(kernel) == 1).all()
