"""scikit-learn's LinearSVC(loss="squared_hinge", dual=False), fitted by the batched primal solver (`newton`)."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.svm import LinearSVC
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from featbench.solvers.hessians import Hessians
from featbench.solvers.linear_path import beside, fit_path, rows_pay
from featbench.solvers.problem import Problem, columns_at_once
from featbench.solvers.products import EXACT_BELOW, SharedRows, precondition

_GAP = 1e-6  # of the objective, how far above its minimum it may still be: liblinear's rule alone allows percents
_FROM = 100  # times smaller is the C to come from


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
        max_iter: Newton steps allowed; a ConvergenceWarning tells that they did not do.
        device: Where torch computes, as in "cpu" or "cuda".

    Attributes:
        coef_: (n_classes, n_features) float64; one row for two classes.
        intercept_: (n_classes,) float64; 0.0 without a bias.
        classes_: (n_classes,), the labels.
        n_iter_: Newton steps of the slowest class.
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 (the name and the type are scikit-learn's)
        "C": [Interval(Real, 0.0, None, closed="neither")],
        "tol": [Interval(Real, 0.0, None, closed="neither")],
        "fit_intercept": ["boolean"],
        "intercept_scaling": [Interval(Real, 0.0, None, closed="neither")],
        "class_weight": [None, dict, StrOptions({"balanced"})],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "device": [str],
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
            ValueError: There is only one class, or a parameter or an array is not what it must be.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if len(np.unique(labels[weights > 0])) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
                f"{self.classes_[0]!r}"
            )
        used = weights > 0
        factors = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=weights)
        n, d = int(used.sum()), X.shape[1]
        device = torch.device(self.device)
        target, weight = (torch.from_numpy(part[used]).to(device) for part in (labels, weights))
        scaling = float(self.intercept_scaling) if self.fit_intercept else 0.0
        rows = SharedRows(torch.from_numpy(X[used]).to(device), None, None, scaling)
        in_rows = rows_pay(n, n, d)
        preconditioner = None if in_rows else precondition(rows.X, scaling)
        # On the way to a large C, wide features come to where few rows are inside the margin.
        Cs = [self.C] if in_rows or d < EXACT_BELOW else [self.C / _FROM, self.C]
        parts = []
        size, end = columns_at_once(n, device), len(self.classes_)
        for start in range(1 if end == 2 else 0, end, size):
            columns = torch.arange(start, min(start + size, end))
            problem = _problem(rows, target, weight, torch.from_numpy(factors), columns)
            hessians = Hessians(preconditioner) if preconditioner else None
            group = slice(0, len(columns))
            parts.append(fit_path(problem, [group], Cs, self.tol, self.max_iter, _GAP, hessians)[-1])
        solution = beside(parts)
        fitted = solution.W.T.cpu().numpy()
        self.coef_ = np.ascontiguousarray(fitted[:, :-1])
        self.intercept_ = fitted[:, -1] * self.intercept_scaling if self.fit_intercept else 0.0
        self.n_iter_ = int(solution.n_iter.max()) if solution.converged.all() else self.max_iter
        if not solution.converged.all():
            warnings.warn("the solver did not converge; raise max_iter", ConvergenceWarning, stacklevel=2)
        return self

    def to_sklearn(self) -> LinearSVC:
        """Return the fitted scikit-learn estimator that predicts the same, to be saved without a class of ours."""
        check_is_fitted(self)
        names = ("C", "tol", "fit_intercept", "intercept_scaling", "class_weight", "max_iter")
        model = LinearSVC(dual=False, **{name: getattr(self, name) for name in names})
        for name in ("coef_", "intercept_", "classes_", "n_iter_", "n_features_in_"):
            setattr(model, name, getattr(self, name))
        return model


def _problem(rows: SharedRows, labels: Tensor, weights: Tensor, factors: Tensor, classes: Tensor) -> Problem:
    """Make a problem of some classes, a column each against the rest.

    Args:
        rows: (N, D).
        labels: (N,) int64.
        weights: (N,) float64.
        factors: (n_classes,) float64, the class weights. As in liblinear, with more than two classes that is the weight
            of the class's own rows in its own column; the one column of two classes has both.
        classes: (K,) int64, whose columns are wanted.
    """
    device, dtype = rows.X.device, rows.X.dtype
    kin, own = classes.to(device), factors[classes].to(device)
    others = factors[:1].to(device) if len(factors) == 2 else torch.ones_like(own)
    is_positive = labels[:, None] == kin
    costs = torch.where(is_positive, own, others) * weights[:, None]
    return Problem(rows, torch.where(is_positive, 1.0, -1.0).to(dtype), costs.to(dtype), kin)
