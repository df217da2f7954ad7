from __future__ import annotations

from pathlib import Path

import pytest
import torch

from featbench.errors import DataError, ResultsError, UsageError
from featbench.runs.plan import describe_plan
from featbench.runs.resolve import Run
from tests.tiny import digits_experiment, image_folder


def make_job(home: Path, **changes: object) -> Run:
    return Run(digits_experiment(**changes), home / "results", home / "cache", home / "data", torch.device("cpu"))


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


def test_a_results_folder_of_another_data_set_is_refused_before_any_work(tmp_path: Path) -> None:
    for site in ("siteA", "siteB"):
        image_folder(tmp_path / site / "images")

    def job(root: str) -> Run:
        return make_job(tmp_path, dataset={"name": "folder", "root": root})

    job(str(tmp_path / "siteA" / "images")).prepare()
    job(str(tmp_path / "siteB" / ".." / "siteA" / "images")).prepare()  # the same one
    before = {path: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    others = {"siteB": job(str(tmp_path / "siteB" / "images")), "digits": make_job(tmp_path)}
    for name, other in others.items():
        message = rf"results holds the results of another data set, .*siteA/images, and this is .*{name}.*--results DIR"
        with pytest.raises(UsageError, match=message):
            other.prepare()
        with pytest.raises(UsageError, match=message):
            describe_plan(other, ["extract"])
    assert {path: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    (tmp_path / "results" / "experiment.toml").unlink()  # the way on of images that moved
    others["siteB"].prepare()
    (tmp_path / "results" / "experiment.toml").write_text("no TOML")
    others["digits"].prepare()


def test_there_is_no_row_before_the_first(tmp_path: Path) -> None:
    assert not make_job(tmp_path).table.has("0123456789abcdef")
