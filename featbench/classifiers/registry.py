"""The classifiers: what each is, how it is made, which hyper-parameters are searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import ParameterGrid
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from featbench.classifiers.own import converged, own_classifier
from featbench.classifiers.transforms import check_steps
from featbench.config import EvaluateConfig
from featbench.errors import UsageError, unknown
from featbench.factories import PREFIX

GAMMA_SCALE = "gamma_scale"
_MANAGED = ("random_state", "n_jobs", "verbose", "warm_start", "oob_score", "cache_size")  # by featbench, not by a grid
_WITHOUT_EFFECT_ON_THE_ANSWER = ("n_jobs", "verbose", "cache_size", "oob_score", "warm_start", "device", "copy_X")


@dataclass(frozen=True)
class ClassifierSpec:
    """A classifier.

    Attributes:
        summary: What it is, in one line.
        estimator: The scikit-learn class.
        fixed: Parameters that featbench sets, whatever the grid.
        grid: The built-in hyper-parameter grid: parameter -> values, in the order in which ties are decided.
        scaled: Whether features are standardised first; the scaler is fitted on the rows that the classifier is.
        seeded: Whether the method itself draws random numbers, so that repeats differ by its seed alone.
        out_of_bag: Whether the out-of-bag score on all training rows stands in for folds.
        gamma_scale: Whether `gamma_scale` is a parameter: gamma as a multiple of 1 / (number of features), which is
            scikit-learn's gamma="scale" on standardised features none of which is constant.
        converged: Says of a fitted estimator whether its solver converged; None where there is no such notion.
        all_cores: Whether one fit takes all cores itself, so that fits run one after another.
        source: Of a classifier of the user's own, a hash of the file it comes from.
    """

    summary: str
    estimator: Callable[..., Any]
    fixed: Mapping[str, Any]
    grid: Mapping[str, tuple[Any, ...]]
    scaled: bool = False
    seeded: bool = False
    out_of_bag: bool = False
    gamma_scale: bool = False
    converged: Callable[[Any], bool | None] = lambda estimator: None
    all_cores: bool = False
    source: str | None = None

    def make(self, params: Mapping[str, Any], seed: int, n_features: int) -> Pipeline:
        """Make the unfitted pipeline; its last step is the classifier.

        Args:
            params: Hyper-parameters; what is not named keeps scikit-learn's default.
            seed: Of a method that draws random numbers; the others have no use for it.
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
        names = [name for name in self.estimator().get_params() if name not in (*_MANAGED, *self.fixed)]
        return [*names, GAMMA_SCALE] if self.gamma_scale else names


def _below_max_iter(estimator: Any) -> bool:
    return bool(np.max(estimator.n_iter_) < estimator.max_iter)


