"""The choice of hyper-parameters, on training and validation rows only.

| `selection` | what is done | recorded as |
| --- | --- | --- |
| `cv` | stratified k-fold on train (+ val); a random forest takes its out-of-bag score instead | `cv`, `oob` |
| `holdout` | the data set's val split, or a stratified 20% of train where it has none | `holdout` |
| `auto` | `holdout` where there is a val split or more than 5,000 training rows, else `cv` | |
| `none` | nothing: scikit-learn's defaults | `none` |

Accuracy decides; of equals the first candidate in grid order wins. A fold's scaler is fitted inside that fold, and so
are steps before the classifier that learn from rows; with those a forest is selected by folds too, since their fit
would have seen the rows that are out of a tree's bag.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from featbench.classifiers.engine import Engine, Tried, fit_engine, fit_fast, search_engine, try_grid
from featbench.classifiers.registry import ClassifierSpec, candidates, get_classifier
from featbench.classifiers.transforms import fit_steps, learns, transform_rows
from featbench.config import EvaluateConfig
from featbench.errors import DataError, UsageError
from featbench.solvers.streamed import FeatureRows, read_rows

HOLDOUT_FRACTION = 0.2
HOLDOUT_ABOVE = 5_000  # rows: 20% of them tell an accuracy of 90% to a standard error below 1 point, as folds would

How = Literal["cv", "oob", "holdout", "none"]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Selection:
    """The hyper-parameters chosen, and how.

    Attributes:
        how: The `selection` column of the row.
        params: The chosen candidate; empty for `none`.
        val_accuracy: Its accuracy on rows it was not fitted on (for `cv` the mean over folds), None for `none`.
        n_val: Rows that `val_accuracy` was measured on.
        n_tried: Candidates that were tried; those with more neighbours than a fold has rows are not.
        n_not_converged: Candidates that did not converge, in any fold.
        engine: What did the search or, without one, what will fit the model.
        splits: (rows fitted on, rows held out) of the search; none for `oob` and `none`.
        model: With `oob`, the chosen candidate as the search fitted it, on all rows that the final model is for.
    """

    how: How
    params: dict[str, Any]
    val_accuracy: float | None
    n_val: int
    n_tried: int
    n_not_converged: int
    engine: Engine
    splits: Sequence[tuple[Rows, Rows]] = ()
    model: Pipeline | None = None


def select(
    name: str,
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    n_train: int,
    config: EvaluateConfig,
    seed: int,
    steps: Sequence[str] = (),
    device: str = "cpu",
) -> Selection:
    """Choose the hyper-parameters of a classifier.

    Args:
        name: A key of `CLASSIFIERS`.
        X: (N, D) float: the training rows, then those of the val split where there is one.
        y: (N,) int64.
        n_train: The number of training rows; what follows them is the val split.
        config: The `[evaluate]` table.
        seed: Of the folds or the held-out rows, and of a seeded method.
        steps: What to do to the rows before the classifier.
        device: Where linear_svc is fitted.

    Raises:
        DataError: A class has too few rows, or there are fewer rows than neighbours wanted.
        UsageError: scikit-learn refuses a candidate, or a step.
    """
    spec = get_classifier(name)
    n_final = final_rows(n_train, len(y) - n_train, config)
    how = how_to_select(spec, config, n_train, has_val=len(y) > n_train, learning=learns(steps))
    if how == "none":
        return Selection(how, {}, None, 0, 0, 0, fit_engine(name, [], config))
    if steps and not learns(steps):
        X = transform_rows(fit_steps(steps, read_rows(X, slice(1)), seed), X)
        steps = ()
    grid, engine = candidates(name, config), fit_engine(name, [], config)
    splits: list[tuple[Rows, Rows]] = []
    model = None
    if how == "oob":
        assert isinstance(X, np.ndarray)  # `streams`
        tried, model = _try_out_of_bag(name, grid, X[:n_final], y[:n_final], seed)
        n_val = n_final
    else:
        splits = splits_of(how, y, n_train, n_final, config.folds, seed)
        grid = _with_enough_rows(name, grid, min(len(kept) for kept, _ in splits))
        engine = search_engine(name, grid, y, splits, config)
        attempt = _try_all if engine == "scikit-learn" else partial(_try_fast, device=device)
        tried = _mean_of_each(
            attempt(name, grid, rows, y, some, seed) for rows, some in _prepared(steps, X, splits, seed)
        )
        n_val = sum(len(held_out) for _, held_out in splits)
    accuracies = [accuracy for accuracy, _ in tried]
    best = int(np.argmax(accuracies))
    not_converged = sum(converged is False for _, converged in tried)
    return Selection(how, grid[best], float(accuracies[best]), n_val, len(grid), not_converged, engine, splits, model)


def fit(
    name: str,
    params: Mapping[str, Any],
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    seed: int,
    engine: Engine = "scikit-learn",
    device: str = "cpu",
) -> Pipeline:
    """Fit a classifier on all of the rows given; `spec.converged` tells whether its solver converged.

    `device` is where linear_svc is fitted by featbench's own solver.

    Raises:
        UsageError: scikit-learn refuses the parameters.
    """
    model = get_classifier(name).make(params, seed, X.shape[1])
    return _fitted(model, name, params, X, y, engine, device)


@contextmanager
def convergence_recorded(spec: ClassifierSpec) -> Iterator[None]:
    """Silence scikit-learn's ConvergenceWarning, because rows record it; every other warning goes through.

    So does this one from a classifier of the user's own, which may have another way to say it than its row knows.
    It stands around the threads that fit, not inside them: warning filters belong to the whole process.
    """
    with warnings.catch_warnings():
        if spec.source is None:
            warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def final_rows(n_train: int, n_val: int, config: EvaluateConfig) -> int:
    """Return how many of the rows (train, then val) the final model is fitted on.

    All of them, but for a learning curve, where val rows would drown the few training rows that the curve is about.
    """
    return n_train if config.train_sizes else n_train + n_val


def how_to_select(spec: ClassifierSpec, config: EvaluateConfig, n_train: int, *, has_val: bool, learning: bool) -> How:
    """Return what `selection` comes to for `n_train` rows, with or without a val split and steps that learn."""
    how = config.selection
    if how == "auto":
        how = "holdout" if has_val or n_train > HOLDOUT_ABOVE else "cv"
    return "oob" if how == "cv" and spec.out_of_bag and not learning else how


def splits_of(
    how: How, y: npt.NDArray[np.int64], n_train: int, n_final: int, folds: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """List (rows to fit on, rows to score on)."""
    if how == "cv":
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return list(splitter.split(np.zeros(n_final), y[:n_final]))
    train = np.arange(n_train)
    if len(y) > n_train:
        return [(train, np.arange(n_train, len(y)))]
    kept, held_out = train_test_split(train, test_size=HOLDOUT_FRACTION, stratify=y, random_state=seed)
    return [(np.sort(kept), np.sort(held_out))]


def _with_enough_rows(name: str, grid: list[dict[str, Any]], n_rows: int) -> list[dict[str, Any]]:
    usable = [params for params in grid if name != "knn" or params.get("n_neighbors", 1) <= n_rows]
    if not usable:
        fewest = min(params["n_neighbors"] for params in grid)
        raise DataError(
            f"grids.knn.n_neighbors asks for {fewest} neighbours or more, and {n_rows} rows are left to fit on when "
            "some are held out; add smaller values, or images"
        )
    return usable


def _prepared(
    steps: Sequence[str], X: FeatureRows, splits: Sequence[tuple[Rows, Rows]], seed: int
) -> Iterator[tuple[FeatureRows, Sequence[tuple[Rows, Rows]]]]:
    """Yield rows after the steps, with the splits they are for: all at once where no step learns from rows."""
    if not steps:
        yield X, splits
        return
    assert isinstance(X, np.ndarray)  # `streams`
    for kept, held_out in splits:
        yield fit_steps(steps, X[kept], seed).transform(X), [(kept, held_out)]


def _mean_of_each(parts: Iterable[Sequence[Tried]]) -> list[Tried]:
    """Join the results of parts of equally many splits: a candidate's mean accuracy, and whether all converged."""
    return [
        (float(np.mean([accuracy for accuracy, _ in tried])), None if tried[0][1] is None else all(c for _, c in tried))
        for tried in zip(*parts, strict=True)
    ]


