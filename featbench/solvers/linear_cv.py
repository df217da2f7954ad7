"""Linear classifiers that choose C by cross-validation, all values of C and all folds being fitted together."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.model_selection import check_cv
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import validate_data

from featbench.solvers.linear import SVC_CONSTRAINTS, encode_labels
from featbench.solvers.linear_folds import Floats, LinearSettings, fold_scaling
from featbench.solvers.linear_grid import fit_linear, linear_grid

_SEARCH_CONSTRAINTS: dict[str, Any] = {"Cs": ["array-like"], "cv": ["cv_object"], "standardize": ["boolean"]}


class _LinearCV(LinearClassifierMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Choose C by its mean accuracy over folds, the smallest of equals, and fit it on all rows."""

    @abstractmethod
    def _settings(self) -> LinearSettings:
        """Return the parameters, with weights of classes by their places in `classes_`."""

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any) -> Self:
        """Search, then fit on all rows.

        Args:
            X: (N, D) float, finite.
            y: (N,) labels of at least two classes.

        Raises:
            ValueError: There is only one class, in all or in the training rows of a fold, a C is not above 0, or a
                parameter or an array is invalid.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        labels = encode_labels(self, y)
        Cs = np.asarray(self.Cs, dtype=np.float64)
        if Cs.ndim != 1 or not len(Cs) or not (Cs > 0).all():
            raise ValueError(f"Cs must be a sequence of numbers above 0, got {self.Cs!r}")
        splitter = check_cv(self.cv, y, classifier=True)
        splits = [(np.asarray(train), np.asarray(test)) for train, test in splitter.split(X, y)]
        settings = self._settings()
        results = linear_grid(X, labels, splits, Cs.tolist(), settings, self.device, standardize=self.standardize)
        self.scores_ = np.array([[accuracy for accuracy, _ in of_C] for of_C in results]).T
        means = self.scores_.mean(axis=0)
        self.C_ = float(Cs[means == means.max()].min())
        scaling = fold_scaling(X, np.arange(len(X)), self.standardize)
        fitted = fit_linear(X, labels, self.C_, settings, scaling, self.device)
        self.coef_, self.intercept_ = scaling.to_raw(fitted.W, settings.bias)
        self.n_iter_ = int(fitted.n_iter.max())
        if not fitted.converged.all() or not all(converged for of_C in results for _, converged in of_C):
            warnings.warn("the solver did not converge; raise max_iter", ConvergenceWarning, stacklevel=2)
        return self


class LinearSVCCV(_LinearCV):
    """Linear support vector machine (squared hinge, one against the rest) whose C is chosen by cross-validation.

    Chooses and fits as `GridSearchCV(make_pipeline(StandardScaler(), LinearSVC(dual=False)), {"linearsvc__C": Cs},
    cv=cv)` does: each fold is standardised by its own training rows. All folds and classes are fitted as one batch, and
    each C starts from the solution of the next smaller one.

    Args:
        Cs: Weights of the losses against the norm of the weights, to choose from.
        cv: Number of stratified folds, a splitter, or an iterable of (training rows, held-out rows).
        standardize: Whether to standardise features by the training rows, in each fold and in the final fit.
        tol: Of liblinear's stopping rule.
        fit_intercept: Whether there is a bias.
        intercept_scaling: Value of the feature that carries the bias, which is regularised with the weights.
        class_weight: Factors of C: a mapping from class to factor, or "balanced".
        max_iter: Newton steps allowed; there is a ConvergenceWarning if they do not suffice.
        device: Where torch computes, as in "cpu" or "cuda".

    Attributes:
        C_: The value chosen.
        scores_: (n_splits, n_Cs) float64, accuracies on the held-out rows.
        coef_: (n_classes, n_features) float64, for raw features, the standardisation being folded in; one row for two
            classes.
        intercept_: (n_classes,) float64, likewise.
        classes_: (n_classes,), the labels.
        n_iter_: Newton steps of the slowest class in the final fit.
        n_features_in_: Number of features.

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> from featbench.solvers import LinearSVCCV
        >>> X, y = load_digits(return_X_y=True)
        >>> model = LinearSVCCV(Cs=[1e-4, 1e-2], cv=3).fit(X, y)
        >>> model.C_, model.scores_.shape
        (0.01, (3, 2))
    """

    _parameter_constraints: dict[str, Any] = {**_SEARCH_CONSTRAINTS, **SVC_CONSTRAINTS}  # noqa: RUF012

    def __init__(
        self,
        Cs: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        *,
        cv: Any = 5,
        standardize: bool = True,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        class_weight: dict[Any, float] | str | None = None,
        max_iter: int = 1000,
        device: str = "cpu",
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.standardize = standardize
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.device = device

    def _settings(self) -> LinearSettings:
        weights = self.class_weight
        if isinstance(weights, dict):
            weights = {place: weights.get(label, 1.0) for place, label in enumerate(self.classes_.tolist())}
        return LinearSettings.of(self, class_weight=weights)


class SoftmaxRegressionCV(_LinearCV):
    """Multinomial logistic regression whose C is chosen by cross-validation.

    Chooses and fits as `GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C":
    Cs}, cv=cv)` does: each fold is standardised by its own training rows. All folds and values of C are one batch.

    Args:
        Cs: Weights of the losses against the norm of the weights, to choose from.
        cv: Number of stratified folds, a splitter, or an iterable of (training rows, held-out rows).
        standardize: Whether to standardise features by the training rows, in each fold and in the final fit.
        max_iter: Newton steps allowed; there is a ConvergenceWarning if they do not suffice.
        device: Where torch computes, as in "cpu" or "cuda".

    Attributes:
        C_: The value chosen.
        scores_: (n_splits, n_Cs) float64, accuracies on the held-out rows.
        coef_: (n_classes, n_features) float64, for raw features, the standardisation being folded in; one row for two
            classes.
        intercept_: (n_classes,) float64, likewise.
        classes_: (n_classes,), the labels.
        n_iter_: Newton steps of the final fit.
        n_features_in_: Number of features.

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> from featbench.solvers import SoftmaxRegressionCV
        >>> X, y = load_digits(return_X_y=True)
        >>> model = SoftmaxRegressionCV(Cs=[1e-3, 1e-1], cv=3).fit(X, y)
        >>> model.C_, model.predict_proba(X[:2]).shape
        (0.1, (2, 10))
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        **_SEARCH_CONSTRAINTS,
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "device": [str],
    }

    def __init__(
        self,
        Cs: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        *,
        cv: Any = 5,
        standardize: bool = True,
        max_iter: int = 1000,
        device: str = "cpu",
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.standardize = standardize
        self.max_iter = max_iter
        self.device = device

    def _settings(self) -> LinearSettings:
        return LinearSettings.of(self, loss="softmax")

    def predict_log_proba(self, X: Any) -> Floats:
        """Return the logarithms of the class probabilities, (M, n_classes) float64."""
        values = self.decision_function(X)
        values = np.stack([np.zeros(len(values)), values], axis=1) if values.ndim == 1 else values
        return np.asarray(log_softmax(values, axis=1))

    def predict_proba(self, X: Any) -> Floats:
        """Return the class probabilities, (M, n_classes) float64."""
        return np.exp(self.predict_log_proba(X))
