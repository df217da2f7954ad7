from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from featbench.classifiers.engine import fit_engine
from featbench.classifiers.evaluate import class_scores
from featbench.classifiers.models import NotKeptError, load_model, save_model
from featbench.classifiers.rows import LabelledFeatures
from featbench.classifiers.select import fit
from featbench.classifiers.steps import fit_steps
from featbench.classifiers.table import CLASSIFIERS, candidates
from featbench.config import EvaluateConfig
from featbench.errors import ResultsError
from featbench.results.row import Row

Digits = Callable[[int, int], LabelledFeatures]


def make_row(method: str) -> Row:
    numbers = ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "macro_precision", "macro_recall")
    return Row(
        experiment="digits",
        dataset="digits",
        n_classes=10,
        backbone="timm:vit",
        layer="blocks.3",
        method=method,
        kind="classifier",
        params="{}",
        seed=0,
        n_train=100,
        n_test=100,
        macro_f1=0.5,
        **dict.fromkeys(numbers, 0.5),
        fingerprint="f0",
        featbench_version="0.1.0",
        created_at="2026-01-01T00:00:00+00:00",
    )


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_model_comes_back_and_scores_the_same(tmp_path: Path, digits: Digits, name: str) -> None:
    train, test = digits(0, 200), digits(1000, 1100)
    params = candidates(name, EvaluateConfig())[0] | ({"max_iter": 3} if name == "gradient_boosting" else {})
    model = fit(name, params, train.X, train.y, 0, fit_engine(name, [params], EvaluateConfig()))
    model = make_pipeline(
        *(part for _, part in [*fit_steps(["power", "pca:64", "l2"], train.X, 0).steps, *model.steps])
    )
    path = save_model(tmp_path, make_row(name), model)
    assert path == tmp_path / "models" / f"{name}-timm_vit-blocks.3-f0.skops"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    loaded = load_model(tmp_path, "f0")
    assert np.array_equal(class_scores(loaded, test.X, 10), class_scores(model, test.X, 10))


def put(folder: Path, content: object) -> Path:
    path = folder / "models" / "linear_svc-x-f0.skops"
    path.parent.mkdir()
    skops.io.dump(content, path)
    return path


def shout(X: np.ndarray) -> np.ndarray:
    raise AssertionError("a model's code ran while it was loaded")


def test_a_model_with_code_of_its_own_is_not_loaded(tmp_path: Path) -> None:
    put(tmp_path, make_pipeline(FunctionTransformer(shout), LinearSVC()))
    with pytest.raises(ResultsError, match=r"holds .*shout, which no classifier of featbench does; it is not loaded"):
        load_model(tmp_path, "f0")


def test_something_else_is_not_a_model(tmp_path: Path) -> None:
    put(tmp_path, {"a": 1})
    with pytest.raises(ResultsError, match="holds a dict, not a classifier of featbench"):
        load_model(tmp_path, "f0")


@pytest.mark.parametrize("damage", ["cut", "empty", "no schema"])
def test_a_damaged_model(tmp_path: Path, damage: str) -> None:
    path = put(tmp_path, make_pipeline(LinearSVC()))
    if damage == "no schema":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other", "x")
    else:
        path.write_bytes(path.read_bytes()[: {"cut": 300, "empty": 0}[damage]])
    with pytest.raises(ResultsError, match="is damaged or of another version"):
        load_model(tmp_path, "f0")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="found: none"):
        load_model(tmp_path, "f0")


class Strange(LinearSVC):  # type: ignore[misc]
    pass


def test_a_users_own_class_is_not_kept_and_the_reason_is_told(tmp_path: Path, digits: Digits) -> None:
    train = digits(0, 100)
    model = make_pipeline(Strange()).fit(train.X, train.y)
    with pytest.raises(NotKeptError, match=r"it holds tests\.classifiers\.test_models\.Strange, which is not loaded"):
        save_model(tmp_path, make_row("python:mine:make"), model)
    model[-1].generator = (number for number in range(3))
    with pytest.raises(NotKeptError, match="skops cannot write it"):
        save_model(tmp_path, make_row("python:mine:make"), model)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("left", 0, "a child that is not after it"), ("right", 10**6, "a child that"), ("feature_idx", 64, "a feature")],
)
def test_trees_of_boosting_that_lead_astray_are_refused(
    tmp_path: Path, digits: Digits, field: str, value: int, message: str
) -> None:
    train = digits(0, 200)
    params = {"max_iter": 1, "max_leaf_nodes": 3}
    model = fit("gradient_boosting", params, train.X, train.y, 0)
    model[-1]._predictors[0][0].nodes[field][0] = value
    save_model(tmp_path, make_row("gradient_boosting"), model)
    with pytest.raises(ResultsError, match=message):
        load_model(tmp_path, "f0")
