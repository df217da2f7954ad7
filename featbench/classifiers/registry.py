"""The classifiers: a row each, which names its grid, its solver and how its saved models are read.

A new classifier is a new row; nothing else has to know of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from featbench.classifiers import restore
from featbench.classifiers.fast_solvers import KNN, LINEAR_SVC, LOGISTIC, RIDGE, rbf_solver
from featbench.classifiers.own import own_classifier
from featbench.classifiers.restore_trees import boosting, forest
from featbench.classifiers.spec import GAMMA_SCALE, ClassifierSpec
from featbench.errors import unknown
from featbench.factories import PREFIX
from featbench.solvers.neighbours import NearestNeighbours


def _below_max_iter(estimator: Any) -> bool:
    return bool(np.max(estimator.n_iter_) < estimator.max_iter)


_ROWS = (
    ClassifierSpec(
        name="linear_svc",
        summary="linear support vector machine, squared hinge loss, one against the rest, standardised features",
        estimator=LinearSVC,
        fixed={"dual": False},  # the primal is convex and draws no random numbers, the dual's coordinate descent does
        # Up to 0.1: beyond it liblinear's primal takes five times as long, often does not converge, and gains nothing
        # on correlated features. Down to 1e-6: C weights a sum over rows, so that large sets need small ones.
        grid={"C": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)},
        scaled=True,
        converged=_below_max_iter,
        solver=LINEAR_SVC,
        restore={LinearSVC: restore.linear},
    ),
    ClassifierSpec(
        name="svm_rbf",
        summary="support vector machine with a Gaussian kernel, one against one, standardised features",
        estimator=SVC,
        # Ties of votes are broken by decision values, so that the class predicted is the one with the highest score.
        fixed={"kernel": "rbf", "decision_function_shape": "ovr", "break_ties": True},
        grid={"C": (1.0, 10.0, 100.0), GAMMA_SCALE: (0.1, 0.3, 1.0)},
        scaled=True,
        gamma_scale=True,
        converged=lambda estimator: bool(estimator.fit_status_ == 0),
        solver=rbf_solver(),
        restore={SVC: restore.svc},
    ),
    ClassifierSpec(
        name="random_forest",
        summary="random forest of 300 trees on features as they are",
        estimator=RandomForestClassifier,
        fixed={"bootstrap": True},  # without it there is no out-of-bag score
        grid={"n_estimators": (300,), "max_features": ("log2", "sqrt"), "min_samples_leaf": (1, 3)},
        seeded=True,
        out_of_bag=True,
        all_cores=True,
        has_trees=True,
        restore={RandomForestClassifier: forest},
    ),
    ClassifierSpec(
        name="logistic_regression",
        summary="multinomial logistic regression, L2 penalty, standardised features; probabilities",
        estimator=LogisticRegression,
        fixed={"solver": "lbfgs"},
        # scikit-learn's 100 iterations are too few for features of a few hundred numbers.
        grid={"C": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), "max_iter": (1000,)},
        scaled=True,
        converged=_below_max_iter,
        solver=LOGISTIC,
        restore={LogisticRegression: restore.linear},
    ),
    ClassifierSpec(
        name="knn",
        summary="k nearest neighbours by angle or distance, votes weighted by nearness, on features as they are",
        estimator=KNeighborsClassifier,
        fixed={"algorithm": "brute"},  # exact; trees do not help at hundreds of features
        grid={"metric": ("cosine", "euclidean"), "n_neighbors": (1, 3, 5, 10, 20), "weights": ("distance",)},
        all_cores=True,
        min_rows=lambda params: int(params.get("n_neighbors", 5)),
        solver=KNN,
        restore={NearestNeighbours: restore.neighbours, KNeighborsClassifier: restore.sklearn_neighbours},
    ),
    ClassifierSpec(
        name="ridge",
        summary="ridge regression on the labels, one against the rest, standardised features",
        estimator=RidgeClassifier,
        fixed={"solver": "cholesky"},  # direct: nothing to converge, no random numbers
        grid={"alpha": (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)},
        scaled=True,
        solver=RIDGE,
        restore={RidgeClassifier: restore.ridge},
    ),
    ClassifierSpec(
        name="lda",
        summary="linear discriminant analysis with a shrunk covariance, standardised features; probabilities",
        estimator=LinearDiscriminantAnalysis,
        fixed={"solver": "lsqr"},  # the one that shrinks, and works with more features than rows
        grid={"shrinkage": ("auto", 0.01, 0.1, 0.5)},  # auto: Ledoit and Wolf's
        scaled=True,
        restore={LinearDiscriminantAnalysis: restore.linear},
    ),
    ClassifierSpec(
        name="gaussian_nb",
        summary="gaussian naive Bayes, standardised features; probabilities, which it overstates",
        estimator=GaussianNB,
        grid={"var_smoothing": (1e-9, 1e-3, 1e-2, 1e-1, 1.0)},  # shares of the largest variance, here about 1
        scaled=True,
        restore={GaussianNB: restore.naive_bayes},
    ),
    ClassifierSpec(
        name="gradient_boosting",
        summary="gradient boosting of trees on histograms, on features as they are; probabilities",
        estimator=HistGradientBoostingClassifier,
        # Above 10,000 rows scikit-learn holds a tenth of them out, and stops when it no longer gains there.
        grid={"learning_rate": (0.1,), "max_iter": (100,), "max_leaf_nodes": (7, 31)},
        all_cores=True,
        has_trees=True,
        restore={HistGradientBoostingClassifier: boosting},
    ),
)
CLASSIFIERS: dict[str, ClassifierSpec] = {spec.name: spec for spec in _ROWS}


def get_classifier(name: str) -> ClassifierSpec:
    """Look a classifier up: a key of `CLASSIFIERS`, or `python:module:factory`, which is imported and called once.

    Raises:
        UsageError: There is none of that name.
    """
    if name.startswith(PREFIX):
        return own_classifier(name)
    if name not in CLASSIFIERS:
        raise unknown("classifier", name, CLASSIFIERS)
    return CLASSIFIERS[name]


def n_trees(name: str, params: Mapping[str, Any], n_classes: int) -> int:
    """Return how many trees a model with these parameters has at most; a user's own classifier may have some."""
    if name in CLASSIFIERS and not CLASSIFIERS[name].has_trees:
        return 0
    trees = {"n_estimators": 1, "max_iter": n_classes}
    counts = [value * trees.get(key.rpartition("__")[2], 0) for key, value in params.items() if isinstance(value, int)]
    return sum(count for count in counts if count > 0)
