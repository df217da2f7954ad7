"""`python:module:factory`: a user's own classifier.

`factory()` returns an unfitted scikit-learn classifier, or a Pipeline that ends in one and has the scaling it needs. It
must have `predict_proba` or `decision_function`. The module is looked for in the current folder first. There is no
built-in grid: `evaluate.grids."python:module:factory"` names parameters as `set_params` does.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier

from featbench.classifiers.spec import ClassifierSpec
from featbench.errors import UsageError
from featbench.factories import call_factory, failed, find_factory
from featbench.fingerprint import hash_file

_IMPORTED_HASHES: dict[str, str] = {}  # module -> hash of its file when it was imported


def own_classifier(name: str) -> ClassifierSpec:
    """Import the factory of a `python:module:factory` name, and call it once: models are clones of what it returns.

    Raises:
        UsageError: There is no such module or function, or what it returns is no scikit-learn classifier.
    """
    example = "python:my_classifiers:make"
    module, factory = find_factory(name, example)
    source = _hash(module)
    if _IMPORTED_HASHES.setdefault(module.__name__, source) != source:  # edited since, as in a notebook
        importlib.reload(module)
        _IMPORTED_HASHES[module.__name__] = source
        module, factory = find_factory(name, example)
    prototype = call_factory(name, factory)
    _check(name, prototype)
    return ClassifierSpec(
        name=name,
        summary="a classifier of your own",
        estimator=lambda: clone(prototype),
        converged=converged,
        all_cores=True,
        has_trees=True,
        source=source,
    )


def converged(estimator: Any) -> bool | None:
    """Whether a fitted estimator stopped before its `max_iter`; None where it has no such limit."""
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    n_iter, max_iter = getattr(last, "n_iter_", None), getattr(last, "max_iter", None)
    if n_iter is None or max_iter is None or max_iter < 0 or isinstance(last, HistGradientBoostingClassifier):
        return None
    return bool(np.max(n_iter) < max_iter)


def _hash(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return hash_file(Path(file)) if file else "built in"


def _check(name: str, estimator: Any) -> None:
    if not isinstance(estimator, BaseEstimator) or not is_classifier(estimator):
        raise UsageError(
            f"{name} returns {type(estimator).__name__}; it has to return a scikit-learn classifier "
            "(ClassifierMixin and BaseEstimator), or a Pipeline that ends in one"
        )
    if not hasattr(estimator, "predict_proba") and not hasattr(estimator, "decision_function"):
        raise UsageError(
            f"{name} returns {type(estimator).__name__}, which has neither predict_proba nor decision_function"
        )
    try:
        clone(estimator)
    except Exception as error:
        raise failed(name, "sklearn.base.clone of what it returns", error) from error
