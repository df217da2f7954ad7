"""scikit-learn's LinearSVC(loss="squared_hinge", dual=False), fitted by the batched primal solver (`newton`)."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from featbench.solvers.linear_folds import LinearSettings, Scaling
from featbench.solvers.linear_grid import fit_linear

SVC_CONSTRAINTS: dict[str, Any] = {
    "tol": [Interval(Real, 0.0, None, closed="neither")],
    "fit_intercept": ["boolean"],
    "intercept_scaling": [Interval(Real, 0.0, None, closed="neither")],
    "class_weight": [None, dict, StrOptions({"balanced"})],
    "max_iter": [Interval(Integral, 0, None, closed="left")],
    "device": [str],
}


class PrimalLinearSVC(LinearClassifierMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Linear support vector machine with the squared hinge loss, one against the rest.

    The parameters and their meaning are those of `sklearn.svm.LinearSVC`; so are `coef_`, `intercept_` and `classes_`.
    float32 features stay float32 in the steps of the conjugate gradients; all else is float64.

    Args:
        C: Weight of the losses against the norm of the weights.
        tol: Of liblinear's stopping rule.
        fit_intercept: Whether there is a bias.
        intercept_scaling: Value of the feature that carries the bias, which is regularised with the weights.
        class_weight: Factors of C: a mapping from class to factor, or "balanced".
        max_iter: Newton steps allowed; there is a ConvergenceWarning if they do not suffice.
        device: Where torch computes, as in "cpu" or "cuda".

    Attributes:
        coef_: (n_classes, n_features) float64; one row for two classes.
        intercept_: (n_classes,) float64; 0.0 without a bias.
        classes_: (n_classes,), the labels.
        n_iter_: Newton steps of the slowest class.
        n_features_in_: Number of features.

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> from featbench.solvers import PrimalLinearSVC
        >>> X, y = load_digits(return_X_y=True)
        >>> model = PrimalLinearSVC(C=0.01).fit(X / 16, y)
        >>> round(model.score(X / 16, y), 2)
        0.96
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 (the name and the type are scikit-learn's)
        "C": [Interval(Real, 0.0, None, closed="neither")],
        **SVC_CONSTRAINTS,
    }

    def __init__(
        self,
        *,
        C: float = 1.0,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        class_weight: dict[Any, float] | str | None = None,
        max_iter: int = 1000,
        device: str = "cpu",
    ) -> None:
        self.C = C
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Fit.

        Args:
            X: (N, D) float, finite.
            y: (N,) labels of at least two classes.
            sample_weight: (N,) float, factors of C; all 1 where None.

        Raises:
            ValueError: There is only one class, or a parameter or an array is invalid.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        used = weights > 0
        labels = encode_labels(self, y, used)
        factors = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=weights)
        settings = LinearSettings.of(self, class_weight=dict(enumerate(factors)))
        scaling = Scaling.identity(X.shape[1])
        rows, labels, weights = X[used], labels[used], weights[used]
        fitted = fit_linear(rows, labels, self.C, settings, scaling, self.device, sample_weight=weights)
        self.coef_, intercept = scaling.to_raw(fitted.W, settings.bias)
        self.intercept_ = intercept if self.fit_intercept else 0.0
        self.n_iter_ = int(fitted.n_iter.max()) if fitted.converged.all() else self.max_iter
        if not fitted.converged.all():
            warnings.warn("the solver did not converge; raise max_iter", ConvergenceWarning, stacklevel=2)
        return self


def encode_labels(estimator: Any, y: Any, used: npt.NDArray[np.bool_] | slice = slice(None)) -> npt.NDArray[np.int64]:
    """Set an estimator's `classes_`, and return labels (N,) int64 as their places there.

    Raises:
        ValueError: There is only one class among the rows used, or the labels are not of classes.
    """
    check_classification_targets(y)
    estimator.classes_, labels = np.unique(y, return_inverse=True)
    if len(np.unique(labels[used])) < 2:
        raise ValueError(
            "This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
            f"{estimator.classes_[0]!r}"
        )
    return np.asarray(labels, np.int64)
