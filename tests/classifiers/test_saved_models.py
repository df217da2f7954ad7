from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC

from featbench.classifiers.fit_and_test import class_scores
from featbench.classifiers.params import candidates
from featbench.classifiers.registry import CLASSIFIERS, n_trees
from featbench.classifiers.rows import LabelledFeatures
from featbench.classifiers.saved_models import NotKeptError, load_model, save_model
from featbench.classifiers.select import fit
from featbench.classifiers.skops_file import Limits
from featbench.classifiers.spec import planned_fit
from featbench.classifiers.transforms import fit_steps
from featbench.config import EvaluateConfig
from featbench.errors import ResultsError, UsageError
from featbench.results.row import Row
from tests.cards import make_card

Digits = Callable[[int, int], LabelledFeatures]
FileOf = Callable[[str, Path], Path]


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


N_ROWS = 200


def load(path: Path, method: str = "linear_svc", trust: tuple[str, ...] = (), **limits: int) -> Pipeline:
    given = {"n_features": 64, "n_classes": 10, "n_rows": N_ROWS, "n_trees": 300} | limits
    return load_model(path, make_card(method), Limits(**given), trust)


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> FileOf:
    """Give a folder a copy of the file of a classifier, which is fitted once."""
    made: dict[str, Path] = {}

    def give(name: str, folder: Path) -> Path:
        if name not in made:
            home = tmp_path_factory.mktemp(name)
            made[name] = save_model(home, make_row(name), model_of(name, digits(0, N_ROWS)))
        return Path(shutil.copy(made[name], folder))

    return give


def model_of(name: str, train: LabelledFeatures, **changes: Any) -> Pipeline:
    """Fit as a run does, with few trees."""
    few = {"gradient_boosting": {"max_iter": 2}, "random_forest": {"n_estimators": 5}}.get(name, {})
    params = candidates(CLASSIFIERS[name], EvaluateConfig())[0] | few | changes
    return fit(
        CLASSIFIERS[name], params, train.X, train.y, 0, planned_fit(CLASSIFIERS[name], [params], EvaluateConfig())
    )


@pytest.mark.parametrize(
    ("steps", "two_classes"),
    [([], False), (["power", "pca:0.9", "l2"], True), (["standardize", "pca_whiten:9"], False)],
)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_model_comes_back_and_scores_the_same(
    tmp_path: Path, digits: Digits, name: str, steps: list[str], two_classes: bool
) -> None:
    train, test = digits(0, N_ROWS), digits(1000, 1100)
    if two_classes:
        train = LabelledFeatures(train.X, (train.y > 4) * 7 + 2, train.ids)  # 2 and 9, of ten
    before = [part for _, part in fit_steps(steps, train.X, 0).steps] if steps else []
    rows = make_pipeline(*before).transform(train.X) if steps else train.X
    model = make_pipeline(
        *before, *(part for _, part in model_of(name, LabelledFeatures(rows, train.y, train.ids)).steps)
    )
    path = save_model(tmp_path, make_row(name), model)
    assert path == tmp_path / "models" / f"{name}-timm_vit-blocks.3-f0.skops"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert np.array_equal(class_scores(load(path, name), test.X, 10), class_scores(model, test.X, 10))


def test_what_scikit_learn_s_engine_fitted_comes_back_too(tmp_path: Path, digits: Digits) -> None:
    train, test = digits(0, N_ROWS), digits(1000, 1100)
    own = [
        KNeighborsClassifier(3, metric="manhattan", algorithm="brute"),
        KNeighborsClassifier(3, weights="distance", p=3),
        SVC(kernel="poly", degree=2, coef0=1.0),
        LinearSVC(fit_intercept=False, dual=False),
        RidgeClassifier(fit_intercept=False),
        LogisticRegression(class_weight="balanced", solver="newton-cg"),
    ]
    for machine in own:
        model = make_pipeline(StandardScaler(), machine).fit(train.X, train.y)
        path = save_model(tmp_path, make_row("python:mine:make"), model)
        assert np.array_equal(class_scores(load(path), test.X, 10), class_scores(model, test.X, 10))


def test_trees_are_counted_by_the_parameters() -> None:
    assert n_trees("random_forest", {"n_estimators": 300, "max_features": "sqrt"}, 10) == 300
    assert n_trees("gradient_boosting", {"max_iter": 100}, 10) == 1000
    assert n_trees("logistic_regression", {"max_iter": 1000}, 10) == 0
    assert n_trees("python:mine:make", {"extratreesclassifier__n_estimators": 50}, 10) == 50


def put(folder: Path, content: object) -> Path:
    path = folder / "linear_svc-x-f0.skops"
    skops.io.dump(content, path)
    return path


def shout(X: np.ndarray) -> np.ndarray:
    raise AssertionError("a model's code ran while it was loaded")


