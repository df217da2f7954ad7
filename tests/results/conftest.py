from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from featbench.results.row import Row

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


@pytest.fixture
def make_row() -> Callable[..., Row]:
    def make(**changes: Any) -> Row:
        return Row(**(DEFAULTS | changes))

    return make
