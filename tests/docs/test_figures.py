"""Figures that the manual quotes, against the runs that are kept for it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.docs.manual import PAGES, README, ROOT, table_rows

REFERENCE = ROOT / "results" / "reference"
LESSONS = next(page for page in PAGES if page.name == "lessons.md")
BENCHMARKS = next(page for page in PAGES if page.name == "benchmarks.md")


def recorded(folder: str) -> list[dict[str, str]]:
    with (REFERENCE / folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(page: Path, heading: str, first_cell: str) -> list[float]:
    """Return the numbers of the row of a section's table that begins with a cell."""
    section = page.read_text("utf-8").partition(f"## {heading}\n")[2]
    row = next(row for row in table_rows(section) if row[0] == first_cell)
    return [float(cell.lstrip("*")) for cell in row[1:] if cell]


def accuracies(rows: list[dict[str, str]]) -> list[float]:
    return [round(float(row["accuracy"]), 4) for row in rows]


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3", "pixels"])
def test_the_table_of_make_bench(layer: str) -> None:
    rows = [row for row in recorded("digits") if row["layer"] in (layer, "" if layer != "pixels" else layer)]
    title = layer if layer == "pixels" else f"resnet20_cifar10 {layer}"
    assert numbers(README, "The default experiment", title) == accuracies(rows)


def test_the_marked_model_is_the_best_classifier_by_validation() -> None:
    classifiers = [row for row in recorded("digits") if row["kind"] == "classifier"]
    best = max(classifiers, key=lambda row: float(row["val_accuracy"]))
    assert (best["layer"], best["method"]) == ("layer1", "svm_rbf")
    assert f"| resnet20_cifar10 layer1 | 0.9963 | *{float(best['accuracy']):.4f} |" in README.read_text("utf-8")


@pytest.mark.parametrize(
    ("title", "backbone", "weights"),
    [
        ("SqueezeNet 1.1, ImageNet weights", "squeezenet1_1", "squeezenet1_1-imagenet-features.safetensors"),
        ("SqueezeNet 1.1, random weights", "squeezenet1_1", "random"),
        ("pixels, 32x32", "pixels", "none"),
    ],
)
def test_ants_and_bees(title: str, backbone: str, weights: str) -> None:
    rows = [row for row in recorded("hymenoptera") if (row["backbone"], row["weights"]) == (backbone, weights)]
    assert numbers(LESSONS, "Ants and bees", title) == accuracies(rows)


@pytest.mark.parametrize("layer", ["features.7", "features.10", "penultimate"])
def test_cifar10_on_two_cores(layer: str) -> None:
    rows = [row for row in recorded("cifar10_2000") if row["layer"] == layer]
    assert numbers(LESSONS, "CIFAR-10 on two cores", layer) == accuracies(rows)


@pytest.mark.parametrize(
    ("folder", "title"), [("classifiers_cifar10", "CIFAR-10, 50,000"), ("classifiers_mnist", "MNIST, 60,000")]
)
def test_benchmarks_quote_the_accuracies_and_seconds_of_featbench(folder: str, title: str) -> None:
    by_method = {row["method"]: row for row in recorded(folder)}
    section = BENCHMARKS.read_text("utf-8").partition("## Classifiers against GridSearchCV\n")[2]
    rows = table_rows(section)
    start = next(place for place, row in enumerate(rows) if row[0] == title)
    mine = rows[start : start + len(by_method)]
    assert [row[1] for row in mine] == sorted(by_method, key=[row[1] for row in mine].index)
    for _, method, accuracy, seconds, *_ in mine:
        row = by_method[method]
        assert float(accuracy) == round(float(row["accuracy"]), 4)
        assert float(seconds) == pytest.approx(float(row["fit_s"]) + float(row["predict_s"]), rel=0.01)