def test_a_model_with_code_of_its_own_is_not_loaded(tmp_path: Path) -> None:
    path = put(tmp_path, make_pipeline(FunctionTransformer(shout), LinearSVC()))
    with pytest.raises(
        ResultsError, match=r"holds .*FunctionTransformer, a type that featbench's classifiers do not have"
    ):
        load(path)
    with pytest.raises(ResultsError, match=r"is damaged or of another version: .*shout"):
        load(path, "python:mine:make", ("python:mine:make",))


def test_a_users_own_classifier_is_loaded_only_if_trusted(tmp_path: Path, digits: Digits) -> None:
    train, test = digits(0, N_ROWS), digits(1000, 1100)
    model = make_pipeline(MinMaxScaler(), ExtraTreesClassifier(5, random_state=0)).fit(train.X, train.y)
    path = save_model(tmp_path, make_row("python:mine:make"), model)
    message = (
        r"holds sklearn.*MinMaxScaler, whose numbers featbench cannot check, .* say so with --trust python:mine:make"
    )
    with pytest.raises(UsageError, match=message):
        load(path, "python:mine:make", ("python:others:make",))
    with pytest.raises(ResultsError, match="a type that featbench's classifiers do not have"):
        load(path, "random_forest", ("random_forest",))
    loaded = load(path, "python:mine:make", ("python:mine:make",))
    assert np.array_equal(class_scores(loaded, test.X, 10), class_scores(model, test.X, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "holds builtins.dict, a type that featbench's classifiers do not have"),
        (make_pipeline(StandardScaler()), "StandardScaler has no var_|it ends without|no mean"),
    ],
)
def test_something_else_is_not_a_model(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        load(put(tmp_path, content))


@pytest.mark.parametrize("damage", ["cut", "empty", "no schema", "deep", "bzip2"])
def test_a_damaged_model(tmp_path: Path, file_of: FileOf, damage: str) -> None:
    path = file_of("linear_svc", tmp_path)
    if damage in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: {"cut": 300, "empty": 0}[damage]])
    else:
        entry = {"no schema": "other", "deep": "schema.json", "bzip2": "schema.json"}[damage]
        packed = zipfile.ZIP_BZIP2 if damage == "bzip2" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", packed) as archive:
            archive.writestr(entry, "[" * 100_000)
    with pytest.raises(ResultsError, match="is damaged or of another version"):
        load(path)


class Strange(LinearSVC):  # type: ignore[misc]
    pass


def test_a_users_own_class_is_not_saved_and_the_reason_is_given(tmp_path: Path, digits: Digits) -> None:
    train = digits(0, 100)
    model = make_pipeline(Strange()).fit(train.X, train.y)
    with pytest.raises(
        NotKeptError, match=r"it holds tests\.classifiers\.test_saved_models\.Strange, a type that is not loaded"
    ):
        save_model(tmp_path, make_row("python:mine:make"), model)
    model[-1].generator = (number for number in range(3))
    with pytest.raises(NotKeptError, match="skops cannot write it"):
        save_model(tmp_path, make_row("python:mine:make"), model)
    assert list((tmp_path / "models").iterdir()) == []


def rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write a zip anew, each entry as `change(name, content)` makes it."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def change_arrays(path: Path, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
    def new(name: str, content: bytes) -> bytes:
        if not name.endswith(".npy"):
            return content
        array = change(np.load(io.BytesIO(content)))
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    rewrite(path, new)


def test_a_file_is_read_that_was_written_when_a_class_was_in_another_module(
    tmp_path: Path, file_of: FileOf, digits: Digits
) -> None:
    path = file_of("knn", tmp_path)
    expected = load(path, "knn").predict(digits(1000, 1100).X)
    rewrite(
        path,
        lambda name, content: content.replace(b"featbench.solvers.neighbours", b"featbench.classifiers.neighbours"),
    )
    with zipfile.ZipFile(path) as archive:
        assert b"featbench.classifiers.neighbours" in archive.read("schema.json")
    assert np.array_equal(load(path, "knn").predict(digits(1000, 1100).X), expected)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("left_child", 10**6, "a child that does not come after it"),
        ("right_child", 10**6, "a child that does not come after it"),
        ("left_child", 0, "a child that does not come after it"),
        ("left_child", -1, "a child that does not come after it"),
        ("right_child", -7, "a child that does not come after it"),
        ("feature", 10**7, "a feature that does not exist"),
        ("feature", 64, "a feature that does not exist"),
        ("feature", -3, "a feature that does not exist"),
        ("threshold", np.nan, "a threshold that is not finite"),
    ],
)
def test_invalid_trees_of_a_forest_are_refused(
    tmp_path: Path, file_of: FileOf, field: str, value: float, message: str
) -> None:
    def change(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if array.dtype.names and field in array.dtype.names:
            array[field][0] = value
        return array

    path = file_of("random_forest", tmp_path)
    change_arrays(path, change)
    with pytest.raises(ResultsError, match=f"is damaged or of another version: .*{message}"):
        load(path, "random_forest")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("left", 0, "a child that does not come after it"),
        ("right", 10**6, "a child that"),
        ("feature_idx", 64, "a feature"),
        ("feature_idx", -1, "a feature"),
        ("num_threshold", np.inf, "not finite"),
        ("value", np.nan, "not finite"),
        ("is_categorical", 1, "categorical splits"),
    ],
)
def test_invalid_trees_of_boosting_are_refused(
    tmp_path: Path, digits: Digits, field: str, value: float, message: str
) -> None:
    model = model_of("gradient_boosting", digits(0, N_ROWS), max_iter=1, max_leaf_nodes=3)
    model[-1]._predictors[0][0].nodes[field][0] = value
    path = save_model(tmp_path, make_row("gradient_boosting"), model)
    with pytest.raises(ResultsError, match=message):
        load(path, "gradient_boosting")