def _try_fast(
    name: str,
    grid: Sequence[Mapping[str, Any]],
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    seed: int,
    device: str,
) -> list[tuple[float, bool | None]]:
    """Do as `_try_all`, with solvers that take the whole grid and draw no random numbers."""
    try:
        with convergence_recorded(get_classifier(name)):
            return try_grid(name, grid, X, y, splits, device)
    except ValueError as error:
        raise UsageError(f"{name} cannot be fitted with its grid: {error}") from error


def _try_all(
    name: str,
    grid: Sequence[Mapping[str, Any]],
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    seed: int,
) -> list[tuple[float, bool | None]]:
    """Return (mean accuracy over splits, whether all splits converged) of each candidate."""
    # Threads: the solvers release the GIL, and processes would copy X.
    assert isinstance(X, np.ndarray)  # `streams`
    spec = get_classifier(name)
    jobs = 1 if spec.all_cores else min(cpu_count(), len(grid) * len(splits))
    with (
        convergence_recorded(spec),
        threadpool_limits(None if jobs == 1 else 1),
    ):  # or each would take all cores for BLAS
        tried = Parallel(n_jobs=jobs, prefer="threads")(
            delayed(_try)(name, params, X, y, *split, seed) for params in grid for split in splits
        )
    return _mean_of_each(tried[i :: len(splits)] for i in range(len(splits)))


def _try(
    name: str,
    params: Mapping[str, Any],
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    rows: Rows,
    held_out: Rows,
    seed: int,
) -> tuple[float, bool | None]:
    model = fit(name, params, X[rows], y[rows], seed)
    return float(model.score(X[held_out], y[held_out])), get_classifier(name).converged(model[-1])


def _try_out_of_bag(
    name: str, grid: Sequence[Mapping[str, Any]], X: npt.NDArray[Any], y: npt.NDArray[np.int64], seed: int
) -> tuple[list[Tried], Pipeline]:
    """Return (accuracy, whether it converged) of each candidate, and the best of them as a plain fit would give it."""
    spec = get_classifier(name)
    tried: list[Tried] = []
    for params in grid:
        model = spec.make(params, seed, X.shape[1])
        model[-1].set_params(oob_score=True)
        _fitted(model, name, params, X, y)
        accuracy = float(model[-1].oob_score_)
        if not tried or accuracy > max(accuracy for accuracy, _ in tried):
            best = model
        tried.append((accuracy, spec.converged(model[-1])))
    best[-1].set_params(oob_score=False)
    del best[-1].oob_score_, best[-1].oob_decision_function_
    return tried, best


def _fitted(
    model: Pipeline,
    name: str,
    params: Mapping[str, Any],
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    engine: Engine = "scikit-learn",
    device: str = "cpu",
) -> Pipeline:
    try:
        return fit_fast(name, model, X, y, device) if engine == "featbench" else model.fit(X, y)
    except ValueError as error:
        raise UsageError(f"scikit-learn refuses to fit {name} with {dict(params)}: {error}") from error
