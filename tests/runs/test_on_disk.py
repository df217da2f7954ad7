from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featbench.config import Experiment
from featbench.errors import CacheError, UsageError
from featbench.results.artifacts import load_predictions
from featbench.results.store import load_results
from featbench.runs.classify import classify
from featbench.runs.extract import extract
from featbench.runs.resolve import Run
from tests.disks import largest_file
from tests.row_blocks import compare
from tests.tiny import Recorder, digits_content

FUSION = ["resnet20/layer1", "pixels/pixels"]
TINY_GB = 0.00015  # 400 images of 16 features and their copies take more


def make_job(home: Path, results: str = "results", **table: Any) -> Run:
    stores = ["float16", "float32"]
    content = digits_content(
        dataset={"name": "digits", "limit_train": 300, "limit_test": 50, "val_fraction": 0.04},
        backbones=[{"name": "resnet20", "layers": ["layer1"], "store": stores[0]}, {"name": "pixels"}],
        evaluate={"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [1e-4, 1e-2]}}} | table,
    )
    places = (home / results, home / "cache", home / "data")
    return Run(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    extract(make_job(folder))
    return folder


def test_features_beyond_the_memory_give_the_same_rows(home: Path) -> None:
    before = sorted(home.joinpath("cache").rglob("*"))
    tables = []
    for results, more in (("in_memory", {}), ("on_disk", {"memory_gb": TINY_GB})):
        job = make_job(home, results, fusions=[FUSION], **more)
        names = classify(job)
        assert isinstance(job.progress, Recorder)
        assert len([message for message in job.progress.said if "read from disk in blocks" in message]) == 3 * len(more)
        rows = load_results(job.results_dir)
        predictions = [load_predictions(job.results_dir, name).predicted.tolist() for name in names]
        tables.append((names, rows.feature_dim.tolist(), [json.loads(p) for p in rows.params], predictions))
        assert classify(job) == names
    assert tables[0] == tables[1]
    assert tables[0][1] == [16, 64, 80]
    assert sorted(home.joinpath("cache").rglob("*")) == before


def test_what_cannot_read_from_disk_is_refused_before_any_work(home: Path) -> None:
    job = make_job(home, "refused", classifiers=["linear_svc", "knn"], memory_gb=TINY_GB)
    with pytest.raises(UsageError, match=r"knn on resnet20 layer1 takes about 0\.000"):
        classify(job)
    assert not job.results_dir.exists()


def test_a_learning_curve_is_in_memory_where_it_fits(home: Path) -> None:
    sizes = {"train_sizes": [2], "selection": "none", "grids": {}}
    job = make_job(home, "curve", classifiers=["knn"], memory_gb=0.0003, **sizes)
    classify(job)
    assert load_results(job.results_dir).n_train.tolist() == [20, 20]


def test_no_room_for_the_file(home: Path) -> None:
    job = make_job(home, "full", memory_gb=TINY_GB)
    with largest_file(4096), pytest.raises(CacheError, match=r"cannot be put into .*: File too large; free some space"):
        classify(job)
    assert not [path for path in job.cache_dir.iterdir() if path.is_file()]
    assert np.isfinite(classify(job) and load_results(job.results_dir).accuracy).all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is told by /proc")
def test_the_memory_stays_within_what_was_given() -> None:
    memory_gb, overhead_mb = 0.03, 40  # blocks, a few matrices of features x features, ids
    found = compare(n_rows=30_000, width=512, n_classes=4, memory_gb=memory_gb, store="float32")
    assert found["blocks"]["peak_mb"] < 1000 * memory_gb + overhead_mb
    assert found["memory"]["peak_mb"] > 30_000 * 512 * 4 / 1e6 > 1000 * memory_gb
    assert found["blocks"]["C"] == found["memory"]["C"]
    assert found["blocks"]["predictions"] == found["memory"]["predictions"]
