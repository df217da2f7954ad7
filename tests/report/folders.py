"""Results folders of made-up models, written by the code that runs write them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featbench.baselines.strategies import STRATEGIES
from featbench.report.folder import Folder, read_folder
from featbench.results.artifacts import artifact_path, write_predictions
from featbench.results.files import write_csv, write_text
from featbench.results.images import MAP_COLUMNS, MAPS, thumbnail_path, write_notes, write_skipped
from featbench.results.row import Row
from featbench.runs.report import report_folders
from featbench.runs.tables import read_tables
from featbench.stats.models import strategy_of
from tests.rows import write_rows

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><img src=x onerror=document.title='owned'>",
    "ants & <b>bees</b> \"'`$x_1$ %{y} {{ 7*7 }}",
    "🐜🐝",
    "نملة",
    "NA",
)
MODELS: tuple[dict[str, Any], ...] = (
    {"method": "linear_svc", "layer": "layer3", "accuracy": 0.9, "val_accuracy": 0.95},
    {"method": "random_forest", "layer": "layer3", "accuracy": 0.6, "val_accuracy": 0.7},
    {"method": "linear_svc", "layer": "layer4", "accuracy": 0.85, "val_accuracy": 0.8, "fit_s": 9.0},
    {"method": "random_forest", "layer": "layer4", "accuracy": 0.5, "val_accuracy": 0.6, "converged": False},
    {"method": "finetune", "layer": None, "kind": "baseline", "accuracy": 0.92, "val_accuracy": 0.9},
)


def results_folder(
    path: Path,
    classes: Sequence[str] = ("ant", "bee", "cat"),
    models: Sequence[dict[str, Any]] = MODELS,
    n_test: int = 60,
) -> Path:
    """Write a folder as a run leaves it, of models that are right with the `accuracy` given."""
    labels = np.arange(n_test) % len(classes)
    ids = [f"test/{classes[label]}/{number:03d}.jpg" for number, label in enumerate(labels)]
    for number, changes in enumerate(models):
        rng = np.random.default_rng(number)
        wrong = rng.permutation(n_test)[: round((1 - changes["accuracy"]) * n_test)]
        predicted = labels.copy()
        predicted[wrong] = (labels[wrong] + 1) % len(classes)
        if changes.get("never_predicted"):
            predicted[predicted == 1] = 0
        row = _row(changes, number, len(classes), n_test, float((labels == predicted).mean()))
        scores = rng.random((n_test, len(classes))) + 2 * np.eye(len(classes))[predicted]
        write_predictions(path, row, ids, labels, predicted, scores, classes)
        if strategy_of(row.method) in STRATEGIES:
            epochs = [[e, 1 / e, 1 - 0.5 / e, 1.1 / e, [0.5, 0.9, 0.8][e - 1], 0.01, 2.0] for e in (1, 2, 3)]
            columns = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
            write_csv(artifact_path(path, "history", row, ".csv"), columns, epochs)
        write_rows(path, [row])
    place = np.random.default_rng(0).random((n_test, 4))
    head = ["pets", "resnet18", "IMAGENET1K_V1", "layer3", "avg", "cafe", n_test]
    lines = [[*head, i, classes[y], *p[:2], 0.5, 0.25, *p[2:]] for i, y, p in zip(ids, labels, place, strict=True)]
    write_csv(path / MAPS, MAP_COLUMNS, lines)
    for image_id in ids:
        file = thumbnail_path(path, "pets", image_id)
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (200, 80, 40)).save(file)
    write_notes(path, [("train", "of <b>one</b> colour", 1200, f"train/{classes[0]}/plain.jpg")])
    write_skipped(path, [("train", f"train/{classes[0]}/bad.jpg", "it is empty")])
    write_text(path / "experiment.toml", f'name = "pets"  # {" ".join(classes)}\n')
    write_text(path / "environment.json", '{"versions": {"torch": "2.11"}, "python": "3.11", "git_commit": null}\n')
    return path


def _row(changes: dict[str, Any], number: int, n_classes: int, n_test: int, accuracy: float) -> Row:
    content: dict[str, Any] = {
        "experiment": "pets",
        "dataset": "pets",
        "n_classes": n_classes,
        "backbone": "resnet18",
        "weights": "IMAGENET1K_V1",
        "kind": "classifier",
        "params": '{"C": 0.01, "scaler": null}',
        "selection": "cv",
        "seed": 0,
        "n_train": 100,
        "n_val": 100,
        "n_test": n_test,
        "accuracy_low": max(0.0, accuracy - 0.1),
        "accuracy_high": min(1.0, accuracy + 0.1),
        "balanced_accuracy": accuracy,
        "macro_precision": accuracy,
        "macro_recall": accuracy,
        "macro_f1": accuracy,
        "extract_s": 16.0,
        "fit_s": 2.5,
        "predict_s": 0.5,
        "fingerprint": f"{number:016x}",
        "featbench_version": "0.1.0",
        "created_at": "2026-01-02T03:04:05.678+00:00",
    }
    if changes.get("kind") != "baseline":
        content |= {"pooling": "avg", "feature_dim": 256 if changes.get("layer") == "layer3" else 512}
    return Row(**(content | changes | {"accuracy": accuracy}))


def read(folder: Path, warn: Callable[[str], None] = pytest.fail) -> Folder:
    """Read a results folder as the page does."""
    return read_folder(folder, read_tables(folder, warn), warn)


def report(folder: Path, warn: Callable[[str], None] = pytest.fail, output: Path | None = None) -> Path:
    """Write the page of a results folder as `featbench report` does."""
    return report_folders([folder], warn, output)
