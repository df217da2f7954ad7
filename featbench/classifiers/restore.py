"""Fitted models made again from the arrays in their files: of each type only what a function here reads, checked.

Everything else in a file is ignored, so that it can neither crash scikit-learn's code, which is compiled without bounds
checks, nor replace a method. A classifier's row in the registry names its functions (`ClassifierSpec.restore`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelBinarizer, Normalizer, StandardScaler
from sklearn.svm import SVC

from featbench.classifiers.skops_file import DamagedError, Limits, Record
from featbench.classifiers.spec import MANAGED, Labels, Restore
from featbench.classifiers.transforms import SignedSquareRoot
from featbench.solvers.neighbours import NearestNeighbours

_NOT_RESTORED = (*MANAGED, "device", "copy", "copy_X")


class ForeignError(Exception):
    """The file holds a type that nothing here restores; the message is its name."""


def restore_pipeline(record: Record, limits: Limits, types: Mapping[type, Restore]) -> Pipeline:
    """Make a fitted pipeline from a file's.

    Args:
        record: The pipeline in the file.
        limits: What is known of the model.
        types: How each type is restored.

    Raises:
        ForeignError: It holds another type.
        DamagedError: A number is impossible in a model of such a type.
    """
    parts = _parts(record, limits, types)
    if not hasattr(parts[-1], "classes_"):
        raise DamagedError("it ends without a classifier")
    return make_pipeline(*parts)


def _parts(record: Record, limits: Limits, types: Mapping[type, Restore]) -> list[Any]:
    if not _is(record, Pipeline):
        raise ForeignError(record.type_name)
    parts: list[Any] = []
    width = limits.n_features
    for _, step in _pairs(record):
        within = replace(limits, n_features=width)
        made = _parts(step, within, types) if _is(step, Pipeline) else [_make(step, within, types)]
        width = _width_after(made, width)
        parts += made
    if not parts:
        raise DamagedError("it has no steps")
    return parts


def _pairs(record: Record) -> list[tuple[Any, Record]]:
    pairs = record.items("steps")
    if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], Record) for pair in pairs):
        raise DamagedError("its steps are no pairs")
    return [(name, step) for name, step in pairs]


def _width_after(made: list[Any], width: int) -> int:
    for part in made:
        width = part.n_components_ if isinstance(part, PCA) else width
    return width


def _is(record: Record, kind: type) -> bool:
    """Whether a file's type is this one; its module changes from version to version."""
    package, _, rest = record.type_name.partition(".")
    return package == kind.__module__.partition(".")[0] and rest.rpartition(".")[2] == kind.__name__


def _make(record: Record, limits: Limits, types: Mapping[type, Restore]) -> Any:
    known = [kind for kind in types if _is(record, kind)]
    if not known:
        raise ForeignError(record.type_name)
    restore = types[known[0]]
    width = record.plains(["n_features_in_"]).get("n_features_in_", limits.n_features)  # older files may lack it
    if width != limits.n_features:
        raise DamagedError(f"it was trained on {width} features, and its card is of {limits.n_features}")
    made = _unfitted(known[0], record)
    made.n_features_in_ = limits.n_features
    if hasattr(made, "predict"):
        classes = record.ints("classes_", (range(1, limits.n_classes + 1),), range(limits.n_classes))
        if (np.diff(classes) <= 0).any():
            raise DamagedError("its classes are not in order")
        # in some versions of scikit-learn a property, computed from what `restore` sets
        if not isinstance(getattr(type(made), "classes_", None), property):
            made.classes_ = classes
        restore(made, record, limits, classes)
    else:
        restore(made, record, limits, np.empty(0, np.int64))
    return made


def _unfitted(estimator: type, record: Record) -> Any:
    """Make an estimator with those parameters of a file that are plain values; scikit-learn checks them."""
    made = estimator()
    params = record.plains([name for name in made.get_params(deep=False) if name not in _NOT_RESTORED])
    try:
        made.set_params(**params)
        if hasattr(made, "_parameter_constraints"):  # what fit() starts with
            made._validate_params()
    except (ValueError, TypeError) as error:
        raise DamagedError(str(error)) from error
    return made


