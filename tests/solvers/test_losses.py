from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from featbench.solvers.losses import Loss, Softmax, SquaredHinge

ALL = slice(None)
rng = np.random.default_rng(0)
SIGNS = np.where(rng.random((30, 2)) < 0.4, 1.0, -1.0)
COSTS = rng.uniform(0.5, 2, (30, 2)) * (rng.random((30, 2)) < 0.8)
LABELS = rng.integers(0, 3, (30, 2))
USED = (rng.random((30, 2)) < 0.8).astype(float)


def hinge(values: np.ndarray) -> np.ndarray:
    return np.asarray((COSTS * np.maximum(0, 1 - SIGNS * values) ** 2).sum(0))


def softmax(values: np.ndarray) -> np.ndarray:
    chosen = np.take_along_axis(log_softmax(values.reshape(30, 2, 3), axis=2), LABELS[..., None], axis=2)
    return np.asarray(-(chosen[..., 0] * USED).sum(0))


def two_classes(values: np.ndarray) -> np.ndarray:
    """Of class 1 against class 0, by the logistic function."""
    return np.asarray((np.log1p(np.exp(-np.where(LABELS > 0, 1, -1) * values)) * USED).sum(0))


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


CASES = {
    "hinge": (SquaredHinge(*tensors(SIGNS, COSTS)), hinge, 2),
    "softmax": (Softmax(*tensors(LABELS[..., None], USED[..., None]), 3), softmax, 6),
    "two classes": (Softmax(*tensors(np.minimum(LABELS, 1)[..., None], USED[..., None]), 1), two_classes, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_the_formula(name: str) -> None:
    loss, formula, width = CASES[name]
    values, change = rng.normal(size=(30, width)), rng.normal(size=(30, width))
    found, derivative, curvature = loss.evaluate(ALL, torch.from_numpy(values))
    np.testing.assert_allclose(found, formula(values), rtol=1e-12)
    h = 1e-4
    ahead, behind = formula(values + h * change), formula(values - h * change)
    slopes = (derivative.numpy() * change).sum(0).reshape(2, -1).sum(1)
    np.testing.assert_allclose(slopes, (ahead - behind) / (2 * h), rtol=1e-5)
    curved = loss.curve(curvature, torch.from_numpy(change.copy())).numpy()
    growth = (curved * change).sum(0).reshape(2, -1).sum(1)
    np.testing.assert_allclose(growth, (ahead - 2 * formula(values) + behind) / h**2, rtol=1e-2)


@pytest.mark.parametrize("name", CASES)
def test_the_diagonal_is_that_of_the_second_derivatives(name: str) -> None:
    loss, _, width = CASES[name]
    curvature = loss.evaluate(ALL, torch.from_numpy(rng.normal(size=(30, width))))[2]
    for column in range(width):
        unit = torch.zeros(30, width, dtype=torch.float64)
        unit[:, column] = 1
        expected = loss.curve(curvature, unit)[:, column].sum()
        torch.testing.assert_close(loss.diagonal(curvature)[column], expected)


@pytest.mark.parametrize("name", CASES)
def test_parts_are_the_same_problems(name: str) -> None:
    loss, formula, width = CASES[name]
    values = rng.normal(size=(30, width))
    part: Loss = loss.take(torch.tensor([1]))
    own = values[:, width // 2 :]
    np.testing.assert_allclose(part.evaluate(ALL, torch.from_numpy(own))[0], formula(values)[1:], rtol=1e-12)
    np.testing.assert_array_equal(loss.used_rows(), (COSTS if name == "hinge" else USED) > 0)
