from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featbench.results.artifacts import write_predictions
from featbench.results.row import Row
from featbench.results.store import ResultsTable, load_results

CLASSES = ("ant", "bee", "cat")

DEFAULTS: dict[str, Any] = {
    "experiment": "pets",
    "dataset": "folder",
    "n_classes": 3,
    "backbone": "resnet18",
    "weights": "IMAGENET1K_V1",
    "layer": "layer3",
    "pooling": "avg",
    "feature_dim": 256,
    "method": "linear_svc",
    "kind": "classifier",
    "params": '{"C": 0.01}',
    "selection": "cv",
    "seed": 0,
    "n_train": 100,
    "n_val": 100,
    "n_test": 50,
    "val_accuracy": 0.8,
    "accuracy": 0.1 + 0.2,  # 0.30000000000000004: a number that rounding would change
    "accuracy_low": 0.1,
    "accuracy_high": 0.5,
    "balanced_accuracy": 0.3,
    "macro_precision": 0.3,
    "macro_recall": 0.3,
    "macro_f1": 0.3,
    "converged": True,
    "engine": "scikit-learn",
    "device": "cpu",
    "precision": "float32",
    "extract_s": 1.5,
    "fit_s": 2.5,
    "predict_s": 0.5,
    "fingerprint": "00000000000000aa",
    "featbench_version": "0.1.0",
    "created_at": "2026-01-02T03:04:05.678+00:00",
}


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    ResultsTable(folder).add(*rows)


@pytest.fixture
def make_row() -> Callable[..., Row]:
    def make(**changes: Any) -> Row:
        return Row(**(DEFAULTS | changes))

    return make


@pytest.fixture
def save_models(tmp_path: Path, make_row: Callable[..., Row]) -> Callable[..., pd.DataFrame]:
    """Write rows and predictions of models that are right with the `accuracy` given; return results.csv as loaded."""

    def save(*models: dict[str, Any], folder: Path = tmp_path, n_test: int = 60) -> pd.DataFrame:
        for i, changes in enumerate(models):
            labels = np.arange(n_test) % len(CLASSES)
            n_wrong = round((1 - changes.get("accuracy", 0.9)) * n_test)
            predicted = np.where(np.arange(n_test) < n_wrong, (labels + 1) % len(CLASSES), labels)
            row = make_row(**({"fingerprint": f"f{i}", "n_test": n_test} | changes))
            row = replace(row, accuracy=1 - n_wrong / n_test)
            ids = [f"{number:03d}.jpg" for number in range(n_test)]
            write_predictions(folder, row, ids, labels, predicted, np.eye(len(CLASSES))[predicted], CLASSES)
            write_rows(folder, [row])
        return load_results(folder)

    return save
