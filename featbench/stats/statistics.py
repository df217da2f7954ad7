"""Everything that is computed from the rows and predictions of a results folder, as one value.

Models are compared and measured by their first repeat on all training rows (`main_rows`); repeats and the sizes of a
learning curve are in tables of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from featbench.stats.advice import advise
from featbench.stats.comparisons import COMPARISON_COLUMNS, compare_models
from featbench.stats.measures import CLASS_MEASURES, CONFUSION_COLUMNS, METRIC_COLUMNS, confusion_table, metric_table
from featbench.stats.mistakes import MISTAKE_COLUMNS, MISTAKES, mistake_table
from featbench.stats.models import Predictions, main_rows
from featbench.stats.spread import CURVE_COLUMNS, SPREAD_COLUMNS, curve_table, spread_table

_SUMMARY = ("feature_dim", "n_repeats", "accuracy_mean", "accuracy_sd", "accuracy_min", "accuracy_max")
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # file -> columns, those of them that are numbers
    "comparisons.csv": (COMPARISON_COLUMNS, COMPARISON_COLUMNS[5:]),
    "metrics.csv": (METRIC_COLUMNS, ("value", "low", "high")),
    "confusion.csv": (CONFUSION_COLUMNS, ("count",)),
    "spread.csv": (SPREAD_COLUMNS, ("n_train_min", "n_train_max", *_SUMMARY)),
    "curves.csv": (CURVE_COLUMNS, ("images_per_class", *_SUMMARY)),
    MISTAKES: (MISTAKE_COLUMNS, ("certainty",)),
}
NEVER_EMPTY = {"value", "count", "n_repeats", "images_per_class", *COMPARISON_COLUMNS[5:]}


@dataclass(frozen=True, eq=False)
class Statistics:
    """The statistics of some rows.

    Attributes:
        rows: Of results.csv, as `load_results` returns them: those of one experiment.
        tables: The tables of `TABLES` by file name, as they read in a CSV file: text columns with "" for nothing, and
            float64 of six digits.
        advice: Sentences.
    """

    rows: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    advice: tuple[str, ...]


def compute_statistics(
    rows: pd.DataFrame, predictions: Sequence[Predictions], warn: Callable[[str], None]
) -> Statistics:
    """Compute the statistics of rows.

    Args:
        rows: What `load_results` returns, of one experiment.
        predictions: Of the models among `main_rows(rows)`.
        warn: Told of a data set whose models were tested on different rows.
    """
    comparisons, confusion = compare_models(predictions, warn), confusion_table(predictions)
    tables = {
        "comparisons.csv": comparisons,
        "metrics.csv": metric_table(predictions),
        "confusion.csv": confusion,
        "spread.csv": spread_table(rows),
        "curves.csv": curve_table(rows),
        MISTAKES: mistake_table(predictions),
    }
    written = {name: _as_written(table, TABLES[name][1]) for name, table in tables.items()}
    return Statistics(rows, written, tuple(advise(rows, comparisons, confusion)))


def are_of_rows(tables: Mapping[str, pd.DataFrame], rows: pd.DataFrame) -> bool:
    """Say whether tables that were read are whole, and of these rows: a file may be cut, edited or of earlier rows."""
    models = main_rows(rows)
    n_test = models.set_index("fingerprint")["n_test"]
    by_model = tables["confusion.csv"].groupby("fingerprint")
    expected = {  # measures of each class, by model
        key: dict.fromkeys([*mine["label"], *mine["predicted"]], len(CLASS_MEASURES)) for key, mine in by_model
    }
    metrics = tables["metrics.csv"]
    measured = metrics[metrics["class"] != ""].groupby("fingerprint")["class"]
    pairs = sum(len(mine) * (len(mine) - 1) // 2 for _, mine in models.groupby(["dataset", "n_test"]))
    return (
        by_model["count"].sum().to_dict() == n_test.to_dict()
        and {key: mine.value_counts().to_dict() for key, mine in measured} == expected
        and len(tables["comparisons.csv"]) == pairs  # never of models with different test images: computed each time
        and len(tables["spread.csv"]) == len(spread_table(rows))
        and len(tables["curves.csv"]) == len(curve_table(rows))
    )


def _as_written(table: pd.DataFrame, numbers: Sequence[str]) -> pd.DataFrame:
    """Round numbers to the six digits that the CSV file has, so that a page is the same from values and from files."""

    def six_digits(value: Any) -> float:
        return float("nan") if pd.isna(value) else float(f"{value:.6g}")

    texts = [name for name in table.columns if name not in numbers]
    return table.assign(
        **{name: table[name].astype(object).where(table[name].notna(), "") for name in texts},
        **{
            name: table[name].map(lambda v: float("nan") if pd.isna(v) else float(f"{v:.6g}")).astype("float64")
            for name in numbers
        },
    )
