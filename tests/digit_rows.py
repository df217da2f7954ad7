from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featbench.classifiers.rows import LabelledFeatures

Digits = Callable[[int, int], LabelledFeatures]


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Rows start to stop of scikit-learn's digits, in a fixed random order: (N, 64) float32."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))

    def rows(start: int, stop: int) -> LabelledFeatures:
        kept = order[start:stop]
        return LabelledFeatures(X[kept].astype(np.float32), y[kept].astype(np.int64), tuple(map(str, kept)))

    return rows
