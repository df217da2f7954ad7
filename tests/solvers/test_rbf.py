from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.classifiers import rbf, rbf_fit
from featbench.solvers.rbf import KERNEL_BYTES, decision_values
from featbench.solvers.rbf_fit import fit_rbf


def digits(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    kept = np.flatnonzero(y[:400] < n_classes)
    return StandardScaler().fit_transform(X[kept].astype(np.float32)), y[kept]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kernel_bytes", [KERNEL_BYTES, 0])
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
    monkeypatch: pytest.MonkeyPatch,
    n_classes: int,
    params: dict[str, Any],
    kernel_bytes: int,
) -> None:
    monkeypatch.setattr(rbf_fit, "KERNEL_BYTES", kernel_bytes)
    X, y = digits(n_classes)
    ours, expected = fit_rbf(SVC(**params), X, y), SVC(**params).fit(X, y)
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
def test_decision_values_are_scikit_learns(
    monkeypatch: pytest.MonkeyPatch, n_classes: int, params: dict[str, Any], block_bytes: int
) -> None:
    monkeypatch.setattr(rbf, "_BLOCK_BYTES", block_bytes)
    X, y = digits(n_classes)
    machine = SVC(C=3.0, **params).fit(X[::2], y[::2])
    before = dict(vars(machine))
    np.testing.assert_allclose(decision_values(machine, X), machine.decision_function(X), rtol=1e-9, atol=1e-9)
    assert all(vars(machine)[name] is value for name, value in before.items())
