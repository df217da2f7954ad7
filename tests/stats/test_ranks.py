from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare

from featbench.errors import UsageError
from featbench.results.store import load_results
from featbench.stats.ranks import _nemenyi, rank_methods
from tests.rows import write_rows

Load = Callable[..., pd.DataFrame]
METHODS = ("linear_svc", "svm_rbf", "random_forest")


@pytest.fixture
def table_of(tmp_path: Path, make_row: Callable[..., Any]) -> Load:
    def load(accuracies: dict[str, tuple[float, ...]], *extra: dict[str, Any]) -> pd.DataFrame:
        changes = [
            {"dataset": dataset, "method": method, "accuracy": accuracy}
            for dataset, line in accuracies.items()
            for method, accuracy in zip(METHODS, line, strict=False)
        ]
        rows = [make_row(**({"fingerprint": f"f{i}"} | change)) for i, change in enumerate([*changes, *extra])]
        write_rows(tmp_path, rows)
        return load_results(tmp_path)

    return load


@pytest.mark.parametrize(("n_methods", "expected"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_are_demsars(n_methods: int, expected: float) -> None:
    assert _nemenyi(n_methods, 0.05) == pytest.approx(expected, abs=1.1e-3)  # JMLR 7 (2006), table 5a


def test_ranks_by_hand(table_of: Load) -> None:
    rows = table_of({"a": (0.9, 0.8, 0.7), "b": (0.9, 0.9, 0.1), "c": (0.5, 0.6, 0.4), "d": (0.9, 0.7, 0.8)})
    table, summary = rank_methods(rows)
    assert table["method"].tolist() == ["linear_svc", "svm_rbf", "random_forest"]
    assert table["average_rank"].tolist() == pytest.approx([1.375, 1.875, 2.75])
    assert table["accuracy_mean"].tolist() == pytest.approx([0.8, 0.75, 0.5])
    assert summary.n_datasets == 4
    assert summary.critical_difference == pytest.approx(2.343 * np.sqrt(3 * 4 / 24), abs=1e-3)
    assert table["tied_with_best"].tolist() == [True, True, True]


def test_the_statistic_is_that_of_friedman_in_its_f_form(table_of: Load) -> None:
    noise = np.random.default_rng(0).permuted(np.tile([0.6, 0.7, 0.8], (12, 1)), axis=1)
    accuracy = noise + np.array([0.0, 0.05, 0.15])
    rows = table_of({f"set{i:02d}": tuple(line) for i, line in enumerate(accuracy)})
    _, summary = rank_methods(rows)
    chi2 = friedmanchisquare(*accuracy.T).statistic
    assert summary.friedman_f == pytest.approx(11 * chi2 / (12 * 2 - chi2))  # Demsar's F_F
    assert 0 < summary.p_value < 1


def test_equal_ranks_everywhere_are_certain(table_of: Load) -> None:
    table, summary = rank_methods(table_of({f"s{i}": (0.9, 0.8, 0.7) for i in range(12)}))
    assert (summary.friedman_f, summary.p_value) == (np.inf, 0.0)
    assert table["tied_with_best"].tolist() == [True, False, False]
    _, same = rank_methods(table_of({f"s{i}": (0.5, 0.5, 0.5) for i in range(12)}))
    assert (same.friedman_f, same.p_value) == (0.0, 1.0)


def test_the_layer_is_chosen_by_validation_and_an_unfinished_data_set_is_left_out(table_of: Load) -> None:
    rows = table_of(
        {"a": (0.9, 0.8), "b": (0.9, 0.8), "c": (0.9,)},
        {"dataset": "a", "method": "svm_rbf", "layer": "x", "accuracy": 0.99, "val_accuracy": 0.1},
        {"dataset": "b", "method": "svm_rbf", "layer": "x", "accuracy": 0.1, "val_accuracy": 0.99},
    )
    table, summary = rank_methods(rows)
    assert summary.n_datasets == 2
    assert table.set_index("method")["accuracy_mean"].to_dict() == pytest.approx({"linear_svc": 0.9, "svm_rbf": 0.45})


@pytest.mark.parametrize("accuracies", [{"a": (0.9, 0.8)}, {"a": (0.9,), "b": (0.8,)}, {}])
def test_too_few_to_rank(table_of: Load, accuracies: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(UsageError, match="ranks need two methods or more on two data sets or more"):
        rank_methods(table_of(accuracies))