CLASSIFIERS: dict[str, ClassifierSpec] = {
    "linear_svc": ClassifierSpec(
        summary="linear support vector machine, squared hinge loss, one against the rest, standardised features",
        estimator=LinearSVC,
        fixed={"dual": False},  # the primal is convex and draws no random numbers, the dual's coordinate descent does
        # Up to 0.1: beyond it liblinear's primal takes five times as long, often does not converge, and gains nothing
        # on correlated features. Down to 1e-6: C weighs a sum over rows, so that large sets want small ones.
        grid={"C": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)},
        scaled=True,
        converged=_below_max_iter,
    ),
    "svm_rbf": ClassifierSpec(
        summary="support vector machine with a Gaussian kernel, one against one, standardised features",
        estimator=SVC,
        # Ties of votes are broken by decision values, so that the class predicted is the one with the highest score.
        fixed={"kernel": "rbf", "decision_function_shape": "ovr", "break_ties": True},
        grid={"C": (1.0, 10.0, 100.0), GAMMA_SCALE: (0.1, 0.3, 1.0)},
        scaled=True,
        gamma_scale=True,
        converged=lambda estimator: bool(estimator.fit_status_ == 0),
    ),
    "random_forest": ClassifierSpec(
        summary="random forest of 300 trees on features as they are",
        estimator=RandomForestClassifier,
        fixed={"bootstrap": True},  # without it there is no out-of-bag score
        grid={"n_estimators": (300,), "max_features": ("log2", "sqrt"), "min_samples_leaf": (1, 3)},
        seeded=True,
        out_of_bag=True,
        all_cores=True,
    ),
    "logistic_regression": ClassifierSpec(
        summary="multinomial logistic regression, L2 penalty, standardised features; probabilities",
        estimator=LogisticRegression,
        fixed={"solver": "lbfgs"},
        # scikit-learn's 100 iterations are too few for features of a few hundred numbers.
        grid={"C": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), "max_iter": (1000,)},
        scaled=True,
        converged=_below_max_iter,
    ),
    "knn": ClassifierSpec(
        summary="k nearest neighbours by angle or distance, votes weighted by nearness, on features as they are",
        estimator=KNeighborsClassifier,
        fixed={"algorithm": "brute"},  # exact; trees do not help at hundreds of features
        grid={"metric": ("cosine", "euclidean"), "n_neighbors": (1, 3, 5, 10, 20), "weights": ("distance",)},
        all_cores=True,
    ),
    "ridge": ClassifierSpec(
        summary="ridge regression on the labels, one against the rest, standardised features",
        estimator=RidgeClassifier,
        fixed={"solver": "cholesky"},  # direct: nothing to converge, no random numbers
        grid={"alpha": (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)},
        scaled=True,
    ),
    "lda": ClassifierSpec(
        summary="linear discriminant analysis with a shrunk covariance, standardised features; probabilities",
        estimator=LinearDiscriminantAnalysis,
        fixed={"solver": "lsqr"},  # the one that shrinks, and does with more features than rows
        grid={"shrinkage": ("auto", 0.01, 0.1, 0.5)},  # auto: Ledoit and Wolf's
        scaled=True,
    ),
    "gaussian_nb": ClassifierSpec(
        summary="gaussian naive Bayes, standardised features; probabilities, which it overstates",
        estimator=GaussianNB,
        fixed={},
        grid={"var_smoothing": (1e-9, 1e-3, 1e-2, 1e-1, 1.0)},  # shares of the largest variance, here about 1
        scaled=True,
    ),
    "gradient_boosting": ClassifierSpec(
        summary="gradient boosting of trees on histograms, on features as they are; probabilities",
        estimator=HistGradientBoostingClassifier,
        fixed={},
        # Above 10,000 rows scikit-learn holds a tenth of them out, and stops when it no longer gains there.
        grid={"learning_rate": (0.1,), "max_iter": (100,), "max_leaf_nodes": (7, 31)},
        all_cores=True,
    ),
}


def _unset(estimator: Any, name: str) -> list[str]:
    """List the parameters of this name, of an estimator and of the parts of a pipeline, that are None."""
    given = estimator.get_params().items()
    return [key for key, value in given if value is None and key.rpartition("__")[2] == name]


def get_classifier(name: str) -> ClassifierSpec:
    """Look a classifier up: a key of `CLASSIFIERS`, or `python:module:factory`.

    Raises:
        UsageError: There is none of that name.
    """
    if name.startswith(PREFIX):
        own = own_classifier(name)
        return ClassifierSpec(
            "a classifier of your own", own.make, {}, {}, converged=converged, all_cores=True, source=own.source
        )
    if name not in CLASSIFIERS:
        raise unknown("classifier", name, CLASSIFIERS)
    return CLASSIFIERS[name]


def n_trees(name: str, params: Mapping[str, Any], n_classes: int) -> int:
    """Return how many trees a model with these parameters has at most; a classifier of one's own may have some."""
    if name in CLASSIFIERS and name not in ("random_forest", "gradient_boosting"):
        return 0
    trees = {"n_estimators": 1, "max_iter": n_classes}
    counts = [value * trees.get(key.rpartition("__")[2], 0) for key, value in params.items() if isinstance(value, int)]
    return sum(count for count in counts if count > 0)


def check_grids(config: EvaluateConfig) -> None:
    """Check the names of classifiers and steps and everything in `evaluate.grids`, before any work is done.

    Raises:
        UsageError: A classifier or a parameter does not exist, is featbench's own to set, or has a value that
            scikit-learn refuses; or a step is wrong.
    """
    for steps in config.steps:
        check_steps(steps)
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
    used = {
        key: _plain(value)
        for key, value in model[-1].get_params().items()
        if key.rpartition("__")[2] not in _WITHOUT_EFFECT_ON_THE_ANSWER
        and not (isinstance(value, str) and value == "deprecated")  # scikit-learn marks those on their way out by this
        and not (spec.source and key in ("steps", "transform_input"))  # a pipeline's; its parts follow by name
    }
    return {**used, **params, "scaler": "StandardScaler" if spec.scaled else None}


def _plain(value: Any) -> Any:
    """Turn a parameter's value into what JSON can hold; objects become what `repr` says of them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    plain = value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and np.isfinite(value))
    return value if plain else repr(value)


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
        estimator = spec.make(candidate, seed=0, n_features=1)[-1]
        if hasattr(estimator, "_parameter_constraints"):  # all but those of users' own classes
            # The check that fit() starts with; a fit on made-up rows would be the public but slower way to it.
            estimator._validate_params()
    except ValueError as error:
        raise UsageError(f"grids.{name}: {error}") from error