def stateless(made: Any, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore what learns nothing from rows."""


def scaler(made: StandardScaler, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore a scaler."""
    shape = (limits.n_features,)
    made.mean_ = record.floats("mean_", shape) if record.has("mean_") else None
    made.var_ = record.floats("var_", shape) if record.has("var_") else None
    made.scale_ = record.floats("scale_", shape) if record.has("scale_") else None
    needed = (made.mean_ is None and made.with_mean) or (made.scale_ is None and made.with_std)
    if needed or (made.scale_ is not None and not (made.scale_ > 0).all()):
        raise DamagedError("a scaler has no mean, or no scale above 0")


def pca(made: PCA, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore principal components."""
    d = limits.n_features
    made.components_ = record.floats("components_", (range(1, d + 1), d))
    made.n_components_ = len(made.components_)
    made.mean_ = record.floats("mean_", (d,))
    made.explained_variance_ = record.floats("explained_variance_", (made.n_components_,))
    if (made.explained_variance_ < 0).any():
        raise DamagedError("a variance is below 0")


def linear(made: Any, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore a linear model, (n_classes, n_features) or one row for two classes."""
    rows = 1 if len(classes) == 2 else len(classes)
    flat = record.n_axes("coef_") == 1 and rows == 1  # RidgeClassifier with two classes
    made.coef_ = record.floats("coef_", (limits.n_features,) if flat else (rows, limits.n_features))
    if record.plains(["intercept_"]):  # without a bias it is the number 0
        made.intercept_ = 0.0
    else:
        made.intercept_ = record.floats("intercept_", (rows,))


def ridge(made: RidgeClassifier, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore a ridge classifier."""
    linear(made, record, limits, classes)
    made._label_binarizer = LabelBinarizer(neg_label=-1, pos_label=1).fit(classes)


def naive_bayes(made: GaussianNB, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore Gaussian naive Bayes."""
    k, d = len(classes), limits.n_features
    made.theta_, made.var_ = record.floats("theta_", (k, d)), record.floats("var_", (k, d))
    made.class_prior_ = record.floats("class_prior_", (k,))
    if not ((made.var_ > 0).all() and (made.class_prior_ > 0).all()):
        raise DamagedError("a variance or a prior is not above 0")


def svc(made: SVC, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore a support vector machine with a kernel."""
    k, d = len(classes), limits.n_features
    made.support_vectors_ = record.floats("support_vectors_", (range(1, limits.n_rows + 1), d))
    n_vectors = len(made.support_vectors_)
    allowed = range(limits.n_rows + 1)
    made.support_ = record.ints("support_", (n_vectors,), range(limits.n_rows)).astype(np.int32)
    made._n_support = record.ints("_n_support", (k,), allowed).astype(np.int32)
    if made._n_support.sum() != n_vectors:
        raise DamagedError("its support vectors do not add up to those of its classes")
    pairs = (k * (k - 1) // 2,)
    for name in ("dual_coef_", "_dual_coef_"):
        setattr(made, name, record.floats(name, (k - 1, n_vectors)))
    for name in ("intercept_", "_intercept_"):
        setattr(made, name, record.floats(name, pairs))
    for name in ("_probA", "_probB"):
        setattr(made, name, record.floats(name, (range(pairs[0] + 1),)))
        if getattr(made, name).shape not in ((0,), pairs):
            raise DamagedError(f"{name} is of another shape")
    plain = record.plains(["_gamma", "_effective_probability"])
    gamma = plain.get("_gamma")
    if not isinstance(gamma, float | int) or not 0 <= gamma < np.inf:
        raise DamagedError(f"its gamma is {gamma!r}")
    made._gamma, made._effective_probability = float(gamma), bool(plain.get("_effective_probability"))
    made._sparse, made.fit_status_, made.class_weight_, made.shape_fit_ = False, 0, np.ones(k), (limits.n_rows, d)


def neighbours(made: NearestNeighbours, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore featbench's nearest neighbours."""
    made.X_ = record.floats("X_", (range(made.n_neighbors, limits.n_rows + 1), limits.n_features))
    made.y_ = record.ints("y_", (len(made.X_),), range(len(classes)))
    made.mean_ = record.floats("mean_", (limits.n_features,))


def sklearn_neighbours(made: KNeighborsClassifier, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore scikit-learn's nearest neighbours, by a fit on the rows that they hold."""
    X = record.floats("_fit_X", (range(made.n_neighbors, limits.n_rows + 1), limits.n_features))
    y = record.ints("_y", (len(X),), range(len(classes)))
    if record.has("metric_params"):
        found = record.mapping("metric_params")
        made.metric_params = found.plains(list(found.names))
    made.set_params(n_jobs=-1)
    try:
        made.fit(X, classes[y])
    except (ValueError, TypeError) as error:
        raise DamagedError(str(error)) from error


TRANSFORMS: dict[type, Restore] = {StandardScaler: scaler, PCA: pca, Normalizer: stateless, SignedSquareRoot: stateless}
