"""Support vector machines by scikit-learn-intelex, where it is installed: the same problem, on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

Rows = npt.NDArray[np.intp]


def installed() -> bool:
    """Whether scikit-learn-intelex (`pip install featbench[intelex]`) is installed."""
    return find_spec("sklearnex") is not None


def intelex_grid(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    machines: Sequence[SVC],
) -> list[list[tuple[float, None]]]:
    """Do as `rbf_grid`, in memory that does not grow with the square of the rows.

    Not for the final model: it does not report convergence, and its models have no file format that is safe to load.

    Returns:
        For every machine and every split: the accuracy, and None, because the solver does not report convergence.

    Raises:
        ValueError: The machine or the rows are refused.
    """
    from sklearnex import svm

    results: list[list[tuple[float, None]]] = [[] for _ in machines]
    for kept, held_out in splits:
        scaler = StandardScaler().fit(X[kept])
        train, test = (scaler.transform(X[rows]).astype(np.float64) for rows in (kept, held_out))
        for result, machine in zip(results, machines, strict=True):
            fitted = svm.SVC(**machine.get_params()).fit(train, y[kept])
            result.append((float(fitted.score(test, y[held_out])), None))
    return results
