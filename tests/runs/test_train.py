from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from featbench.config import Experiment
from featbench.errors import DataError, UsageError
from featbench.results.artifacts import load_predictions
from featbench.results.store import load_results
from featbench.runs import trainings
from featbench.runs.resolve import Run
from featbench.runs.train import train
from featbench.stats.spread import curve_table
from tests.tiny import Recorder, digits_content, image_folder

HEAD = {"strategy": "linear_head", "epochs": 1}
SCRATCH = {"strategy": "scratch", "epochs": 1, "batch_size": 16, "refit": False}


def make_job(home: Path, baselines: list[dict[str, Any]], **changes: Any) -> Run:
    content = digits_content(
        dataset={"name": "digits", "limit_train": 40, "limit_test": 20, "val_fraction": 0.02},
        backbones=[{"name": "resnet20"}],
        baselines=baselines,
    )
    places = (home / "results", home / "cache", home / "data")
    return Run(Experiment.model_validate(content | changes), *places, torch.device("cpu"), progress=Recorder())


def test_without_baselines_nothing_is_done(tmp_path: Path) -> None:
    assert train(make_job(tmp_path, [])) == []
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprints_returned_are_those_of_the_rows(tmp_path: Path) -> None:
    job = make_job(tmp_path, [HEAD, SCRATCH])
    assert train(job) == load_results(job.results_dir).fingerprint.tolist()
    again = make_job(tmp_path, [HEAD, SCRATCH])
    assert train(again) == load_results(job.results_dir).fingerprint.tolist()
    assert again.progress.bars == []


def test_the_row_holds_the_whole_recipe(tmp_path: Path) -> None:
    job = make_job(tmp_path, [SCRATCH])
    train(job)
    row = load_results(job.results_dir).iloc[0]
    params = json.loads(row.params)
    assert params.items() >= {**SCRATCH, "optimizer": "adamw", "lr": 0.002, "best_epoch": 1}.items()
    assert (row.kind, row.selection, row.engine, row.weights) == ("baseline", "holdout", "lightning", "random")
    assert pd.isna(row.layer)
    assert (row.n_train, row.n_test) == (40, 20)


def test_the_rows_of_a_refit_are_those_of_train_and_val(tmp_path: Path) -> None:
    alone, refitted = ({**HEAD, "refit": refit, "label": f"refit-{refit}"} for refit in (False, True))
    job = make_job(tmp_path, [alone, refitted])
    train(job)
    rows = load_results(job.results_dir)
    assert rows[["n_train", "n_val", "n_test"]].to_numpy().tolist() == [[40, 36, 20], [76, 36, 20]]
    assert rows.val_accuracy.nunique() == 1


def test_two_of_one_strategy_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    job = make_job(tmp_path, [SCRATCH, SCRATCH | {"label": "again"}])
    assert len(set(train(job))) == 2
    rows = load_results(job.results_dir)
    assert rows.method.tolist() == ["scratch", "scratch:again"]
    assert rows.accuracy.nunique() == 1  # a label changes nothing but the name
    assert job.progress.bars == ["scratch", "scratch"]


def test_a_learning_curve_has_a_network_for_every_size_and_draw(tmp_path: Path) -> None:
    evaluate = {"classifiers": ["linear_svc"], "train_sizes": [1, 2], "repeats": 2}
    job = make_job(tmp_path, [HEAD], evaluate=evaluate)
    train(job)
    rows = load_results(job.results_dir)
    assert rows.images_per_class.tolist() == [1, 2, 1, 2]
    assert rows[["n_train", "seed"]].to_numpy().tolist() == [[10, 0], [20, 0], [10, 1], [20, 1]]
    assert train(make_job(tmp_path, [HEAD], evaluate=evaluate)) == rows.fingerprint.tolist()
    assert curve_table(rows)[["method", "images_per_class", "n_repeats"]].to_numpy().tolist() == [
        ["linear_head", 1, 2],
        ["linear_head", 2, 2],
    ]


@pytest.mark.parametrize(("asked", "had"), [("auto", "bfloat16"), ("float32", "float32"), ("bfloat16", "bfloat16")])
def test_precision_follows_the_hardware_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, had: str
) -> None:
    monkeypatch.setattr(trainings, "best_precision", lambda device: "bfloat16")
    job = make_job(tmp_path, [HEAD], backbones=[{"name": "resnet20", "precision": asked}])
    assert [training.precision for training in trainings.trainings_of(job, trainings.splits_of(job))] == [had]


def test_a_size_beyond_the_smallest_class_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, [HEAD], evaluate={"train_sizes": [500]})
    with pytest.raises(UsageError, match="asks for 500 images a class, and the smallest class has"):
        train(job)


def test_a_search_is_in_the_row_and_leaves_no_checkpoints(tmp_path: Path) -> None:
    job = make_job(tmp_path, [HEAD | {"tune": 3, "lr": "auto"}])
    train(job)
    params = json.loads(load_results(job.results_dir).iloc[0].params)
    assert params["lr_by"] == "range test"
    assert params["tuned"]["trainings"] == len(params["tuned"]["lr_epochs_val_accuracy"]) == 3
    assert [params["lr"], params["epochs"]] in [trial[:2] for trial in params["tuned"]["lr_epochs_val_accuracy"]]
    assert job.progress.bars == [f"linear_head {number} of 3" for number in (1, 2, 3)]
    assert not list(job.results_dir.glob("checkpoints/*"))


def test_one_network_asked_for_by_two_entries_is_trained_once(tmp_path: Path) -> None:
    entries = [{"name": "resnet20"}, {"name": "resnet20", "layers": ["layer1"]}, {"name": "pixels"}]
    job = make_job(tmp_path, [SCRATCH], backbones=entries)
    assert len(train(job)) == 1
    assert job.progress.bars == ["scratch"]


