from __future__ import annotations

import numpy as np
import pytest
from sklearn import clone
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.classifiers import rbf_pairs
from featbench.solvers.rbf_pairs import fit_pairs

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
def test_all_of_a_machine_is_scikit_learns(
    digits: Digits, labels: list[int], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbf_pairs, "cpu_count", lambda: cores)
    X, y = digits
    rows = np.flatnonzero(np.isin(y, labels))
    kept, out = rows[::2], rows[1::2]
    machines = [SVC(**settings) for settings in SETTINGS]
    found = fit_pairs([clone(machine) for machine in machines], X[kept], y[kept])
    for one, machine in zip(found, machines, strict=True):
        check_is_scikit_learns(one, machine.fit(X[kept], y[kept]), X[out])


def test_a_class_of_one_row(digits: Digits) -> None:
    X, y = digits
    rows = np.concatenate([np.flatnonzero(y < 2), np.flatnonzero(y == 7)[:1]])
    (found,) = fit_pairs([SVC()], X[rows], y[rows])
    check_is_scikit_learns(found, SVC().fit(X[rows], y[rows]), X)
