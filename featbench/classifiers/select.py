"""The choice of hyper-parameters, on training and validation rows only.

`rows` has the table of what `selection` does. Accuracy decides; of equals the first candidate in grid order wins. A
fold's scaler is fitted inside that fold, and so are steps before the classifier that learn from rows; with those a
forest is selected by folds too, since their fit would have seen the rows that are out of a tree's bag.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from featbench.classifiers.params import candidates
from featbench.classifiers.rows import How, final_rows, how_to_select, splits_of
from featbench.classifiers.spec import (
    ClassifierSpec,
    Engine,
    Labels,
    Rows,
    Solver,
    Splits,
    Tried,
    engine_of,
    planned_fit,
    search_solver,
)
from featbench.classifiers.transforms import fit_steps, learns, transform_rows
from featbench.config import EvaluateConfig
from featbench.errors import DataError, UsageError
from featbench.solvers.streamed import FeatureRows, read_rows


@dataclass(frozen=True)
class Selection:
    """The hyper-parameters chosen, and how.

    Attributes:
        how: Value of results.csv's `selection`.
        params: The chosen candidate; empty for `none`.
        val_accuracy: Its accuracy on rows it was not fitted on (for `cv` the mean over folds), None for `none`.
        n_val: Rows that `val_accuracy` was measured on.
        n_tried: Candidates that were tried; those that need more rows than a fold has are not.
        n_not_converged: Candidates that did not converge, in any fold.
        solver: What searched or, without a search, what will fit the model; None: scikit-learn.
        splits: (rows fitted on, rows held out) of the search; none for `oob` and `none`.
        model: With `oob`, the chosen candidate as the search fitted it, on all rows that the final model is for.
    """

    how: How
    params: dict[str, Any]
    val_accuracy: float | None
    n_val: int
    n_tried: int
    n_not_converged: int
    solver: Solver | None
    splits: Splits = ()
    model: Pipeline | None = None

    @property
    def engine(self) -> Engine:
        """Value of results.csv's `engine`."""
        return engine_of(self.solver)


def select(
    spec: ClassifierSpec,
    X: FeatureRows,
    y: Labels,
    n_train: int,
    config: EvaluateConfig,
    seed: int,
    steps: Sequence[str] = (),
    device: str = "cpu",
) -> Selection:
    """Choose the hyper-parameters of a classifier.

    Args:
        spec: The classifier.
        X: (N, D) float: the training rows, then those of the val split where there is one.
        y: (N,) int64.
        n_train: The number of training rows; what follows them is the val split.
        config: The `[evaluate]` table.
        seed: For the folds or the held-out rows, and a seeded method.
        steps: Transforms before the classifier.
        device: Where a solver that can use a GPU computes.

    Raises:
        DataError: There are fewer rows than every candidate needs.
        UsageError: scikit-learn refuses a candidate, or a step.
    """
    n_final = final_rows(n_train, len(y) - n_train, config)
    how = how_to_select(spec, config, n_train, has_val=len(y) > n_train, learning=learns(steps))
    solver = planned_fit(spec, [], config)
    if how == "none":
        return Selection(how, {}, None, 0, 0, 0, solver)
    if steps and not learns(steps):
        X = transform_rows(fit_steps(steps, read_rows(X, slice(1)), seed), X)
        steps = ()
    grid = candidates(spec, config)
    splits: Splits = []
    model = None
    if how == "oob":
        assert isinstance(X, np.ndarray)  # only solvers with `disk_bytes` get others
        tried, model = _try_out_of_bag(spec, grid, X[:n_final], y[:n_final], seed)
        n_val = n_final
    else:
        splits = splits_of(how, y, n_train, n_final, config.folds, seed)
        grid = _fitting_rows(spec, grid, min(len(kept) for kept, _ in splits))
        solver = search_solver(spec, grid, config, y, splits)
        parts = _prepared(steps, X, splits, seed)
        with convergence_recorded(spec):
            tried = _mean_of_each(_try_grid(spec, grid, rows, y, some, seed, solver, device) for rows, some in parts)
        n_val = sum(len(held_out) for _, held_out in splits)
    accuracies = [accuracy for accuracy, _ in tried]
    best = int(np.argmax(accuracies))
    not_converged = sum(converged is False for _, converged in tried)
    return Selection(how, grid[best], float(accuracies[best]), n_val, len(grid), not_converged, solver, splits, model)


