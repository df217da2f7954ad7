from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.own import own_classifier
from featbench.classifiers.params import candidates, check_grids, used_params
from featbench.classifiers.registry import get_classifier
from featbench.classifiers.rows import LabelledFeatures
from featbench.classifiers.select import convergence_recorded
from featbench.config import EvaluateConfig
from featbench.errors import UsageError

RNG = np.random.default_rng(0)
Y = np.arange(40) % 2
X = RNG.normal(size=(40, 5)) + Y[:, None]
GOOD = """
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, SVC
from sklearn.neighbors import NearestCentroid

def make():
    return make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=2000))
def regression():
    return SVR()
def text():
    return "an estimator"
def breaks():
    raise OSError("no such thing")
def needs(argument):
    return SVC()
class Scoreless(SVC):
    decision_function = property()
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"own_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(GOOD)
    (tmp_path / f"{name}_broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_it_is_made_with_a_grid_and_a_seed_and_recorded(module: str) -> None:
    name = f"python:{module}:make"
    config = EvaluateConfig(classifiers=(name,), grids={name: {"mlpclassifier__alpha": (1e-4, 1e-2)}})
    spec = get_classifier(name)
    check_grids([spec], config)
    assert [params["mlpclassifier__alpha"] for params in candidates(spec, config)] == [1e-4, 1e-2]
    assert candidates(spec, EvaluateConfig(classifiers=(name,))) == [{}]
    model = spec.make({"mlpclassifier__alpha": 1e-2}, 7, 5).fit(X, Y)
    by_hand = make_pipeline(StandardScaler(), MLPClassifier((4,), alpha=1e-2, max_iter=2000, random_state=7)).fit(X, Y)
    assert np.array_equal(model.predict_proba(X), by_hand.predict_proba(X))
    recorded = json.loads(json.dumps(used_params(spec, {"mlpclassifier__alpha": 1e-2}, model), allow_nan=False))
    assert (recorded["mlpclassifier__alpha"], recorded["mlpclassifier__random_state"]) == (1e-2, 7)
    assert recorded["mlpclassifier__hidden_layer_sizes"] == [4]
    assert spec.converged(model[-1]) is True


def test_what_did_not_converge_is_seen_and_its_warning_goes_through(module: str) -> None:
    spec = get_classifier(f"python:{module}:make")
    model = spec.make({"mlpclassifier__max_iter": 2}, 0, 5)
    with pytest.warns(ConvergenceWarning), convergence_recorded(spec):
        model.fit(X, Y)
    assert spec.converged(model[-1]) is False
    with warnings.catch_warnings(), convergence_recorded(get_classifier("logistic_regression")):
        get_classifier("logistic_regression").make({"max_iter": 1}, 0, 5).fit(X, Y)


def test_an_edited_file_is_another_classifier(module: str, tmp_path: Path) -> None:
    name = f"python:{module}:make"
    before = own_classifier(name)
    assert before.source == own_classifier(name).source
    (tmp_path / f"{module}.py").write_text(GOOD.replace("(4,)", "(40,)"))
    after = own_classifier(name)
    assert after.source != before.source
    assert after.estimator()[-1].hidden_layer_sizes == (40,)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("maek", "did you mean 'make'"),
        ("number", "number is not a function but int"),
        ("needs", "needs has to work without arguments"),
        ("breaks", "the function failed with OSError: no such thing"),
        ("regression", "returns SVR; it has to return a scikit-learn classifier"),
        ("text", "returns str; it has to return a scikit-learn classifier"),
        ("NearestCentroid", None),
        ("Scoreless", "has neither predict_proba nor decision_function"),
    ],
)
def test_what_is_no_classifier_is_refused(module: str, function: str, message: str | None) -> None:
    name = f"python:{module}:{function}"
    if message is None:
        assert own_classifier(name).estimator()  # a class is a factory too
        return
    with pytest.raises(UsageError, match=message):
        get_classifier(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:nowhere_at_all:make", "there is no module 'nowhere_at_all'"),
        ("python:MODULE_broken:make", "importing .* failed with ZeroDivisionError"),
        ("python:no-name", 'is not "python:module:factory", as in "python:my_classifiers:make"'),
    ],
)
def test_a_module_that_cannot_be_imported(module: str, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        get_classifier(name.replace("MODULE", module))


def test_a_grid_that_does_not_fit(module: str) -> None:
    name = f"python:{module}:make"
    grids: dict[str, Any] = {name: {"mlpclassifier__alfa": (1.0,)}}
    with pytest.raises(UsageError, match="did you mean 'mlpclassifier__alpha'"):
        check_grids([get_classifier(name)], EvaluateConfig(classifiers=(name,), grids=grids))


COUNTED = """
import pathlib

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

log = pathlib.Path("log.txt")
with log.open("a") as file:
    file.write("import\\n")


def make():
    with log.open("a") as file:
        file.write("call\\n")
    return make_pipeline(StandardScaler(), SVC())
"""


def test_the_factory_is_imported_and_called_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Callable[[int, int], LabelledFeatures]
) -> None:
    (tmp_path / "counted_classifier.py").write_text(COUNTED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "python:counted_classifier:make"
    config = EvaluateConfig(classifiers=(name,), folds=3, grids={name: {"svc__C": (1.0, 10.0)}})
    fitted = fit_and_test(get_classifier(name), digits(0, 200), None, digits(200, 300), config, 0, 10)
    lines = (tmp_path / "log.txt").read_text().split()
    assert fitted.temperature is not None
    assert lines == ["import", "call"]  # the ten models are clones
