"""The lines of pandas on the page about the results folder, run on made-up models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.docs.manual import PAGES, blocks
from tests.report.folders import results_folder

PAGE = next(page for page in PAGES if page.name == "results.md")


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the blocks one after the other beside a results folder, as a reader would."""
    network = {"backbone": "resnet20_cifar10", "method": "linear_svc"}
    pixels = {"backbone": "pixels", "layer": "pixels", "weights": "none", "pooling": None, "method": "linear_svc"}
    curve = {**network, "layer": "layer1", "val_accuracy": 0.1}
    models: list[dict[str, Any]] = [
        {**network, "layer": "layer1", "accuracy": 0.9, "val_accuracy": 0.8, "fit_s": 4.0},
        {**network, "layer": "layer3", "accuracy": 0.8, "val_accuracy": 0.9, "fit_s": 3.0},
        {**network, "layer": "layer3", "accuracy": 0.7, "val_accuracy": 0.6, "seed": 1},
        {**pixels, "accuracy": 0.6, "val_accuracy": 0.5, "extract_s": 0.0, "fit_s": 1.0},
        {**curve, "accuracy": 0.4, "n_train": 30, "images_per_class": 10},
        {**curve, "accuracy": 0.5, "n_train": 30, "images_per_class": 10, "seed": 1},
        {**curve, "accuracy": 0.7, "n_train": 60, "images_per_class": 20},
        {
            "method": "finetune",
            "kind": "baseline",
            "accuracy": 1.0,
            "val_accuracy": 0.9,
            "extract_s": None,
            "fit_s": 90.0,
        },
    ]
    results_folder(tmp_path / "results" / "digits", models=models, n_test=30)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    found = blocks(PAGE, "python")
    assert len(found) == 6
    for block in found:
        exec(compile(block, PAGE.name, "exec"), names)
    return names


def test_the_best_layer_is_chosen_by_validation(answers: dict[str, Any]) -> None:
    best = answers["best"].set_index("backbone")
    assert best.loc["resnet20_cifar10", ["layer", "accuracy"]].tolist() == ["layer3", 0.8]
    assert best.loc["pixels", "accuracy"] == 0.6


def test_the_gain_over_pixels(answers: dict[str, Any]) -> None:
    gain = answers["gain"]["linear_svc"]
    assert gain[("pixels", "pixels")] == 0
    assert gain[("resnet20_cifar10", "layer3")] == pytest.approx((0.8 + 0.7) / 2 - 0.6)


def test_cost_against_accuracy(answers: dict[str, Any]) -> None:
    cost = answers["cost"]
    assert cost["seconds"].is_monotonic_increasing
    assert cost["seconds"].tolist()[0] == pytest.approx(0.0 + 1.0 + 0.5)
    assert cost["seconds"].tolist()[-1] == pytest.approx(90.0 + 0.5)


def test_seeds(answers: dict[str, Any]) -> None:
    line = answers["seeds"].loc[("linear_svc", "resnet20_cifar10", "layer3")]
    assert line["count"] == 2
    assert line["std"] == pytest.approx(0.1 / 2**0.5)


def test_the_learning_curve(answers: dict[str, Any]) -> None:
    curve = answers["curve"][("resnet20_cifar10", "layer1", "linear_svc")]
    assert curve.to_dict() == {10: pytest.approx(0.45), 20: pytest.approx(0.7)}


def test_columns_are_typed(answers: dict[str, Any]) -> None:
    rows = answers["rows"]
    assert rows["n_test"].dtype == "Int64"
    assert rows["accuracy"].dtype == "float64"
    assert rows["converged"].dtype == "boolean"
    assert isinstance(rows["created_at"].dtype, pd.DatetimeTZDtype)
