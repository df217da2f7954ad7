"""How often a run does what it should do once: counted from outside, by what it calls and opens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import featbench
from featbench.runs.finished import RECORD
from tests.tiny import digits_experiment

CODE = """
from collections import OrderedDict

from sklearn.linear_model import RidgeClassifier
from torch import nn

counts = {"network": 0, "weights": 0, "classifier": 0}


class Network(nn.Sequential):
    def state_dict(self, *args, **kwargs):
        counts["weights"] += 1
        return super().state_dict(*args, **kwargs)


def network():
    counts["network"] += 1
    layers = {"conv": nn.Conv2d(3, 4, 3, 4), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    return Network(OrderedDict(layers, head=nn.Linear(4, 10)))


def classifier():
    counts["classifier"] += 1
    return RidgeClassifier()
"""


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of the user's own that counts: networks made, their weights read, and classifiers made."""
    (tmp_path / "counted.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("counted")
    del sys.modules["counted"]


def experiment(**changes: object) -> featbench.Experiment:
    network = {"name": "python:counted:network", "image_size": 32, "layers": ["conv", "pool"]}
    evaluate = {"classifiers": ["linear_svc"], "grids": {"linear_svc": {"C": [0.01]}}}
    return digits_experiment(**({"backbones": [network], "evaluate": evaluate} | changes))


def test_a_network_is_built_and_its_weights_are_read_once_for_extraction(tmp_path: Path, counted: ModuleType) -> None:
    featbench.run(experiment(), results=tmp_path / "r", cache=tmp_path / "c", device="cpu")
    assert counted.counts["network"] == 1
    assert counted.counts["weights"] == 1


def test_a_network_is_built_once_more_for_each_training(tmp_path: Path, counted: ModuleType) -> None:
    asked = [{"strategy": "scratch", "epochs": 1, "repeats": 2}]
    featbench.run(experiment(baselines=asked), results=tmp_path / "r", cache=tmp_path / "c", device="cpu")
    assert counted.counts["network"] == 3


def test_a_classifier_of_ones_own_is_made_once_a_run(tmp_path: Path, counted: ModuleType) -> None:
    evaluate = {"classifiers": ["python:counted:classifier"], "selection": "none", "grids": {}}
    featbench.run(
        experiment(backbones=[{"name": "pixels"}], evaluate=evaluate),
        results=tmp_path / "r",
        cache=tmp_path / "c",
        device="cpu",
    )
    assert counted.counts["classifier"] == 1


class Opened:
    """Counts the times that a file is opened to be read, while it is watched."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.times = 0
        sys.addaudithook(self.hear)  # for good: a hook cannot be taken away

    def hear(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open" and self.path is not None and args[0] == str(self.path) and args[1] in ("r", "rb"):
            self.times += 1


def test_results_csv_is_parsed_once_a_run(tmp_path: Path) -> None:
    first = digits_experiment(evaluate={"classifiers": ["linear_svc", "knn"]})
    second = digits_experiment(evaluate={"classifiers": ["linear_svc", "knn", "ridge", "lda"]})
    folders = {"results": tmp_path / "r", "cache": tmp_path / "c", "device": "cpu"}
    opened = Opened()
    opened.path = tmp_path / "r" / "results.csv"
    featbench.run(first, **folders)
    assert opened.times == 0  # it wrote the rows itself
    featbench.run(second, **folders)
    opened.path = None
    assert opened.times == 2  # to see how the file is written, and to read it
    assert len(featbench.load_results(tmp_path / "r")) == 8


def test_a_finished_run_reads_what_it_made_only_where_something_changed(tmp_path: Path) -> None:
    asked = digits_experiment(evaluate={"classifiers": ["knn"]})
    folders = {"results": tmp_path / "r", "cache": tmp_path / "c", "device": "cpu"}
    rows = featbench.run(asked, **folders)
    page, record = tmp_path / "r" / "report.html", tmp_path / "r" / RECORD
    assert record.is_file()
    written = page.stat().st_mtime_ns
    again = featbench.run(asked, **folders)
    assert again["fingerprint"].tolist() == rows["fingerprint"].tolist()
    assert page.stat().st_mtime_ns == written

    page.unlink()
    featbench.run(asked, **folders)
    assert page.is_file()

    (tmp_path / "r" / "results.csv").unlink()
    assert len(featbench.run(asked, **folders)) == len(rows)

    other = featbench.run(digits_experiment(evaluate={"classifiers": ["knn", "lda"]}), **folders)
    assert set(other["method"]) == {"knn", "lda"}

    record.write_text("{}")
    assert len(featbench.run(asked, **folders)) == len(rows)
