from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.rows import LabelledFeatures
from featbench.classifiers.transforms import STEPS, SignedSquareRoot, check_steps, fit_steps, label
from featbench.config import EvaluateConfig
from featbench.errors import UsageError

Digits = Callable[[int, int], LabelledFeatures]
X = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32) + 1
EXAMPLES = {"pca": "pca:3", "pca_whiten": "pca_whiten:0.9"}


@parametrize_with_checks([SignedSquareRoot()])
def test_it_is_a_transformer_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_the_signed_square_root() -> None:
    assert SignedSquareRoot().fit_transform([[-4.0, 0.0, 9.0]]).tolist() == [[-2.0, 0.0, 3.0]]


def test_what_each_step_does() -> None:
    rows = {name: fit_steps([EXAMPLES.get(name, name)], X, 0).transform(X) for name in STEPS}
    np.testing.assert_allclose(np.linalg.norm(rows["l2"], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(rows["power"] * np.abs(rows["power"]), X, rtol=1e-5)
    np.testing.assert_allclose(rows["standardize"].std(axis=0), 1, rtol=1e-5)
    centred = X - X.mean(axis=0)
    _, _, axes = np.linalg.svd(centred)
    np.testing.assert_allclose(np.abs(rows["pca"]), np.abs(centred @ axes[:3].T), atol=1e-5)
    np.testing.assert_allclose(np.cov(rows["pca_whiten"].T), np.eye(rows["pca_whiten"].shape[1]), atol=1e-5)
    assert rows["pca_whiten"].shape[1] < 8


def test_steps_come_in_the_order_given() -> None:
    both = fit_steps(["power", "l2"], X, 0).transform(X)
    np.testing.assert_allclose(both, Normalizer().fit_transform(np.sign(X) * np.sqrt(np.abs(X))), rtol=1e-6)
    assert (label(["power", "l2"]), label([])) == ("power+l2", None)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("l3", "unknown step 'l3'; did you mean 'l2'"),
        ("l2:3", "the step 'l2:3' takes nothing after its name"),
        ("pca", "the step 'pca' needs the number of components, or the share"),
        ("pca:0", "the step 'pca:0' needs"),
        ("pca:1.5", "the step 'pca:1.5' needs"),
        ("pca:-3", "the step 'pca:-3' needs"),
        ("pca_whiten:many", "as in pca_whiten:128 or pca_whiten:0.95"),
    ],
)
def test_a_wrong_step_is_refused(step: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_steps([step])


def test_more_components_than_rows_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"steps = \['pca:9'\] cannot be fitted on 50 rows of 8 features: n_components=9 .* fits"
    ):
        fit_steps(["pca:9"], X, 0)


ROOT = FunctionTransformer(lambda rows: np.sign(rows) * np.sqrt(np.abs(rows)))


@pytest.mark.parametrize(
    ("name", "steps", "pipeline"),
    [
        ("linear_svc", ["power", "l2"], [ROOT, Normalizer(), StandardScaler(), LinearSVC(dual=False)]),
        ("linear_svc", ["pca:10"], [PCA(10), StandardScaler(), LinearSVC(dual=False)]),
        ("svm_rbf", ["pca_whiten:0.8"], [PCA(0.8, whiten=True), StandardScaler(), SVC(break_ties=True)]),
    ],
)
def test_a_pipeline_is_searched_fitted_and_tested_as_by_hand(
    digits: Digits, name: str, steps: list[str], pipeline: list[Any]
) -> None:
    train, test = digits(0, 300), digits(1000, 1400)
    Cs = (1e-3, 1e-2) if name == "linear_svc" else (1.0, 10.0)
    config = EvaluateConfig(classifiers=(name,), grids={name: {"C": Cs}}, folds=3)
    ours = fit_and_test(CLASSIFIERS[name], train, None, test, config, 5, 10, steps)
    made = make_pipeline(*pipeline)
    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    theirs = GridSearchCV(made, {f"{made.steps[-1][0]}__C": list(Cs)}, cv=folds).fit(train.X, train.y)
    assert ours.val_accuracy == pytest.approx(theirs.best_score_, abs=1e-12)
    assert np.array_equal(ours.predicted, theirs.predict(test.X))
    assert np.array_equal(ours.model.predict(test.X), ours.predicted)
    assert (ours.params["steps"], ours.engine) == (steps, "featbench")
    assert ours.params["width_after_steps"] == theirs.best_estimator_[-1].n_features_in_


def test_steps_that_learn_see_the_rows_of_the_fold_only(digits: Digits) -> None:
    """A first component that the held-out rows alone would give changes no score of the rows that are fitted on."""
    rows = digits(0, 200)
    train, val = rows.take(np.arange(100)), rows.take(np.arange(100, 200))
    strange = replace(val, X=val.X + 1e4 * np.linspace(-1, 1, 100)[:, None].astype(np.float32))
    config = EvaluateConfig(classifiers=("linear_svc",), train_sizes=(5,))  # a curve: val rows are not trained on
    fitted = [
        fit_and_test(CLASSIFIERS["linear_svc"], train, v, digits(1000, 1100), config, 0, 10, ["pca:5", "standardize"])
        for v in (val, strange)
    ]
    first, second = (f.model[0] for f in fitted)
    assert np.array_equal(first.components_, second.components_)
    assert np.array_equal(first.mean_, PCA(5).fit(train.X).mean_)


def test_a_forest_after_steps_that_learn_is_selected_by_folds(digits: Digits) -> None:
    grids = {"random_forest": {"n_estimators": (40,), "min_samples_leaf": (1, 3)}}
    config = EvaluateConfig(classifiers=("random_forest",), grids=grids, steps=(("pca:5",),))
    found = {
        tuple(steps): fit_and_test(
            CLASSIFIERS["random_forest"], digits(0, 200), None, digits(1000, 1100), config, 0, 10, steps
        ).selection
        for steps in ([], ["l2"], ["pca:5"])
    }
    assert found == {(): "oob", ("l2",): "oob", ("pca:5",): "cv"}
