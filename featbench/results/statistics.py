"""The statistics of a results folder, computed from results.csv and predictions/ alone.

    rows = featbench.load_results("results/digits")
    write_statistics(Path("results/digits"), rows, print)

Models are compared and measured by their first repeat on all training rows (`main_rows`); repeats and the sizes of a
learning curve are in tables of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from featbench.results.advice import advise
from featbench.results.compare import compare_models
from featbench.results.files import write_csv, write_text
from featbench.results.measures import confusion_table, metric_table
from featbench.results.mistakes import MISTAKES, mistake_table
from featbench.results.models import load_answers, main_rows
from featbench.results.spread import curve_table, spread_table

ADVICE = "advice.md"


def write_statistics(folder: Path, rows: pd.DataFrame, warn: Callable[[str], None]) -> None:
    """Write comparisons.csv, metrics.csv, confusion.csv, spread.csv, curves.csv, mistakes.csv and advice.md.

    Args:
        folder: The results folder.
        rows: Of results.csv, as `load_results` returns them: those of one experiment.
        warn: Told of models whose predictions are missing or of other test rows.

    Raises:
        ResultsError: A file cannot be written.
    """
    answers = load_answers(folder, main_rows(rows), warn)
    comparisons = compare_models(answers, warn)
    tables = {
        "comparisons.csv": comparisons,
        "metrics.csv": metric_table(answers),
        "confusion.csv": confusion_table(answers),
        "spread.csv": spread_table(rows),
        "curves.csv": curve_table(rows),
        MISTAKES: mistake_table(answers),
    }
    for name, table in tables.items():
        write_csv(folder / name, list(table.columns), map(_cells, table.itertuples(index=False, name=None)))
    advice = advise(rows, comparisons, tables["confusion.csv"])
    write_text(folder / ADVICE, "".join(f"- {sentence}\n" for sentence in advice))


def _cells(values: tuple[Any, ...]) -> list[Any]:
    return [None if pd.isna(v) else f"{v:.6g}" if isinstance(v, float) else v for v in values]