def fit(
    spec: ClassifierSpec,
    params: Mapping[str, Any],
    X: FeatureRows,
    y: Labels,
    seed: int,
    solver: Solver | None = None,
    device: str = "cpu",
) -> Pipeline:
    """Fit a classifier on all of the rows given; `spec.converged` tells whether its solver converged.

    Raises:
        UsageError: scikit-learn refuses the parameters.
    """
    model = spec.make(params, seed, X.shape[1])
    try:
        return model.fit(X, y) if solver is None or solver.fit is None else solver.fit(model, X, y, device)
    except ValueError as error:
        raise UsageError(f"scikit-learn refuses to fit {spec.name} with {dict(params)}: {error}") from error


@contextmanager
def convergence_recorded(spec: ClassifierSpec) -> Iterator[None]:
    """Silence scikit-learn's ConvergenceWarning, because rows record it; other warnings are shown.

    A user's own classifier keeps it, since `converged` may not see what it warns of. Use this around the threads that
    fit, not inside them: warning filters are global to the process.
    """
    with warnings.catch_warnings():
        if spec.source is None:
            warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _fitting_rows(spec: ClassifierSpec, grid: list[dict[str, Any]], n_rows: int) -> list[dict[str, Any]]:
    usable = [params for params in grid if spec.min_rows(params) <= n_rows]
    if not usable:
        fewest = min(map(spec.min_rows, grid))
        raise DataError(
            f"{spec.name} needs at least {fewest} rows to fit on with any of its parameters, and {n_rows} remain when "
            f"some are held out; add images, or smaller values to evaluate.grids.{spec.name}"
        )
    return usable


def _prepared(steps: Sequence[str], X: FeatureRows, splits: Splits, seed: int) -> Iterator[tuple[FeatureRows, Splits]]:
    """Yield rows after the steps, with the splits they are for: all at once where no step learns from rows."""
    if not steps:
        yield X, splits
        return
    assert isinstance(X, np.ndarray)  # steps that learn are not for rows on disk
    for kept, held_out in splits:
        yield fit_steps(steps, X[kept], seed).transform(X), [(kept, held_out)]


def _mean_of_each(parts: Iterable[Sequence[Tried]]) -> list[Tried]:
    """Join equally many splits: each candidate's mean accuracy, and whether it always converged."""
    return [
        (float(np.mean([accuracy for accuracy, _ in tried])), None if tried[0][1] is None else all(c for _, c in tried))
        for tried in zip(*parts, strict=True)
    ]


def _try_grid(
    spec: ClassifierSpec,
    grid: Sequence[Mapping[str, Any]],
    X: FeatureRows,
    y: Labels,
    splits: Splits,
    seed: int,
    solver: Solver | None,
    device: str,
) -> list[Tried]:
    """Return (mean accuracy over splits, whether all splits converged) of each candidate."""
    if solver is not None:
        machines = [spec.make(params, seed, X.shape[1])[-1] for params in grid]
        try:
            by_candidate = solver.search(X, y, splits, machines, device)
        except ValueError as error:
            raise UsageError(f"{spec.name} cannot be fitted with its grid: {error}") from error
        return _mean_of_each(zip(*by_candidate, strict=True))

    def attempt(params: Mapping[str, Any], rows: Rows, held_out: Rows) -> Tried:
        model = fit(spec, params, X[rows], y[rows], seed)
        return float(model.score(X[held_out], y[held_out])), spec.converged(model[-1])

    # Threads: the solvers release the GIL, and processes would copy X.
    jobs = 1 if spec.all_cores else min(cpu_count(), len(grid) * len(splits))
    with threadpool_limits(None if jobs == 1 else 1):  # or each would take all cores for BLAS
        tried = Parallel(n_jobs=jobs, prefer="threads")(
            delayed(attempt)(params, *split) for params in grid for split in splits
        )
    return _mean_of_each(tried[i :: len(splits)] for i in range(len(splits)))


def _try_out_of_bag(
    spec: ClassifierSpec, grid: Sequence[Mapping[str, Any]], X: npt.NDArray[Any], y: Labels, seed: int
) -> tuple[list[Tried], Pipeline]:
    """Return (accuracy, whether it converged) of each candidate, and the best of them as a plain fit would give it."""
    tried: list[Tried] = []
    for params in grid:
        model = fit(spec, {**params, "oob_score": True}, X, y, seed)
        accuracy = float(model[-1].oob_score_)
        if not tried or accuracy > max(accuracy for accuracy, _ in tried):
            best = model
        tried.append((accuracy, spec.converged(model[-1])))
    best[-1].set_params(oob_score=False)
    del best[-1].oob_score_, best[-1].oob_decision_function_
    return tried, best
