from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featbench.results.store import load_results
from featbench.stats.spread import CURVE_COLUMNS, SPREAD_COLUMNS, curve_table, spread_table
from tests.rows import write_rows

Load = Callable[..., pd.DataFrame]


@pytest.fixture
def table_of(tmp_path: Path, make_row: Callable[..., Any]) -> Load:
    def load(*changes: dict[str, Any]) -> pd.DataFrame:
        write_rows(tmp_path, [make_row(**({"fingerprint": f"f{i}"} | change)) for i, change in enumerate(changes)])
        return load_results(tmp_path)

    return load


def on_curve(size: int, seed: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    return {"images_per_class": size, "seed": seed, "accuracy": accuracy, "n_train": 3 * size, **changes}


def test_the_spread_over_repeats(table_of: Load) -> None:
    rows = table_of(
        {"seed": 0, "accuracy": 0.8, "n_train": 100},
        {"seed": 1, "accuracy": 0.7, "n_train": 90},
        {"seed": 2, "accuracy": 0.75, "n_train": 90},
        {"seed": 0, "accuracy": 0.6, "layer": None, "method": "finetune", "kind": "baseline"},
        on_curve(10, 0, 0.1),
        # an older row of the same seed
        {"seed": 1, "accuracy": 0.2, "n_train": 90, "created_at": "2025-01-01T00:00:00+00:00"},
    )
    table = spread_table(rows)
    assert tuple(table.columns) == SPREAD_COLUMNS
    assert table["method"].tolist() == ["linear_svc", "finetune"]
    svm, net = table.to_dict("records")
    assert (svm["n_repeats"], svm["n_train_min"], svm["n_train_max"]) == (3, 90, 100)
    summary = [svm[f"accuracy_{name}"] for name in ("mean", "sd", "min", "max")]
    assert summary == pytest.approx([0.75, statistics.stdev([0.8, 0.7, 0.75]), 0.7, 0.8])
    assert (net["n_repeats"], net["accuracy_mean"]) == (1, 0.6)
    assert pd.isna(net["accuracy_sd"])


def test_the_learning_curve(table_of: Load) -> None:
    rows = table_of(
        on_curve(20, 0, 0.7),
        on_curve(10, 0, 0.5),
        on_curve(20, 1, 0.8),
        on_curve(10, 1, 0.6),
        on_curve(10, 0, 0.4, method="svm_rbf"),
        {"accuracy": 0.99},
    )
    table = curve_table(rows)
    assert tuple(table.columns) == CURVE_COLUMNS
    assert list(zip(table.method, table.images_per_class, table.n_repeats, strict=True)) == [
        ("linear_svc", 10, 2),
        ("linear_svc", 20, 2),
        ("svm_rbf", 10, 1),
    ]
    assert table.accuracy_mean.tolist() == pytest.approx([0.55, 0.75, 0.4])
    assert table.accuracy_sd[0] == pytest.approx(statistics.stdev([0.5, 0.6]))
    assert (table.accuracy_min[1], table.accuracy_max[1]) == pytest.approx((0.7, 0.8))


def test_without_rows_there_are_empty_tables(table_of: Load) -> None:
    rows = table_of()
    assert (len(curve_table(rows)), len(spread_table(rows))) == (0, 0)
