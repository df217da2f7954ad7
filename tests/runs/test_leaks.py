"""Nothing of the test split bears on what is chosen or trained: whole stages, on data sets that were tampered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from featbench.config import Experiment
from featbench.data.splits import Dataset
from featbench.results.store import load_results
from featbench.runs.classify import classify
from featbench.runs.extract import extract
from featbench.runs.resolve import Run
from featbench.runs.tables import load_model_predictions
from featbench.runs.train import train
from featbench.stats.accuracy import best_by_validation
from featbench.stats.advice import advise
from featbench.stats.comparisons import compare_models
from featbench.stats.metrics import wilson_interval
from featbench.stats.models import main_rows
from tests.tiny import GRIDS, Recorder, digits_content

CHOSEN = ["method", "params", "selection", "n_train", "n_val", "val_accuracy", "converged"]
Tamper = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def finished(home: Path, tampered: dict[str, Tamper], **changes: Any) -> Run:
    """Run the stages on digits of which the labels of some splits were changed."""
    content = digits_content(**({"backbones": [{"name": "pixels"}]} | changes))
    places = (home / "results", home / "cache", home / "data")
    job = Run(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())
    rng = np.random.default_rng(0)
    splits = {
        name: replace(split, labels=tampered[name](split.labels, rng)) if name in tampered else split
        for name, split in job.dataset.splits.items()
    }
    job.__dict__["dataset"] = Dataset(job.dataset.name, job.dataset.classes, splits)
    extract(job)
    classify(job)
    train(job)
    return job


def shuffled(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(labels)


def model_bytes(job: Run) -> list[bytes]:
    files = [file for file in (job.results_dir / "models").iterdir() if file.suffix == ".safetensors"]
    return [file.read_bytes() for file in sorted(files)]


def best_and_advice(job: Run) -> tuple[str, str]:
    rows = load_results(job.results_dir)
    best = best_by_validation(rows)
    assert best is not None
    answers = load_model_predictions(job.results_dir, main_rows(rows), job.progress.warn)
    return best["method"], advise(rows, compare_models(answers, job.progress.warn))[0].partition(";")[0]


def test_what_is_chosen_and_trained_is_the_same_whatever_the_test_labels_are(tmp_path: Path) -> None:
    changes = {
        "backbones": [{"name": "pixels"}, {"name": "resnet20", "layers": ["layer3"]}],
        "baselines": [{"strategy": "linear_head", "epochs": 2}],
    }
    first, second = (
        finished(tmp_path / name, tampered, **changes)
        for name, tampered in {"true": {}, "shuffled": {"test": shuffled}}.items()
    )
    rows, others = (load_results(job.results_dir) for job in (first, second))
    pd.testing.assert_frame_equal(rows[CHOSEN], others[CHOSEN])
    assert model_bytes(first) == model_bytes(second) != []
    assert best_and_advice(first) == best_and_advice(second)
    assert rows.accuracy.mean() > 0.5
    assert others.accuracy.mean() < 0.3


@pytest.mark.parametrize("selection", ["cv", "holdout"])
def test_labels_without_meaning_score_at_chance(tmp_path: Path, selection: str) -> None:
    halved = {name: lambda labels, rng: rng.permutation(labels % 2) for name in ("train", "val", "test")}
    job = finished(
        tmp_path,
        halved,
        dataset={"name": "digits", "limit_train": 200, "test_fraction": 0.4},
        evaluate={
            "classifiers": [*GRIDS, "knn", "logistic_regression"],
            "grids": GRIDS,
            "selection": selection,
            "steps": [[], ["power", "pca_whiten:0.9", "l2"]],
        },
    )
    rows = load_results(job.results_dir)
    assert len(rows) == 10
    for row in rows.itertuples():
        low, high = wilson_interval(round(row.accuracy * row.n_test), row.n_test, confidence=0.999)  # ten chances
        assert low < 0.5 < high, row.method
        low, high = wilson_interval(round(row.val_accuracy * row.n_val), row.n_val, confidence=0.999)
        assert low < 0.5 < high, row.method  # the best of a grid of two: a little above chance is no leak
