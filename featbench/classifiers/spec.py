"""What a classifier is: a row of the table in `registry`, with the solver that is faster than scikit-learn's, if any.

Without a solver a grid is searched by a loop over scikit-learn's fits. A solver gives the same answers to within its
tolerance; `evaluate.engine = "sklearn"` always takes the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from featbench.classifiers.skops_file import Limits, Record
from featbench.config import EvaluateConfig
from featbench.solvers.streamed import FeatureRows

GAMMA_SCALE = "gamma_scale"
MANAGED = ("random_state", "n_jobs", "verbose", "warm_start", "oob_score", "cache_size")  # by featbench, not by a grid

Engine = Literal["featbench", "scikit-learn", "scikit-learn-intelex"]
Rows = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int64]
Splits = Sequence[tuple[Rows, Rows]]
Tried = tuple[float, bool | None]
Restore = Callable[[Any, Record, Limits, Labels], None]
Search = Callable[[Any, Labels, Splits, list[Any], str], Sequence[Sequence[Tried]]]
Fit = Callable[[Pipeline, FeatureRows, Labels, str], Pipeline]


@dataclass(frozen=True)
class Solver:
    """A faster way to the same classifier.

    Attributes:
        search: (X, y, splits, machines, device) -> for every machine and every split the accuracy on held-out rows, and
            whether the fit converged (None: nothing has to). X is (N, D) float and not scaled, even where the
            classifier is; machines are scikit-learn's estimators, unfitted, one a candidate. It may raise ValueError.
        fit: (model, X, y, device) -> the pipeline of `ClassifierSpec.make`, fitted, or one that predicts the same.
            None: scikit-learn's own `fit` is used.
        serves: Whether the solver can solve a candidate with these parameters.
        serves_text: What `serves` asks for, for an error message, as in "C up to 10".
        fits_memory: Whether it can hold what it needs for these labels and splits; None: that does not depend on them.
        fallback: The solver to try where `fits_memory` or `serves` is False.
        engine: Value of results.csv's `engine`.
        uses_gpu: Whether `search` and `fit` can compute on a GPU.
        disk_bytes: Memory for each row and class when the features stay on disk, in bytes; None: they can't.
    """

    search: Search
    fit: Fit | None = None
    serves: Callable[[Mapping[str, Any]], bool] = lambda params: True
    serves_text: str = ""
    fits_memory: Callable[[Labels, Splits], bool] | None = None
    fallback: Solver | None = None
    engine: Engine = "featbench"
    uses_gpu: bool = False
    disk_bytes: int | None = None


@dataclass(frozen=True)
class ClassifierSpec:
    """A classifier.

    Attributes:
        name: Its name in `evaluate.classifiers`.
        summary: What it is, in one line.
        estimator: Makes scikit-learn's estimator, unfitted: its class or a factory.
        fixed: Parameters that featbench sets; a grid may not.
        grid: The built-in hyper-parameter grid: parameter -> values, in the order in which ties are decided.
        scaled: Whether features are standardised first, by the rows that the classifier is fitted on.
        seeded: Whether the method itself draws random numbers, so that repeats differ by its seed alone.
        out_of_bag: Whether the out-of-bag score on all training rows replaces folds.
        gamma_scale: Whether `gamma_scale` is a parameter: gamma as a multiple of 1 / (number of features), which is
            scikit-learn's gamma="scale" on standardised features none of which is constant.
        converged: Whether a fitted estimator's solver converged; None where there is no such notion.
        all_cores: Whether one fit takes all cores itself, so that fits run one after another.
        min_rows: The fewest rows that a candidate can be fitted on.
        has_trees: Whether a model may hold decision trees, whose number bounds the size of its file.
        solver: A faster solver; None: a loop over scikit-learn's fits.
        restore: How a fitted model is made again from the checked arrays of its file: class -> function, see `restore`.
        source: Hash of the file of a user's own classifier.
    """

    name: str
    summary: str
    estimator: Callable[..., Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    scaled: bool = False
    seeded: bool = False
    out_of_bag: bool = False
    gamma_scale: bool = False
    converged: Callable[[Any], bool | None] = lambda estimator: None
    all_cores: bool = False
    min_rows: Callable[[Mapping[str, Any]], int] = lambda params: 1
    has_trees: bool = False
    solver: Solver | None = None
    restore: Mapping[type, Restore] = field(default_factory=dict)
    source: str | None = None

    def make(self, params: Mapping[str, Any], seed: int, n_features: int) -> Pipeline:
        """Make the unfitted pipeline; its last step is the classifier.

        Args:
            params: Hyper-parameters; the others keep scikit-learn's defaults.
            seed: For a method that draws random numbers.
            n_features: Width of the features, which turns `gamma_scale` into gamma.
        """
        settings = {**self.fixed, **params}
        if GAMMA_SCALE in settings:
            settings["gamma"] = settings.pop(GAMMA_SCALE) / n_features
        estimator = self.estimator()
        if self.all_cores:
            settings |= dict.fromkeys(_unset(estimator, "random_state"), seed)
            settings |= dict.fromkeys(_unset(estimator, "n_jobs"), -1)
        estimator.set_params(**settings)
        return make_pipeline(StandardScaler(), estimator) if self.scaled else make_pipeline(estimator)

    def tunable(self) -> list[str]:
        """Return the parameters that a grid may name."""
        names = [name for name in self.estimator().get_params() if name not in (*MANAGED, *self.fixed)]
        return [*names, GAMMA_SCALE] if self.gamma_scale else names


def _unset(estimator: Any, name: str) -> list[str]:
    """List the parameters of this name, of an estimator and of the parts of a pipeline, that are None."""
    given = estimator.get_params().items()
    return [key for key, value in given if value is None and key.rpartition("__")[2] == name]


def planned_solver(spec: ClassifierSpec, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> Solver | None:
    """Return the solver that searches this grid on any rows; None: scikit-learn does, or it depends on the rows."""
    solver = spec.solver
    if config.engine != "auto" or solver is None or solver.fits_memory is not None:
        return None
    return solver if all(map(solver.serves, grid)) else None


def planned_fit(spec: ClassifierSpec, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> Solver | None:
    """Return the solver that fits a model with parameters from this grid on any rows; None: scikit-learn does."""
    solver = planned_solver(spec, grid, config)
    return solver if solver is not None and solver.fit is not None else None


def fit_engine(spec: ClassifierSpec, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> Engine:
    """Return the engine of `planned_fit`, which is part of a row's fingerprint."""
    return engine_of(planned_fit(spec, grid, config))


def engine_of(solver: Solver | None) -> Engine:
    """Return the value of results.csv's `engine`."""
    return "scikit-learn" if solver is None else solver.engine


def search_solver(
    spec: ClassifierSpec, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig, y: Labels, splits: Splits
) -> Solver | None:
    """Return the solver that searches this grid on these splits; None: a loop over scikit-learn's fits."""
    solver = spec.solver if config.engine == "auto" else None
    while solver is not None:
        fits = solver.fits_memory is None or solver.fits_memory(y, splits)
        if fits and all(map(solver.serves, grid)):
            return solver
        solver = solver.fallback
    return None
