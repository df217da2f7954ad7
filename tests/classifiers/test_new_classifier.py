"""A new classifier with a solver of its own is one row in the registry; this file holds all that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from featbench.classifiers.fit_and_test import class_scores, fit_and_test
from featbench.classifiers.memory import has_gpu_solver, streams
from featbench.classifiers.params import check_grids
from featbench.classifiers.registry import CLASSIFIERS, get_classifier
from featbench.classifiers.rows import LabelledFeatures
from featbench.classifiers.saved_models import load_model, save_model
from featbench.classifiers.select import select
from featbench.classifiers.skops_file import Limits, Record
from featbench.classifiers.spec import ClassifierSpec, Labels, Solver, Splits, Tried
from featbench.config import EvaluateConfig
from featbench.errors import DataError, UsageError
from featbench.results.row import Row
from tests.cards import make_card

NAME = "nearest_mean"
SHRINKS = (0.9, 0.0, 0.5)
Digits = Callable[[int, int], LabelledFeatures]


class NearestMean(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The nearest class mean, after all means have been moved towards the mean of all rows."""

    def __init__(self, shrink: float = 0.0, power: int = 2) -> None:
        self.shrink = shrink
        self.power = power

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
        means = np.stack([X[y == label].mean(0, dtype=np.float64) for label in self.classes_])
        self.means_ = means + self.shrink * (X.mean(0) - means) * np.linspace(0, 1, len(means))[:, None]
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        distances = (np.abs(np.asarray(X, float)[:, None] - self.means_) ** self.power).sum(2)
        return -distances if len(self.classes_) > 2 else distances[:, 0] - distances[:, 1]

    def predict(self, X: np.ndarray) -> np.ndarray:
        scores = self.decision_function(X)
        return np.asarray(self.classes_[scores.argmax(1) if scores.ndim == 2 else (scores > 0).astype(int)])


def search_means(X: Any, y: Labels, splits: Splits, machines: list[Any], device: str) -> Sequence[Sequence[Tried]]:
    """Score every machine on every split; `calls` counts the splits."""
    calls.append(len(splits))
    models = [make_pipeline(StandardScaler(), machine) for machine in machines]
    return [
        [(float(model.fit(X[kept], y[kept]).score(X[out], y[out])), None) for kept, out in splits] for model in models
    ]


def fit_means(model: Pipeline, X: Any, y: Labels, device: str) -> Pipeline:
    calls.append(0)
    fitted: Pipeline = model.fit(X, y)
    return fitted


def restore_means(made: NearestMean, record: Record, limits: Limits, classes: Labels) -> None:
    made.means_ = record.floats("means_", (len(classes), limits.n_features))


calls: list[int] = []
SPEC = ClassifierSpec(
    name=NAME,
    summary="nearest class mean, standardised features",
    estimator=NearestMean,
    grid={"shrink": SHRINKS},
    scaled=True,
    min_rows=lambda params: 30,
    solver=Solver(
        search=search_means,
        fit=fit_means,
        serves=lambda params: set(params) <= {"shrink"},
        uses_gpu=True,
        disk_bytes=8,
    ),
    restore={NearestMean: restore_means},
)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> ClassifierSpec:
    monkeypatch.setitem(CLASSIFIERS, NAME, SPEC)
    calls.clear()
    return get_classifier(NAME)


def by_hand(X: np.ndarray, y: np.ndarray, splits: Splits) -> dict[float, float]:
    def score(shrink: float, kept: np.ndarray, out: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), NearestMean(shrink=shrink)).fit(X[kept], y[kept])
        return float(model.score(X[out], y[out]))

    return {shrink: float(np.mean([score(shrink, *split) for split in splits])) for shrink in SHRINKS}


def test_its_solver_searches_and_fits(registered: ClassifierSpec, digits: Digits) -> None:
    train, test = digits(0, 300), digits(1000, 1200)
    config = EvaluateConfig(classifiers=(NAME,), folds=3)
    check_grids([registered], config)
    chosen = select(registered, train.X, train.y, 300, config, 0)
    accuracies = by_hand(np.asarray(train.X), train.y, chosen.splits)
    assert (chosen.engine, calls) == ("featbench", [3])
    assert chosen.params == {"shrink": max(accuracies, key=lambda key: accuracies[key])}
    assert chosen.val_accuracy == pytest.approx(max(accuracies.values()))
    fitted = fit_and_test(registered, train, None, test, config, 0, 10)
    assert calls == [3, 3, 0, *[0] * 3]  # the search, the final fit, and those for the temperature
    assert fitted.engine == "featbench"
    assert np.array_equal(fitted.predicted, fitted.model.predict(test.X))
    assert has_gpu_solver(registered, [{}], config)
    assert streams(registered, [{}], [], config)


def test_what_its_solver_does_not_serve_is_scikit_learns(registered: ClassifierSpec, digits: Digits) -> None:
    rows = digits(0, 300)
    others = EvaluateConfig(classifiers=(NAME,), folds=3, grids={NAME: {"power": (1, 2)}})
    plain = EvaluateConfig(classifiers=(NAME,), folds=3, engine="sklearn")
    for config in (others, plain):
        assert select(registered, rows.X, rows.y, 300, config, 0).engine == "scikit-learn"
        assert not has_gpu_solver(registered, [{"power": 1}], config)
    assert calls == []
    few = EvaluateConfig(classifiers=(NAME,), folds=2)
    with pytest.raises(DataError, match=f"{NAME} needs at least 30 rows to fit on .* and 20 remain"):
        select(registered, rows.X[:40], np.arange(40) % 2, 40, few, 0)
    refused = replace(registered, solver=replace(SPEC.solver, search=refuse))  # type: ignore[type-var]
    with pytest.raises(UsageError, match=f"{NAME} cannot be fitted with its grid: not today"):
        select(refused, rows.X, rows.y, 300, EvaluateConfig(classifiers=(NAME,), folds=3), 0)


def refuse(X: Any, y: Any, splits: Any, machines: Any, device: str) -> Any:
    raise ValueError("not today")


def test_its_model_is_saved_and_read(
    registered: ClassifierSpec, digits: Digits, tmp_path: Path, make_row: Callable[..., Row]
) -> None:
    config = EvaluateConfig(classifiers=(NAME,), folds=3)
    model = fit_and_test(registered, digits(0, 300), None, digits(1000, 1200), config, 0, 10).model
    path = save_model(tmp_path, make_row(method=NAME, kind="classifier"), model)
    loaded = load_model(path, make_card(NAME), Limits(n_features=64, n_classes=10, n_rows=300))
    X = digits(1000, 1100).X
    assert np.array_equal(class_scores(loaded, X, 10), class_scores(model, X, 10))
