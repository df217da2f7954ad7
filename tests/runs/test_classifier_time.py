from __future__ import annotations

from pathlib import Path

import pytest

from featbench.runs.classifier_time import Size, classifier_seconds, growth
from featbench.runs.pipeline import make_job
from tests.tiny import digits_experiment

PART = Size(600, (512,), 10)


@pytest.mark.parametrize(
    ("name", "whole", "expected"),
    [
        ("linear_svc", PART, 1),
        ("linear_svc", Size(6_000, (512, 1_024), 10), 30),
        ("svm_rbf", Size(6_000, (512,), 10), 10**1.7),
        ("svm_rbf", Size(600, (2_048, 512), 10), 3),
        ("random_forest", Size(6_000, (128,), 10), 5),
        ("logistic_regression", Size(600, (512,), 100), 10),
        ("knn", Size(1_200, (256,), 100), 2),
        ("python:module:make", Size(1_200, (256,), 100), 1),
    ],
)
def test_how_the_seconds_grow(name: str, whole: Size, expected: float) -> None:
    assert growth(name, PART, whole) == pytest.approx(expected)


def test_an_estimate_leaves_nothing_behind(tmp_path: Path) -> None:
    job = make_job(digits_experiment(), results=tmp_path / "r", cache=tmp_path / "c", device="cpu")
    assert classifier_seconds(job) > 0
    assert list(tmp_path.iterdir()) == []
