from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from featbench.config import Experiment
from featbench.errors import CacheError, UsageError
from featbench.results.models import main_rows
from featbench.results.spread import curve_table
from featbench.results.store import load_predictions, load_results
from featbench.stages.evaluate import evaluate
from featbench.stages.extract import extract
from featbench.stages.job import Job
from tests.tiny import Recorder, digits_content


def make_job(home: Path, **evaluate_table: Any) -> Job:
    content = digits_content(
        dataset={"name": "digits", "limit_train": 120, "limit_test": 50, "val_fraction": 0.04},
        backbones=[{"name": "pixels"}],
        evaluate={"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [1e-3, 1e-2]}}} | evaluate_table,
    )
    places = (home / "results", home / "cache", home / "data")
    return Job(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    extract(make_job(tmp_path))
    return tmp_path


def test_the_fingerprints_returned_are_those_of_the_rows(home: Path) -> None:
    job = make_job(home)
    assert evaluate(job) == load_results(job.results_dir).fingerprint.tolist()
    assert evaluate(job) == load_results(job.results_dir).fingerprint.tolist()


@pytest.mark.parametrize("selection", ["cv", "holdout", "none"])
def test_the_row_says_how_parameters_were_chosen(home: Path, selection: str) -> None:
    job = make_job(home, selection=selection, **({"grids": {}} if selection == "none" else {}))
    evaluate(job)
    row = load_results(job.results_dir).iloc[0]
    params = json.loads(row.params)
    assert row.selection == selection
    assert params["C"] in ([1.0] if selection == "none" else [1e-3, 1e-2])  # 1 is scikit-learn's own
    assert params["candidates_not_converged"] == 0
    assert params["scaler"] == "StandardScaler"


def test_the_seconds_of_extraction_are_those_of_all_splits(home: Path) -> None:
    job = make_job(home)
    evaluate(job)
    (cached,) = extract(job)
    expected = sum(info.extract_s["pixels"] for info in cached.infos.values())
    assert load_results(job.results_dir).extract_s[0] == pytest.approx(expected)


def test_a_learning_curve_is_a_row_a_size(home: Path) -> None:
    job = make_job(home, train_sizes=[2, 5], repeats=2)
    evaluate(job)
    rows = load_results(job.results_dir)
    assert rows.n_train.tolist() == [20, 50, 20, 50]
    assert rows.seed.tolist() == [0, 0, 1, 1]
    assert [json.loads(params)["images_per_class"] for params in rows.params] == [2, 5, 2, 5]
    assert curve_table(rows)[["images_per_class", "n_repeats"]].to_numpy().tolist() == [[2, 2], [5, 2]]
    assert main_rows(rows).n_train.tolist() == [50]
    tables = [load_predictions(job.results_dir, name) for name in rows.fingerprint]
    assert len({tuple(table.id) for table in tables}) == 1


def test_a_size_beyond_the_smallest_class_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="train_sizes asks for 100 images a class"):
        evaluate(make_job(home, train_sizes=[100]))


def test_without_classifiers_nothing_is_done_and_no_cache_is_needed(tmp_path: Path) -> None:
    assert evaluate(make_job(tmp_path, classifiers=[], grids={})) == []
    with pytest.raises(CacheError):
        evaluate(make_job(tmp_path))
