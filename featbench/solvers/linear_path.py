"""One C after the other: conjugate gradients on the weights, then, where it pays, factors in the space of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from joblib import Parallel, cpu_count, delayed
from threadpoolctl import threadpool_limits
from torch import Tensor

from featbench.solvers.gram import Gram
from featbench.solvers.hessians import Hessians
from featbench.solvers.newton import Solution, minimise
from featbench.solvers.problem import Point, Problem, stopping_norms
from featbench.solvers.row_newton import begin_rows, minimise_rows

_STEPS = 200  # multiply-adds a value of X that factors may cost: what Newton's method then takes on the weights
_FEW = 4096  # rows: up to so many, a thread for each group does more than threads for each product
_GROUP_BYTES = 2**30  # of the rows, and their products, of groups side by side
_COPIES = 4  # of X, what products of rows with each other may take


def rows_pay(n: int, inside: float, d: int) -> bool:
    """Say whether the space of n rows with d features is the place to go on, with so many inside a column's margin."""
    return n <= _COPIES * d and inside**3 / 3 <= _STEPS * n * d


def fit_path(
    problem: Problem,
    groups: Sequence[slice],
    Cs: Sequence[float],
    tol: float,
    max_iter: int,
    gap: float,
    hessians: Hessians | None,
) -> list[Solution]:
    """Fit every C, each from the solution of the last.

    Args:
        problem: The columns.
        groups: Which columns have the same rows, and see them alike.
        Cs: Ascending.
        tol: Of liblinear's stopping rule.
        max_iter: Newton steps allowed for each C.
        gap: Of the objective, how far above its minimum it may still be.
        hessians: Of the problem; None to be in the space of the rows from the start.
    """
    W = torch.zeros(
        problem.rows.X.shape[1] + 1, problem.signs.shape[1], dtype=torch.float64, device=problem.signs.device
    )
    stop = stopping_norms(problem, tol)
    steps = torch.zeros(W.shape[1], dtype=torch.int64, device=W.device)
    path: list[Solution] = []
    for C in Cs:
        if hessians is None:
            break
        solution = minimise(problem, W, C, stop, max_iter, hessians, gap, _rows_pay)
        W = solution.W
        if solution.left:
            steps = solution.n_iter
            break
        path.append(solution)
    rest = Cs[len(path) :]
    if not rest:
        return path
    n, d = int((problem.costs > 0).sum(0).max()), problem.rows.X.shape[1]
    few = n <= _FEW
    threads = cpu_count() if few and W.device.type == "cpu" else 1
    jobs = max(1, min(threads, len(groups), _GROUP_BYTES // (8 * n * (n + d))))
    with _one_torch_thread(), threadpool_limits(1 if few else None, "blas"):
        parts = Parallel(n_jobs=jobs, prefer="threads")(
            delayed(_in_row_space)(problem, group, W, steps, rest, stop, max_iter, gap) for group in groups
        )
    return path + [beside(columns) for columns in zip(*parts, strict=True)]


def _rows_pay(problem: Problem, point: Point) -> bool:
    """Say whether the space of the rows is the place to go on from a point."""
    if not isinstance(problem.rows.X, Tensor):
        return False
    used = problem.costs > 0
    n, d = int(used.sum(0).max()), problem.rows.X.shape[1]
    if not rows_pay(n, 0, d):
        return False
    inside = ((point.slack > 0) & used).sum(0).double()
    return rows_pay(n, float(inside.pow(3).mean() ** (1 / 3)), d)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Leave the cores to others: the threads of numpy's BLAS and torch's wait actively, and would hinder each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _in_row_space(
    problem: Problem,
    group: slice,
    W: Tensor,
    steps: Tensor,
    Cs: Sequence[float],
    stop: Tensor,
    max_iter: int,
    gap: float,
) -> list[Solution]:
    """Fit every C for columns that have the same rows, beginning at W, which took so many steps for the first C."""
    own = problem.take(torch.arange(group.start, group.stop, device=W.device))
    used = (own.costs > 0).any(1).nonzero()[:, 0]
    gram = Gram.of(own.rows.of_column(used, 0, torch.float64))
    signs, costs = own.signs[used].double(), own.costs[used].double()
    columns = begin_rows(gram, signs, costs, signs * gram.at(W[:, group]) < 1, Cs[0])
    before = steps[group] + 1
    path = []
    for C in Cs:
        allowed = max(0, max_iter - int(before.max()))
        columns, n_iter, converged = minimise_rows(gram, columns, C, stop[group], allowed, gap)
        path.append(Solution(gram.weights(columns.A), (before + n_iter).clamp(max=max_iter), converged))
        before = torch.zeros_like(before)
    return path


def beside(parts: Sequence[Solution]) -> Solution:
    """Put columns beside each other."""
    return Solution(
        torch.cat([part.W for part in parts], dim=1),
        torch.cat([part.n_iter for part in parts]),
        torch.cat([part.converged for part in parts]),
    )
