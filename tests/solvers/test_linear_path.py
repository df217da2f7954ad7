from __future__ import annotations

import numpy as np
import pytest
import torch

from featbench.classifiers import linear_path
from featbench.solvers.hessians import Hessians
from featbench.solvers.linear_path import fit_path, rows_pay
from featbench.solvers.newton import Solution
from featbench.solvers.problem import Point, Problem
from featbench.solvers.products import SharedRows, precondition

CS = [1e-4, 1e-2, 1.0]


def two_folds(dtype: torch.dtype) -> tuple[Problem, list[slice]]:
    """Three columns of one fold and two of another, each with its own rows and scaling."""
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(size=(120, 60))).to(dtype)
    groups = [slice(0, 3), slice(3, 5)]
    mean = torch.from_numpy(rng.normal(size=(60, 2))).repeat_interleave(torch.tensor([3, 2]), dim=1)
    inverse = torch.from_numpy(rng.uniform(0.5, 2, (60, 2))).repeat_interleave(torch.tensor([3, 2]), dim=1)
    y = rng.integers(0, 3, 120)
    signs = torch.from_numpy(np.where(y[:, None] == [0, 1, 2, 0, 1], 1.0, -1.0)).to(dtype)
    costs = torch.ones(120, 5, dtype=dtype)
    costs[:30, :3] = 0
    costs[90:, 3:] = 0
    return Problem(SharedRows(X, mean, inverse, 1.5), signs, costs, torch.tensor([0, 1, 2, 0, 1])), groups


def fit(problem: Problem, groups: list[slice], gap: float, *, weights: bool) -> list[Solution]:
    hessians = Hessians(precondition(problem.rows.X, 1.5)) if weights else None
    return fit_path(problem, groups, CS, 1e-6, 1000, gap, hessians)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_lead_to_one_optimum(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, groups = two_folds(dtype)
    in_rows = fit(problem, groups, 1e-8, weights=False)
    monkeypatch.setattr(linear_path, "_STEPS", 0)
    on_weights = fit(problem, groups, 1e-8, weights=True)
    for C, one, other in zip(CS, in_rows, on_weights, strict=True):
        assert one.converged.all()
        assert other.converged.all()
        exact = problem.double()
        reached = [Point.at(exact, solution.W).objective(C) for solution in (one, other)]
        torch.testing.assert_close(*reached, rtol=1e-7, atol=0)
        torch.testing.assert_close(one.W, other.W, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_way_changes_where_few_rows_are_inside_the_margin(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, groups = two_folds(dtype)
    begun: list[float] = []
    in_row_space = linear_path._in_row_space

    def recorded(
        problem: Problem, group: slice, W: torch.Tensor, steps: torch.Tensor, Cs: list[float], *rest: object
    ) -> list[Solution]:
        begun.append(Cs[0])
        return in_row_space(problem, group, W, steps, Cs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(linear_path, "_in_row_space", recorded)
    # All 90 rows of a fold are inside for the smallest C, and fewer for the next.
    monkeypatch.setattr(linear_path, "_STEPS", 86**3 / 3 / (90 * 60))
    mixed = fit(problem, groups, 1e-8, weights=True)
    assert begun == [1e-2, 1e-2]  # in the middle of that C
    assert (mixed[1].n_iter > 1).all()  # a step on the weights, and one to begin with in the space of the rows
    monkeypatch.setattr(linear_path, "_STEPS", 0)
    for C, one, other in zip(CS, mixed, fit(problem, groups, 1e-8, weights=True), strict=True):
        reached = [Point.at(problem.double(), solution.W).objective(C) for solution in (one, other)]
        torch.testing.assert_close(*reached, rtol=1e-7, atol=0)
    assert begun == [1e-2, 1e-2]


@pytest.mark.parametrize(
    ("n", "inside", "d", "expected"),
    [
        (200, 200, 512, True),  # a few photos
        (8000, 8000, 512, False),  # products of the rows would take more than their features
        (8000, 8000, 4608, False),
        (8000, 2700, 4608, True),
        (200, 200, 40, False),
    ],
)
def test_where_rows_pay(n: int, inside: float, d: int, expected: bool) -> None:
    assert rows_pay(n, inside, d) is expected


def test_folds_side_by_side_are_those_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, groups = two_folds(torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        beside = fit(problem, groups, 1e-8, weights=False)
        monkeypatch.setattr(linear_path, "_FEW", 0)
        after = fit(problem, groups, 1e-8, weights=False)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for one, other in zip(beside, after, strict=True):
        torch.testing.assert_close(one.W, other.W, rtol=1e-9, atol=1e-12)
        assert torch.equal(one.n_iter, other.n_iter)
