"""The classifiers: what each is, how it is made, which hyper-parameters are searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from featbench.config import EvaluateConfig
from featbench.errors import UsageError, unknown

GAMMA_SCALE = "gamma_scale"
_MANAGED = ("random_state", "n_jobs", "verbose", "warm_start", "oob_score", "cache_size")  # by featbench, not by a grid
_WITHOUT_EFFECT_ON_THE_ANSWER = ("n_jobs", "verbose", "cache_size", "oob_score", "warm_start")


@dataclass(frozen=True)
class ClassifierSpec:
    """A classifier.

    Attributes:
        summary: What it is, in one line.
        estimator: The scikit-learn class.
        fixed: Parameters that featbench sets, whatever the grid.
        grid: The built-in hyper-parameter grid: parameter -> values, in the order in which ties are decided.
        scaled: Whether features are standardised first; the scaler is fitted on the rows that the classifier is.
        seeded: Whether the method itself draws random numbers; it then also has the cores to itself.
        out_of_bag: Whether the out-of-bag score on all training rows stands in for folds.
        gamma_scale: Whether `gamma_scale` is a parameter: gamma as a multiple of 1 / (number of features), which is
            scikit-learn's gamma="scale" on standardised features none of which is constant.
        converged: Says of a fitted estimator whether its solver converged; None where there is no such notion.
    """

    summary: str
    estimator: Callable[..., Any]
    fixed: Mapping[str, Any]
    grid: Mapping[str, tuple[Any, ...]]
    scaled: bool
    seeded: bool
    out_of_bag: bool
    gamma_scale: bool
    converged: Callable[[Any], bool | None]

    def make(self, params: Mapping[str, Any], seed: int, n_features: int) -> Pipeline:
        """Make the unfitted pipeline; its last step is the classifier.

        Args:
            params: Hyper-parameters; what is not named keeps scikit-learn's default.
            seed: Of a seeded method; the others have no use for it.
            n_features: Width of the features, which turns `gamma_scale` into gamma.
        """
        settings = {**self.fixed, **params}
        if GAMMA_SCALE in settings:
            settings["gamma"] = settings.pop(GAMMA_SCALE) / n_features
        if self.seeded:
            settings |= {"random_state": seed, "n_jobs": -1}
        estimator = self.estimator(**settings)
        return make_pipeline(StandardScaler(), estimator) if self.scaled else make_pipeline(estimator)

    def tunable(self) -> list[str]:
        """Return the parameters that a grid may name."""
        names = [name for name in self.estimator().get_params() if name not in (*_MANAGED, *self.fixed)]
        return [*names, GAMMA_SCALE] if self.gamma_scale else names


CLASSIFIERS: dict[str, ClassifierSpec] = {
    "linear_svc": ClassifierSpec(
        summary="linear support vector machine, squared hinge loss, one against the rest, standardised features",
        estimator=LinearSVC,
        fixed={"dual": False},  # the primal is convex and draws no random numbers, the dual's coordinate descent does
        # Up to 0.1: beyond it liblinear's primal takes five times as long, often does not converge, and gains nothing
        # on correlated features. Down to 1e-6: C weighs a sum over rows, so that large sets want small ones.
        grid={"C": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)},
        scaled=True,
        seeded=False,
        out_of_bag=False,
        gamma_scale=False,
        converged=lambda estimator: bool(np.max(estimator.n_iter_) < estimator.max_iter),
    ),
    "svm_rbf": ClassifierSpec(
        summary="support vector machine with a Gaussian kernel, one against one, standardised features",
        estimator=SVC,
        # Ties of votes are broken by decision values, so that the class predicted is the one with the highest score.
        fixed={"kernel": "rbf", "decision_function_shape": "ovr", "break_ties": True},
        grid={"C": (1.0, 10.0, 100.0), GAMMA_SCALE: (0.1, 0.3, 1.0)},
        scaled=True,
        seeded=False,
        out_of_bag=False,
        gamma_scale=True,
        converged=lambda estimator: bool(estimator.fit_status_ == 0),
    ),
    "random_forest": ClassifierSpec(
        summary="random forest of 300 trees on features as they are",
        estimator=RandomForestClassifier,
        fixed={"bootstrap": True},  # without it there is no out-of-bag score
        grid={"n_estimators": (300,), "max_features": ("log2", "sqrt"), "min_samples_leaf": (1, 3)},
        scaled=False,
        seeded=True,
        out_of_bag=True,
        gamma_scale=False,
        converged=lambda estimator: None,
    ),
}


def get_classifier(name: str) -> ClassifierSpec:
    """Look a classifier up.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in CLASSIFIERS:
        raise unknown("classifier", name, CLASSIFIERS)
    return CLASSIFIERS[name]


def check_grids(config: EvaluateConfig) -> None:
    """Check the names of classifiers and everything in `evaluate.grids`, before any work is done.

    Raises:
        UsageError: A classifier or a parameter does not exist, is featbench's own to set, or has a value that
            scikit-learn refuses.
    """
    for name in config.classifiers:
        for candidate in candidates(name, config):
            _check_candidate(name, candidate)


def candidates(name: str, config: EvaluateConfig) -> list[dict[str, Any]]:
    """List the hyper-parameters to try, in scikit-learn's order of a grid.

    A grid of the experiment replaces the built-in one; what neither names keeps scikit-learn's default.

    Raises:
        UsageError: There is no classifier of that name.
    """
    builtin = get_classifier(name).grid
    return list(ParameterGrid({key: list(values) for key, values in config.grids.get(name, builtin).items()}))


def used_params(spec: ClassifierSpec, params: Mapping[str, Any], model: Pipeline) -> dict[str, Any]:
    """Return every parameter that bears on the answer of a model made from `params`, for the row's `params`."""
    every = model[-1].get_params()
    # scikit-learn marks parameters on their way out by this value.
    used = {
        key: value for key, value in every.items() if key not in _WITHOUT_EFFECT_ON_THE_ANSWER and value != "deprecated"
    }
    return {**used, **params, "scaler": "StandardScaler" if spec.scaled else None}


def _check_candidate(name: str, candidate: Mapping[str, Any]) -> None:
    spec = get_classifier(name)
    valid = spec.tunable()
    for key in candidate:
        if key in spec.fixed or key in _MANAGED:
            raise UsageError(
                f"grids.{name}.{key} is not for a grid: featbench sets it; remove it. Valid: {', '.join(valid)}."
            )
        if key not in valid:
            raise unknown(f"parameter of grids.{name}", key, valid)
    if GAMMA_SCALE in candidate:
        factor = candidate[GAMMA_SCALE]
        if "gamma" in candidate:
            raise UsageError(f"grids.{name} holds both gamma and gamma_scale, which set the same thing; remove one")
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
            raise UsageError(f"grids.{name}.gamma_scale = {factor!r}: give numbers above 0, as in [0.1, 0.3, 1.0]")
    try:
        # The check that fit() starts with; a fit on made-up rows would be the public but slower way to it.
        spec.make(candidate, seed=0, n_features=1)[-1]._validate_params()
    except ValueError as error:
        raise UsageError(f"grids.{name}: {error}") from error
