from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import skops.io
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import featbench
from featbench.backbones.architectures import get_architecture
from featbench.backbones.own import ResNet20
from featbench.config import Experiment, load_experiment
from featbench.errors import CacheError, DataError, UsageError
from featbench.results.artifacts import load_predictions
from featbench.runs.pipeline import STAGES
from featbench.runs.tables import write_tables
from tests.tiny import GRIDS, Recorder, digits_content, digits_experiment, image_folder

COLUMNS = [
    "experiment",
    "dataset",
    "n_classes",
    "backbone",
    "weights",
    "layer",
    "pooling",
    "feature_dim",
    "method",
    "kind",
    "params",
    "selection",
    "seed",
    "n_train",
    "n_val",
    "n_test",
    "val_accuracy",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "converged",
    "engine",
    "device",
    "precision",
    "extract_s",
    "fit_s",
    "predict_s",
    "fingerprint",
    "featbench_version",
    "created_at",
    "steps",
    "never_predicted",
    "images_per_class",
]
STATISTICS = (
    "comparisons.csv",
    "metrics.csv",
    "confusion.csv",
    "spread.csv",
    "curves.csv",
    "mistakes.csv",
    "advice.md",
)
WITHOUT_PAGE = STAGES[:-1]  # pictures take seconds
BASELINES = [{"strategy": "linear_head", "epochs": 3}, {"strategy": "scratch", "epochs": 1}]


@dataclass(frozen=True)
class Finished:
    """A run that is over."""

    experiment: Experiment
    folder: Path
    cache: Path
    rows: pd.DataFrame

    def again(self, experiment: Experiment | None = None, **options: Any) -> pd.DataFrame:
        options = {"stages": WITHOUT_PAGE} | options
        return featbench.run(experiment or self.experiment, results=self.folder, cache=self.cache, **options)

    def files(self) -> dict[Path, tuple[int, bytes]]:
        """Say when each model, prediction, history and row was written, and what it holds."""
        kept = [self.folder / "results.csv", *(p for d in ("models", "predictions", "history") for p in self._in(d))]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}

    def _in(self, folder: str) -> list[Path]:
        return sorted((self.folder / folder).iterdir())


