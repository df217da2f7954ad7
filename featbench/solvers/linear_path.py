"""One C after the other: conjugate gradients on the weights, then, where it is cheaper, factors in row space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from threadpoolctl import threadpool_limits
from torch import Tensor

from featbench.solvers.losses import SquaredHinge
from featbench.solvers.newton import Solution, join, minimise
from featbench.solvers.preconditioner import Preconditioner
from featbench.solvers.problem import Point, Problems
from featbench.solvers.row_newton import Gram, RowProblems, minimise_rows

# Multiply-adds per value of X that a factor in row space may cost; Newton's method on the weights then costs as much
# (`python -m tests.speed.constants`).
ROW_COST = 200
_SMALL = 4096  # rows: up to this size a thread for each fold is faster than threads within products
_GROUP_BYTES = 2**30  # of the rows, and their products, of folds side by side
_COPIES = 4  # of X; products of rows with each other may be as large


def rows_are_cheaper(n: int, inside: float, d: int, row_cost: float = ROW_COST) -> bool:
    """Whether row space is cheaper for n rows of d features, `inside` of them inside a column's margin."""
    return n <= _COPIES * d and inside**3 / 3 <= row_cost * n * d


def fit_path(
    problems: Problems,
    folds: Sequence[int],
    Cs: Sequence[float],
    max_iter: int,
    gap: float,
    preconditioner: Preconditioner | None,
    row_cost: float = ROW_COST,
) -> list[Solution]:
    """Fit every C, each from the solution of the last.

    Args:
        problems: Squared hinges.
        folds: Of each problem, ascending; those of one fold have the same rows, and see them alike.
        Cs: Ascending.
        max_iter: Newton steps allowed for each C.
        gap: Share of the objective, allowed distance to the minimum.
        preconditioner: Of the problems' rows; None to start in row space.
        row_cost: As in `rows_are_cheaper`; 0 to stay on the weights.
    """

    def go_to_rows(problems: Problems, point: Point) -> bool:
        if not isinstance(problems.rows.X, Tensor):  # on disk
            return False
        n, d = int(problems.loss.used_rows().sum(0).max()), problems.rows.X.shape[1]
        if not rows_are_cheaper(n, 0, d, row_cost):
            return False
        inside = (point.curvature > 0).sum(0).double()
        return rows_are_cheaper(n, float(inside.pow(3).mean() ** (1 / 3)), d, row_cost)

    W = problems.zeros()
    steps = torch.zeros(W.shape[1], dtype=torch.int64, device=W.device)
    path: list[Solution] = []
    for C in Cs:
        if preconditioner is None:
            break
        of_C = replace(problems, C=torch.full_like(problems.C, C))
        solution = minimise(of_C, W, max_iter, gap, preconditioner, go_to_rows)
        W = solution.W
        if solution.interrupted:
            steps = solution.n_iter
            break
        path.append(solution)
    rest = Cs[len(path) :]
    return path + _in_row_space(problems, folds, W, steps, rest, max_iter, gap) if rest else path


def _in_row_space(
    problems: Problems,
    folds: Sequence[int],
    W: Tensor,
    steps: Tensor,
    Cs: Sequence[float],
    max_iter: int,
    gap: float,
) -> list[Solution]:
    """Fit every C, from W, reached in `steps` (P,) for the first C; folds in parallel."""
    n, d = int(problems.loss.used_rows().sum(0).max()), problems.rows.X.shape[1]
    groups = [torch.tensor(np.flatnonzero(np.array(folds) == fold), device=W.device) for fold in np.unique(folds)]
    small = n <= _SMALL
    threads = cpu_count() if small and W.device.type == "cpu" else 1
    jobs = max(1, min(threads, len(groups), _GROUP_BYTES // (8 * n * (n + d))))
    with _one_thread() if small else nullcontext():
        parts = Parallel(n_jobs=jobs, prefer="threads")(
            delayed(_fit_group)(problems, group, W, steps, Cs, max_iter, gap) for group in groups
        )
    return [join(columns) for columns in zip(*parts, strict=True)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch and BLAS use one thread: those of several folds would busy-wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _fit_group(
    problems: Problems, group: Tensor, W: Tensor, steps: Tensor, Cs: Sequence[float], max_iter: int, gap: float
) -> list[Solution]:
    own = problems.take(group)
    assert isinstance(own.loss, SquaredHinge)
    assert own.stop is not None
    used = own.loss.used_rows().any(1).nonzero()[:, 0]
    gram = Gram.of(own.rows.of_column(used, 0, torch.float64))
    loss = SquaredHinge(own.loss.signs[used], own.loss.costs[used]).double()
    of_rows = RowProblems(gram, loss, Cs[0], own.stop)
    point = of_rows.start(loss.signs * (gram.rows @ W[:, group]) < 1)
    before = steps[group] + 1
    path = []
    for C in Cs:
        allowed = max(0, max_iter - int(before.max()))
        point, n_iter, converged = minimise_rows(replace(of_rows, C=C), point, allowed, gap)
        path.append(Solution(gram.weights(point.A), (before + n_iter).clamp(max=max_iter), converged))
        before = torch.zeros_like(before)
    return path
