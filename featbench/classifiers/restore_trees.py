"""Forests and boosting restored from a file, node by node: scikit-learn follows nodes without bounds checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn._loss.loss import HalfBinomialLoss, HalfMultinomialLoss
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import NODE_DTYPE, TREE_LEAF, Tree

from featbench.classifiers.skops_file import DamagedError, Limits, Record

Labels = npt.NDArray[np.int64]


def forest(made: RandomForestClassifier, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore a random forest."""
    made.estimators_ = []
    for item in _records(record.items("estimators_")):
        tree = DecisionTreeClassifier()
        tree.tree_ = _tree(item.record("tree_"), limits, len(classes))
        made.estimators_.append(tree)
    for each in (made, *made.estimators_):
        each.n_features_in_, each.n_outputs_, each.n_classes_ = limits.n_features, 1, len(classes)
        each.classes_ = classes
    made.set_params(n_estimators=len(made.estimators_), n_jobs=-1)


def boosting(made: HistGradientBoostingClassifier, record: Record, limits: Limits, classes: Labels) -> None:
    """Restore gradient boosting."""
    k = len(classes)
    columns = 1 if k == 2 else k
    rounds = record.items("_predictors")
    if not all(isinstance(trees, list) and len(trees) == columns for trees in rounds):
        raise DamagedError(f"it does not have {columns} trees a round")
    made._predictors = [[_predictor(tree, limits) for tree in _records(trees)] for trees in rounds]
    made._baseline_prediction = record.floats("_baseline_prediction", (1, columns))
    made._loss = HalfBinomialLoss() if k == 2 else HalfMultinomialLoss(n_classes=k)
    made._bin_mapper = _BinMapper()  # predict asks it which features are categories
    made._bin_mapper.is_categorical_ = np.zeros(limits.n_features, np.uint8)
    made._bin_mapper.bin_thresholds_ = []
    made.n_trees_per_iteration_, made._n_features = columns, limits.n_features
    made._preprocessor = made.is_categorical_ = made._is_categorical_remapped = None


def _records(items: list[Any]) -> list[Record]:
    if not items or not all(isinstance(item, Record) for item in items):
        raise DamagedError("something that is not a tree is in the list of trees")
    return items


def _tree(record: Record, limits: Limits, n_classes: int) -> Any:
    nodes = record.table("nodes", NODE_DTYPE, range(1, 2 * limits.n_rows))
    values = record.floats("values", (len(nodes), 1, n_classes))
    left, right = nodes["left_child"], nodes["right_child"]
    inner = np.flatnonzero((left != TREE_LEAF) | (right != TREE_LEAF))
    _check_children(inner, left[inner], right[inner], len(nodes))
    _check_splits(nodes["feature"][inner], nodes["threshold"][inner], limits.n_features)
    depth = record.plain("max_depth")
    tree = Tree(limits.n_features, np.array([n_classes], np.intp), 1)
    tree.__setstate__(
        {
            "max_depth": depth if isinstance(depth, int) and 0 <= depth < len(nodes) else 0,
            "node_count": len(nodes),
            "nodes": nodes,
            "values": values.astype(np.float64),
        }
    )
    return tree


def _predictor(record: Record, limits: Limits) -> TreePredictor:
    nodes = record.table("nodes", PREDICTOR_RECORD_DTYPE, range(1, 2 * limits.n_rows))
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    _check_children(inner, nodes["left"][inner], nodes["right"][inner], len(nodes))
    _check_splits(nodes["feature_idx"][inner], nodes["num_threshold"][inner], limits.n_features)
    if nodes["is_categorical"].any() or not np.isfinite(nodes["value"]).all():
        raise DamagedError("a tree has categorical splits, or a value that is not finite")
    none = np.zeros((0, 8), np.uint32)
    return TreePredictor(nodes, none, none)


def _check_children(inner: npt.NDArray[Any], left: npt.NDArray[Any], right: npt.NDArray[Any], n_nodes: int) -> None:
    """Refuse trees whose traversal would leave their memory, or never end."""
    for side in (left, right):
        if ((side <= inner) | (side >= n_nodes)).any():
            raise DamagedError("a tree's node has a child that does not come after it")


def _check_splits(feature: npt.NDArray[Any], threshold: npt.NDArray[Any], n_features: int) -> None:
    if ((feature < 0) | (feature >= n_features)).any():
        raise DamagedError("a tree splits on a feature that does not exist")
    if not np.isfinite(threshold).all():
        raise DamagedError("a tree has a threshold that is not finite")