WRONG: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "infinite": lambda a: np.full_like(a, np.inf) if a.dtype.kind == "f" else a,
    "of another width": lambda a: a[..., :-1] if a.ndim and a.shape[-1] > 1 else a,
    "one more axis": lambda a: a[None],
    "text": lambda a: a.astype("U") if not a.dtype.names else a,
    "whole numbers beyond": lambda a: np.full_like(a, 10**6) if a.dtype.itemsize > 2 and a.dtype.kind in "iu" else a,
    "whole numbers below": lambda a: np.full_like(a, -1) if a.dtype.kind == "i" else a,
    "of the other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "empty": lambda a: a[:0] if a.ndim else a,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_arrays_that_are_not_a_model_s_are_refused(tmp_path: Path, file_of: FileOf, name: str, wrong: str) -> None:
    path = file_of(name, tmp_path)
    change_arrays(path, WRONG[wrong])
    with pytest.raises(ResultsError, match=r"is damaged or of another version: .*; run the experiment again"):
        load(path, name)


def zeros_npy(n: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (n // 512, 512)})
    return header.getvalue() + bytes(8 * n)


def test_no_more_is_unpacked_than_such_a_model_takes(
    tmp_path: Path, file_of: FileOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of("linear_svc", tmp_path)
    large = zeros_npy(2**24)  # 128 MiB, which deflate to 130 kB
    with zipfile.ZipFile(path) as archive:
        arrays = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    weights = max(arrays, key=lambda info: info.file_size).filename
    rewrite(path, lambda name, content: large if name == weights else content)
    assert path.stat().st_size < 2**21
    read: list[int] = []
    whole = zipfile.ZipExtFile.read

    def counted(self: zipfile.ZipExtFile, n: int = -1) -> bytes:
        content = whole(self, n)
        read.append(len(content))
        return content

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    with pytest.raises(ResultsError, match=r"is of float64 and shape \(32768, 512\)|more than such a model takes"):
        load(path)
    assert sum(read) < 2**20


def test_a_schema_of_many_trees_is_not_read_for_a_model_without(tmp_path: Path, file_of: FileOf) -> None:
    path = file_of("linear_svc", tmp_path)
    rewrite(path, lambda name, content: content + b" " * 2**25 if name == "schema.json" else content)
    with pytest.raises(ResultsError, match=r"schema\.json has .* bytes, more than such a model takes"):
        load(path, n_trees=0)
    assert load(path, n_trees=1000)


def test_names_in_a_file_take_the_place_of_no_method(tmp_path: Path, digits: Digits) -> None:
    model = model_of("linear_svc", digits(0, N_ROWS))
    model[-1].decision_function = np.zeros(3)
    model[-1].n_jobs = 10**9
    loaded = load(save_model(tmp_path, make_row("linear_svc"), model))
    assert loaded.decision_function(digits(1000, 1002).X).shape == (2, 10)


def test_odd_graphs_of_objects_are_refused(tmp_path: Path, file_of: FileOf) -> None:
    path = file_of("linear_svc", tmp_path)
    with zipfile.ZipFile(path) as archive:
        schema = json.loads(archive.read("schema.json"))

    def each(node: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        return [place] * bool(place) + [found for key in keys for found in each(node[key], (*place, key))]

    def without(place: tuple[Any, ...], value: Any) -> bytes:
        copy = json.loads(json.dumps(schema))
        node = copy
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = value
        return json.dumps(copy).encode()

    places = each(schema)
    rng = np.random.default_rng(0)
    outcomes = set()
    for number in rng.choice(len(places), 80, replace=False):
        for value in (None, [], {}, 7, "x"):
            content = without(places[number], value)
            rewrite(path, lambda name, old, content=content: content if name == "schema.json" else old)  # type: ignore[misc]
            try:
                outcomes.add(type(load(path)))
            except ResultsError as error:
                outcomes.add(type(error))
    assert outcomes == {Pipeline, ResultsError}  # what is not needed may be anything
