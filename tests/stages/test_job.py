from __future__ import annotations

from pathlib import Path

import pytest
import torch

from featbench.errors import DataError, ResultsError
from featbench.stages.job import Job
from tests.tiny import digits_experiment


def make_job(home: Path, **changes: object) -> Job:
    return Job(digits_experiment(**changes), home / "results", home / "cache", home / "data", torch.device("cpu"))


def test_the_data_set_is_read_once(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert job.dataset is job.dataset


def test_prepare_writes_what_is_about_to_be_done(tmp_path: Path) -> None:
    make_job(tmp_path).prepare()
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"experiment.toml", "environment.json"}
    assert not (tmp_path / "cache").exists()


def test_prepare_refuses_a_results_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(ResultsError, match=r"cannot write .*results"):
        make_job(tmp_path).prepare()


def test_prepare_refuses_what_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="limit_train = 5"):
        make_job(tmp_path, dataset={"name": "digits", "limit_train": 5}).prepare()


def test_there_is_no_row_before_the_first(tmp_path: Path) -> None:
    assert not make_job(tmp_path).has_row("0123456789abcdef")
