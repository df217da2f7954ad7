"""Numerical methods as scikit-learn estimators; they know nothing of featbench but its errors.

    from featbench.solvers import LinearSVCCV

Names load when they are used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_MODULES = {
    "LinearSVCCV": "featbench.solvers.linear_cv",
    "NearestNeighbours": "featbench.solvers.neighbours",
    "PrimalLinearSVC": "featbench.solvers.linear",
    "RBFSVCCV": "featbench.solvers.rbf",
    "SoftmaxRegressionCV": "featbench.solvers.linear_cv",
}
__all__ = ["RBFSVCCV", "LinearSVCCV", "NearestNeighbours", "PrimalLinearSVC", "SoftmaxRegressionCV"]

if TYPE_CHECKING:
    from featbench.solvers.linear import PrimalLinearSVC
    from featbench.solvers.linear_cv import LinearSVCCV, SoftmaxRegressionCV
    from featbench.solvers.neighbours import NearestNeighbours
    from featbench.solvers.rbf import RBFSVCCV


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'featbench.solvers' has no attribute {name!r}; it has {', '.join(__all__)}")