def run(experiment: Experiment, home: Path, **options: Any) -> Finished:
    options = {"stages": WITHOUT_PAGE} | options
    rows = featbench.run(
        experiment, results=home / "results", cache=home / "cache", data=home / "data", device="cpu", **options
    )
    return Finished(experiment, home / "results", home / "cache", rows)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run(digits_experiment(baselines=BASELINES), tmp_path_factory.mktemp("digits"), stages=STAGES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    home = tmp_path_factory.mktemp("photos")
    root = image_folder(home / "photos", per_class=14)
    (root / "green" / "03.jpg").write_bytes(b"not an image")
    (root / "red" / "notes.txt").write_text("ignore me")
    content = digits_content(
        dataset={"name": "folder", "root": str(root)},
        backbones=[{"name": "resnet20", "layers": ["layer3"]}, {"name": "pixels"}],
        baselines=BASELINES,
    )
    return run(Experiment.model_validate(content), home, stages=STAGES)


@pytest.fixture(params=["digits", "photos"])
def finished(request: pytest.FixtureRequest) -> Finished:
    found: Finished = request.getfixturevalue(request.param)
    return found


def test_the_results_folder_holds_what_the_contract_says(finished: Finished) -> None:
    names = {path.name for path in finished.folder.iterdir() if not path.name.startswith(".")}
    files = {"results.csv", "accuracy.csv", "accuracy.md", "accuracy.tex", "skipped.csv"}
    assert names >= files | set(STATISTICS)
    assert names >= {"predictions", "models", "history", "experiment.toml", "environment.json", "current.csv"}
    assert names >= {"report.html", "plots", "maps.csv", "thumbnails"}


def test_every_row_counts_the_classes_that_its_model_never_predicts(digits: Finished) -> None:
    counts = {}
    for row in featbench.load_results(digits.folder).itertuples():
        said = load_predictions(digits.folder, row.fingerprint)
        often = said["label"].value_counts().loc[lambda count: count >= 5].index
        counts[row.method] = len(set(often) - set(said["predicted"]))
        assert row.never_predicted == counts[row.method]
    assert counts["linear_svc"] == 0
    assert counts["scratch"] > 0  # trained for one epoch


def test_results_csv_has_the_columns_of_the_contract_in_order(finished: Finished) -> None:
    assert (finished.folder / "results.csv").read_text().splitlines()[0].split(",") == COLUMNS


def test_there_is_a_row_for_every_layer_and_classifier_and_one_for_every_baseline(digits: Finished) -> None:
    assert list(zip(digits.rows.method, digits.rows.layer.fillna(""), strict=True)) == [
        *((method, layer) for layer in ("layer1", "layer3") for method in GRIDS),
        ("linear_head", ""),
        ("scratch", ""),
    ]
    assert digits.rows.kind.tolist() == ["classifier"] * 6 + ["baseline"] * 2
    assert digits.rows.weights.tolist() == ["random"] * 8
    assert digits.rows.feature_dim.dropna().tolist() == [16] * 3 + [64] * 3


def test_run_returns_what_load_results_reads(finished: Finished) -> None:
    for path in (finished.folder, finished.folder / "results.csv"):
        pd.testing.assert_frame_equal(featbench.load_results(path), finished.rows)


def test_every_row_has_its_files_and_no_file_is_left_over(finished: Finished) -> None:
    expected: set[str] = set()
    for row in finished.rows.itertuples():
        name = "-".join(
            part for part in (row.method, row.backbone, row.layer, row.fingerprint) if isinstance(part, str)
        )
        expected.add(f"predictions/{name}.csv")
        if row.kind == "classifier":
            expected |= {f"models/{name}.skops", f"models/{name}.json"}
        else:
            expected |= {f"models/{name}.safetensors", f"models/{name}.json", f"history/{name}.csv"}
    found = {
        path.relative_to(finished.folder).as_posix()
        for folder in ("predictions", "models", "history")
        for path in (finished.folder / folder).iterdir()
    }
    assert found == expected


def test_predictions_agree_with_the_metrics_of_their_row(finished: Finished) -> None:
    for row in finished.rows.itertuples():
        table = load_predictions(finished.folder, row.fingerprint)
        assert len(table) == row.n_test
        assert table.id.is_unique
        assert accuracy_score(table.label, table.predicted) == pytest.approx(row.accuracy)
        assert balanced_accuracy_score(table.label, table.predicted) == pytest.approx(row.balanced_accuracy)
        assert f1_score(table.label, table.predicted, average="macro") == pytest.approx(row.macro_f1)
        scores = table.filter(like="score:")
        assert (scores.idxmax(axis=1).str.removeprefix("score:") == table.predicted).mean() > 0.95  # ties of 6 digits
        assert row.accuracy_low - 1e-9 <= row.accuracy <= row.accuracy_high + 1e-9


def test_all_methods_are_tested_on_the_same_images(finished: Finished) -> None:
    tables = [load_predictions(finished.folder, name) for name in finished.rows.fingerprint]
    assert len({tuple(table.id) for table in tables}) == 1
    assert len({tuple(table.label) for table in tables}) == 1


def test_counts_of_digits(digits: Finished) -> None:
    classifiers, baselines = (digits.rows[digits.rows.kind == kind] for kind in ("classifier", "baseline"))
    assert set(classifiers.n_test) == set(baselines.n_test) == {50}
    (n_val,) = set(baselines.n_val)
    assert set(baselines.n_train[baselines.method == "linear_head"]) == {120}
    assert set(baselines.n_train[baselines.method != "linear_head"]) == {120 + n_val}  # trained again on both
    assert n_val == pytest.approx(0.04 * 1797, abs=1)
    assert set(classifiers.n_val) == {n_val}
    assert set(classifiers.n_train) == {120 + n_val}  # the final fit is on train and val


def test_counts_of_a_folder_leave_out_what_cannot_be_read(photos: Finished) -> None:
    lines = pd.read_csv(photos.folder / "skipped.csv")
    assert list(lines.columns) == ["split", "id", "reason"]
    assert sorted(lines.id) == ["green/03.jpg", "red/notes.txt"]
    baselines = photos.rows[photos.rows.kind == "baseline"]
    apart = baselines.n_val.where(baselines.method == "linear_head", 0)  # the others are trained again on train and val
    assert set(baselines.n_train + apart + baselines.n_test) == {41}


def test_accuracy_csv_is_a_row_a_layer_with_the_references_last(digits: Finished) -> None:
    table = pd.read_csv(digits.folder / "accuracy.csv", keep_default_na=False)
    keys = ["dataset", "backbone", "weights", "layer", "pooling", "feature_dim", "steps"]
    assert list(table.columns) == [*keys, *GRIDS, "linear_head", "scratch"]
    assert table.layer.tolist() == ["layer1", "layer3"]
    for row in digits.rows[digits.rows.kind == "classifier"].itertuples():
        cell = table.loc[table.layer == row.layer, row.method].item()
        assert float(cell) == pytest.approx(row.accuracy, abs=5e-5)
    for row in digits.rows[digits.rows.kind == "baseline"].itertuples():
        assert table[row.method].astype(float).tolist() == pytest.approx([row.accuracy] * 2, abs=5e-5)


def test_the_statistics_can_be_computed_again_from_the_files(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder / "predictions", tmp_path / "predictions")
    shutil.copy(finished.folder / "results.csv", tmp_path)
    progress = Recorder()
    write_tables(tmp_path, featbench.load_results(tmp_path), progress.warn)
    assert progress.warned == []
    for name in STATISTICS:
        assert (tmp_path / name).read_bytes() == (finished.folder / name).read_bytes()


def test_every_pair_of_models_is_compared_and_every_model_measured(finished: Finished) -> None:
    pairs = pd.read_csv(finished.folder / "comparisons.csv", dtype={"a_fingerprint": str, "b_fingerprint": str})
    n_models = len(finished.rows)
    assert len(pairs) == n_models * (n_models - 1) / 2
    accuracy = finished.rows.set_index("fingerprint")["accuracy"]
    for pair in pairs.itertuples():
        assert pair.difference == pytest.approx(accuracy[pair.a_fingerprint] - accuracy[pair.b_fingerprint], abs=1e-5)
        assert pair.difference_low <= pair.difference <= pair.difference_high
    measured = pd.read_csv(finished.folder / "metrics.csv", dtype={"fingerprint": str})
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        values = measured[measured.metric == name].set_index("fingerprint")["value"]
        assert values.to_dict() == pytest.approx(finished.rows.set_index("fingerprint")[name].to_dict(), abs=1e-5)
    best = finished.rows[finished.rows.kind == "classifier"].sort_values("val_accuracy", kind="stable").iloc[-1]
    assert f"validation accuracy {best.val_accuracy:.4f}" in (finished.folder / "advice.md").read_text()


def cached(run: Finished, split: str, layer: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    (file,) = (run.cache / "digits" / "resnet20").glob(f"{split}-*.h5")
    return featbench.load_features(file, layer)


@pytest.mark.parametrize("layer", ["layer1", "layer3"])
@pytest.mark.parametrize(
    ("method", "make"),
    [
        ("linear_svc", lambda p, _: make_pipeline(StandardScaler(), LinearSVC(C=p["C"], dual=False))),
        (
            "svm_rbf",
            lambda p, width: make_pipeline(
                StandardScaler(), SVC(C=p["C"], gamma=p["gamma_scale"] / width, break_ties=True)
            ),
        ),
        ("random_forest", lambda p, _: RandomForestClassifier(**p, random_state=0)),
    ],
)
def test_classifier_rows_are_those_of_scikit_learn_by_hand(
    digits: Finished, layer: str, method: str, make: Any
) -> None:
    (X, y, _), (X_val, y_val, _), (X_test, y_test, ids) = (cached(digits, s, layer) for s in ("train", "val", "test"))
    grid = list(ParameterGrid(GRIDS[method]))
    scores = [make(params, X.shape[1]).fit(X, y).score(X_val, y_val) for params in grid]
    best = int(np.argmax(scores))
    model = make(grid[best], X.shape[1]).fit(np.concatenate([X, X_val]), np.concatenate([y, y_val]))

    row = digits.rows[(digits.rows.method == method) & (digits.rows.layer == layer)].iloc[0]
    assert row.selection == "holdout"
    assert row.val_accuracy == pytest.approx(scores[best])
    assert row.accuracy == pytest.approx(model.score(X_test, y_test))
    assert json.loads(row.params).items() >= grid[best].items()
    table = load_predictions(digits.folder, row.fingerprint)
    assert table.id.tolist() == ids
    assert table.predicted.astype(int).tolist() == model.predict(X_test).tolist()


def test_kept_classifiers_predict_as_their_rows_say(digits: Finished) -> None:
    for row in digits.rows[digits.rows.kind == "classifier"].itertuples():
        (file,) = (digits.folder / "models").glob(f"*{row.fingerprint}.skops")
        model = skops.io.load(file, trusted=["sklearn.tree._tree.Tree"])
        X, y, _ = cached(digits, "test", row.layer)
        assert model.score(X, y) == pytest.approx(row.accuracy)


def test_kept_networks_and_their_cards(digits: Finished) -> None:
    for row in digits.rows[digits.rows.kind == "baseline"].itertuples():
        (file,) = (digits.folder / "models").glob(f"*{row.fingerprint}.safetensors")
        state = safetensors.torch.load_file(file)
        card = json.loads(file.with_suffix(".json").read_text())
        assert card["classes"] == list("0123456789")
        assert (card["backbone"], card["recipe"]["strategy"]) == ("resnet20", row.method)
        if row.method == "scratch":
            ResNet20().load_state_dict(state)
        else:
            X, y, _ = cached(digits, "test", "layer3")  # before the head there is only the mean over space
            logits = torch.from_numpy(X) @ state["weight"].T + state["bias"]
            assert (logits.argmax(1).numpy() == y).mean() == pytest.approx(row.accuracy)


def test_history_tells_of_every_epoch(digits: Finished) -> None:
    lengths = {}
    for file in (digits.folder / "history").iterdir():
        table = pd.read_csv(file)
        assert list(table.columns) == [
            *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")
        ]
        assert table.epoch.tolist() == list(range(1, len(table) + 1))
        lengths[file.name.partition("-")[0]] = len(table)
    assert lengths == {"linear_head": 3, "scratch": 1}


def test_the_resolved_experiment_is_one_that_runs_again(finished: Finished) -> None:
    assert load_experiment(str(finished.folder / "experiment.toml")) == finished.experiment


def test_the_environment_is_written_down(digits: Finished) -> None:
    environment = json.loads((digits.folder / "environment.json").read_text())
    assert torch.__version__.startswith(environment["versions"]["torch"])
    assert environment["versions"]["featbench"] == featbench.__version__
    assert environment.keys() >= {"python", "platform", "device", "git_commit"}


def test_cache_files_hold_the_layers_asked_for(digits: Finished) -> None:
    files = sorted((digits.cache / "digits" / "resnet20").glob("*.h5"))
    assert [file.name.partition("-")[0] for file in files] == ["test", "train", "val"]
    for path in files:
        with h5py.File(path) as file:
            assert set(file["features"]) == {"layer1", "layer3"}
            assert file.attrs["complete"]


def test_a_second_run_does_nothing_again(finished: Finished) -> None:
    before, progress = finished.files(), Recorder()
    rows = finished.again(progress=progress)
    assert finished.files() == before
    pd.testing.assert_frame_equal(rows, finished.rows)
    done = ("reused", "already in results.csv", "was never trained")
    assert all(any(words in line for words in done) for line in progress.said), progress.said


def test_results_do_not_depend_on_the_folder(digits: Finished, tmp_path: Path) -> None:
    fresh = run(digits.experiment, tmp_path).rows
    timing = ["extract_s", "fit_s", "predict_s", "created_at"]
    pd.testing.assert_frame_equal(fresh.drop(columns=timing), digits.rows.drop(columns=timing))


@pytest.fixture
def small(tmp_path: Path) -> Finished:
    content = digits_content(
        dataset={"name": "digits", "limit_train": 60, "limit_test": 20, "val_fraction": 0.02},
        backbones=[{"name": "resnet20", "layers": ["layer3"]}],
        evaluate={"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [1e-3]}}},
        baselines=[{"strategy": "linear_head", "epochs": 1}],
    )
    return run(Experiment.model_validate(content), tmp_path)


@pytest.mark.parametrize(
    ("override", "new_kinds"),
    [
        ("evaluate.grids.linear_svc.C=[1e-2]", {"classifier"}),
        ("baselines.0.lr=0.5", {"baseline"}),
        ("baselines.0.epochs=2", {"baseline"}),
        ("backbones.0.pooling=max", {"classifier"}),
        ("dataset.limit_train=50", {"classifier", "baseline"}),
        ("seed=1", {"classifier", "baseline"}),
    ],
)
def test_a_changed_setting_adds_rows_and_keeps_the_old(small: Finished, override: str, new_kinds: set[str]) -> None:
    before = small.files()
    source = str(small.folder / "experiment.toml")
    rows = featbench.run(source, results=small.folder, cache=small.cache, overrides=[override])
    table = featbench.load_results(small.folder)
    assert table.fingerprint.tolist()[:2] == small.rows.fingerprint.tolist()
    assert set(table.kind[2:]) == new_kinds
    assert len(table) == 2 + len(new_kinds)
    assert len(rows) == 2  # only those of this experiment
    after = small.files()
    assert all(after[path] == old for path, old in before.items() if path.name != "results.csv")


@pytest.mark.parametrize("override", ["backbones.0.batch_size=7", "name=other"])
def test_a_setting_without_effect_on_the_numbers_trains_nothing_again(small: Finished, override: str) -> None:
    before = small.files()
    source = str(small.folder / "experiment.toml")
    featbench.run(source, results=small.folder, cache=small.cache, overrides=[override])
    assert small.files() == before


def test_stages_alone_make_what_run_makes(digits: Finished, tmp_path: Path) -> None:
    assert run(digits.experiment, tmp_path, stages=["extract"]).rows.empty
    assert not (tmp_path / "results" / "results.csv").exists()
    evaluated = run(digits.experiment, tmp_path, stages=["evaluate"]).rows
    assert set(evaluated.kind) == {"classifier"}
    trained = run(digits.experiment, tmp_path, stages=["baseline"]).rows
    assert trained.fingerprint.tolist() == digits.rows.fingerprint.tolist()
    names = ("accuracy.csv", "accuracy.md", "accuracy.tex")
    assert [(tmp_path / "results" / n).read_text() for n in names] == [(digits.folder / n).read_text() for n in names]


def test_evaluate_without_features_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"features of resnet20 \(train\).*run `featbench extract`"):
        run(digits_experiment(), tmp_path, stages=["evaluate"])


def test_evaluate_does_not_need_the_images_to_be_decoded(small: Finished) -> None:
    for file in small.cache.rglob("*.h5"):
        file.chmod(0o400)
    rows = small.again(stages=["evaluate"])
    assert "classifier" in set(rows.kind)


def test_baselines_alone_need_no_cache(tmp_path: Path) -> None:
    finished = run(
        digits_experiment(baselines=[{"strategy": "linear_head", "epochs": 1}]), tmp_path, stages=["baseline"]
    )
    assert finished.rows.method.tolist() == ["linear_head"]
    assert not list(tmp_path.rglob("*.h5"))


def test_without_classifiers_and_baselines_there_is_nothing_to_tabulate(tmp_path: Path) -> None:
    rows = run(digits_experiment(evaluate={"classifiers": []}), tmp_path).rows
    assert rows.empty


def test_repeats_are_rows_of_their_own_and_the_table_has_their_mean(tmp_path: Path) -> None:
    experiment = digits_experiment(
        backbones=[{"name": "pixels"}, {"name": "resnet20", "layers": ["layer3"]}],
        evaluate={"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [1e-3]}}, "repeats": 3},
        baselines=[{"strategy": "linear_head", "epochs": 1, "repeats": 2}],
    )
    finished = run(experiment, tmp_path)
    assert finished.rows.groupby(["method", "backbone"]).seed.apply(list).to_dict() == {
        ("linear_head", "resnet20"): [0, 1],
        ("linear_svc", "pixels"): [0, 1, 2],
        ("linear_svc", "resnet20"): [0, 1, 2],
    }
    heads = finished.rows[finished.rows.method == "linear_head"]
    table = pd.read_csv(finished.folder / "accuracy.csv")
    assert table.linear_head.dropna().item() == pytest.approx(heads.accuracy.mean(), abs=5e-5)


def test_diverged_training_is_recorded_and_warned_of(tmp_path: Path) -> None:
    asked = {"strategy": "finetune", "epochs": 2, "optimizer": "sgd", "lr": 1e6, "schedule": "constant"}
    progress = Recorder()
    rows = run(digits_experiment(baselines=[asked]), tmp_path, stages=["baseline"], progress=progress).rows
    assert rows.converged.tolist() == [False]
    assert progress.warned == ["finetune of resnet20 diverged; try a smaller lr"]


def test_an_unconverged_classifier_is_recorded_and_warned_of(tmp_path: Path) -> None:
    evaluate = {"classifiers": ["linear_svc"], "grids": {"linear_svc": {"max_iter": [1]}}}
    progress = Recorder()
    experiment = digits_experiment(backbones=[{"name": "pixels"}], evaluate=evaluate)
    rows = run(experiment, tmp_path, progress=progress).rows
    assert rows.converged.tolist() == [False]
    assert progress.warned == ["linear_svc on pixels pixels did not converge; its row says so"]


def test_an_interrupt_keeps_the_rows_that_are_finished(tmp_path: Path) -> None:
    steps: list[int] = []

    def interrupt_after_the_second_classifier() -> None:
        if (tmp_path / "results" / "results.csv").exists():
            steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(digits_experiment(), tmp_path, progress=Recorder(interrupt_after_the_second_classifier))
    kept = featbench.load_results(tmp_path / "results")
    assert kept.method.tolist() == ["linear_svc", "svm_rbf"]
    rows = run(digits_experiment(), tmp_path).rows
    pd.testing.assert_frame_equal(rows.iloc[:2], kept)
    assert len(rows) == 6


def test_a_class_with_fewer_images_than_folds_is_refused_before_any_work(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos" / "train", per_class=3).parent
    image_folder(root / "test", per_class=3)
    experiment = digits_experiment(dataset={"name": "folder", "root": str(root)})
    with pytest.raises(DataError, match=r"class 'blue' has 3 images.*evaluate\.folds = 5"):
        run(experiment, tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.name=digit", "did you mean 'digits'"),
        ("backbones.0.name=resnet21", "did you mean 'resnet"),
        ("backbones.0.pooling=average", "did you mean 'avg'"),
        ("evaluate.grids.linear_svc.c=[1]", "did you mean 'C'"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        featbench.run("digits", results=tmp_path / "r", cache=tmp_path / "c", overrides=[override])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", "cpu:0"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"device '{device}'"):
        featbench.run(digits_experiment(), results=tmp_path / "r", cache=tmp_path / "c", device=device)
    assert list(tmp_path.iterdir()) == []


def test_without_classifiers_nothing_is_extracted(tmp_path: Path) -> None:
    experiment = digits_experiment(
        backbones=[{"name": "mlp", "image_size": 8}],
        evaluate={"classifiers": []},
        baselines=[{"strategy": "scratch", "epochs": 1}],
    )
    rows = featbench.run(experiment, results=tmp_path / "r", cache=tmp_path / "cache", device="cpu")
    assert rows.method.tolist() == ["scratch"]
    assert list((tmp_path / "cache").rglob("*.h5")) == []


@pytest.mark.parametrize("name", ["mlp:widths=16-8,batch_norm=true", "convnet:dropout=0.2"])
def test_a_network_that_was_trained_is_a_backbone(name: str, tmp_path: Path) -> None:
    tiny = {"name": "digits", "limit_train": 80, "limit_test": 30, "val_fraction": 0.03}
    trained = digits_experiment(
        dataset=tiny,
        backbones=[{"name": name, "image_size": 8}],
        baselines=[{"strategy": "scratch", "epochs": 2, "dropout": 0.1}],
    )
    places = {"results": tmp_path / "trained", "cache": tmp_path / "cache", "device": "cpu"}
    featbench.run(trained, stages=["baseline"], **places)
    weights = next((tmp_path / "trained" / "models").glob("*.safetensors"))
    experiment = digits_experiment(
        dataset=tiny,
        backbones=[
            {"name": name, "image_size": 8, "weights": str(weights), "layers": ["blocks"], "precision": "float32"}
        ],
        evaluate={"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [0.01]}}},
        baselines=[
            {"strategy": "linear_head", "epochs": 1},
            {"strategy": "partial", "freeze_until": "layer1", "epochs": 1},
        ],
    )
    rows = featbench.run(experiment, **places | {"results": tmp_path / "reused"})
    layers = ["layer1", "layer2"] if name.startswith("mlp") else ["layer1", "layer2", "layer3"]
    assert rows.layer.dropna().tolist() == layers
    assert set(rows.weights) == {weights.name}
    assert rows.method.tolist()[-2:] == ["linear_head", "partial"]
    # the cached features are what the trained network computes by itself
    state = safetensors.torch.load_file(weights)
    network = get_architecture(name, channels=1).make(8).eval()
    network.load_state_dict(state)
    cached = next((tmp_path / "cache").rglob("test-*.h5"))
    X, _, ids = featbench.load_features(cached, layers[-1])
    with torch.inference_mode():
        pixels = load_digits().images[[int(id_.removeprefix("digits/")) for id_ in ids]]
        images = torch.from_numpy(np.rint(pixels * (255 / 16)) / 127.5 - 1).float()[:, None]
        for number in range(1, len(layers) + 1):
            images = network.get_submodule(f"layer{number}")(images)
    np.testing.assert_allclose(X, images.numpy(), atol=1e-5)