def test_a_baseline_may_name_its_backbone(tmp_path: Path) -> None:
    entries = [{"name": "resnet20"}, {"name": "squeezenet1_1", "weights": "random", "image_size": 32}]
    job = make_job(tmp_path, [HEAD | {"backbone": "squeezenet1_1"}], backbones=entries)
    train(job)
    assert load_results(job.results_dir).backbone.tolist() == ["squeezenet1_1"]


def test_where_there_is_no_val_split_one_is_held_out_of_train(tmp_path: Path) -> None:
    image_folder(tmp_path / "photos" / "train", per_class=20)
    image_folder(tmp_path / "photos" / "test", per_class=4)
    dataset = {"name": "folder", "root": str(tmp_path / "photos"), "val_fraction": 0.2}
    job = make_job(tmp_path, [HEAD], dataset=dataset)
    train(job)
    row = load_results(job.results_dir).iloc[0]
    assert (row.n_train, row.n_val, row.n_test) == (48, 12, 12)


def test_unreadable_images_are_left_out_of_every_split(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos")
    job = make_job(tmp_path, [HEAD], dataset={"name": "folder", "root": str(root)})
    broken = {split: part.ids[1] for split, part in job.dataset.splits.items()}
    sizes = {split: len(part) for split, part in job.dataset.splits.items()}
    for name in broken.values():
        (root / name).write_bytes(b"")
    train(job)
    row = load_results(job.results_dir).iloc[0]
    assert [row.n_train, row.n_val, row.n_test] == [sizes[split] - 1 for split in ("train", "val", "test")]
    table = load_predictions(job.results_dir, row.fingerprint)
    assert broken["test"] not in set(table.id)
    assert [name.split("/")[0] for name in table.id] == table.label.tolist()
    skipped = pd.read_csv(job.results_dir / "skipped.csv")
    assert dict(zip(skipped.split, skipped.id, strict=True)) == broken


def test_a_class_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos")
    job = make_job(tmp_path, [HEAD], dataset={"name": "folder", "root": str(root)})
    for name in job.dataset.splits["val"].ids:
        if name.startswith("green/"):
            (root / name).write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no image of class 'green' in val can be read, of \d \(green/\S+: it is empty\)"
    ):
        train(job)
    assert not (job.results_dir / "results.csv").exists()


def test_notes_of_images_held_out_of_train_are_those_of_train(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 4)):
        root = image_folder(tmp_path / "photos" / split, per_class=count)
        for path in (root / "green").iterdir():
            Image.new("RGB", (40, 40), "green").save(path)
    dataset = {"name": "folder", "root": str(tmp_path / "photos"), "val_fraction": 0.2}
    job = make_job(tmp_path, [HEAD], dataset=dataset)
    train(job)
    notes = pd.read_csv(job.results_dir / "notes.csv")
    assert dict(zip(notes.split, notes.images, strict=True)) == {"train": 20, "test": 4}
    assert sum("24 images are of one colour" in warning for warning in job.progress.warned) == 1  # type: ignore[attr-defined]


def test_no_readable_test_image_is_an_error(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos")
    job = make_job(tmp_path, [HEAD], dataset={"name": "folder", "root": str(root)})
    for name in job.dataset.splits["test"].ids:
        (root / name).write_bytes(b"")
    with pytest.raises(DataError, match="none of the 6 images of test can be read"):
        train(job)


def test_an_unknown_layer_to_freeze_names_the_nearest(tmp_path: Path) -> None:
    job = make_job(tmp_path, [{"strategy": "partial", "freeze_until": "layr2"}])
    with pytest.raises(UsageError, match="did you mean 'layer2'"):
        train(job)


def test_a_second_run_waits_for_the_one_that_trains_the_network_and_has_its_row(tmp_path: Path) -> None:
    first, second = (make_job(tmp_path, [SCRATCH]) for _ in range(2))
    waiter = threading.Thread(target=train, args=(second,))

    def meet() -> None:
        if waiter.ident is None:
            waiter.start()
            while "scratch of resnet20: waits for another process" not in " ".join(second.progress.said):
                assert waiter.is_alive()
                time.sleep(0.01)

    first.progress.on_advance = meet
    train(first)
    waiter.join()
    assert second.progress.said[1:] == ["scratch of resnet20: already in results.csv"]
    assert second.progress.bars == []
    assert not list(first.results_dir.glob("checkpoints/*"))


class Killed(BaseException):
    pass


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path) -> None:
    def die() -> None:
        raise Killed

    asked = SCRATCH | {"epochs": 3}
    killed = make_job(tmp_path, [asked])
    killed.progress.on_advance = die
    with pytest.raises(Killed):
        train(killed)
    assert len(list(killed.results_dir.glob("checkpoints/*.ckpt"))) == 1
    assert not (killed.results_dir / "results.csv").exists()
    job = make_job(tmp_path, [asked])
    train(job)
    assert "scratch of resnet20: continues from its checkpoint" in job.progress.said
    assert not list(job.results_dir.glob("checkpoints/*"))
    whole = make_job(tmp_path / "whole", [asked])
    train(whole)
    resumed, undisturbed = (load_results(each.results_dir).iloc[0] for each in (job, whole))
    assert resumed.accuracy == undisturbed.accuracy
    assert resumed.fingerprint == undisturbed.fingerprint
    weights = [next(each.results_dir.glob("models/*.safetensors")).read_bytes() for each in (job, whole)]
    assert weights[0] == weights[1]
