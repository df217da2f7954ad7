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

import numpy as np
import pandas as pd

from featbench.errors import ResultsError
from featbench.results.artifacts import load_predictions
from featbench.results.files import write_csv, write_text
from featbench.stats.accuracy import accuracy_table, chosen_cells, never_table, table_cells, to_latex, to_markdown
from featbench.stats.advice import advise
from featbench.stats.comparisons import compare_models
from featbench.stats.measures import confusion_table, metric_table
from featbench.stats.mistakes import MISTAKES, mistake_table
from featbench.stats.models import Predictions, check_classes, main_rows, model_names
from featbench.stats.spread import curve_table, spread_table

_SCORE = "score:"
ADVICE = "advice.md"


def write_accuracy_tables(folder: Path, rows: pd.DataFrame) -> None:
    """Write accuracy.csv, accuracy.md and accuracy.tex.

    Args:
        folder: The results folder.
        rows: What `load_results` returns.

    Raises:
        ResultsError: A file cannot be written.
    """
    table, never = accuracy_table(rows), never_table(rows)
    write_csv(folder / "accuracy.csv", list(table.columns), table_cells(table))
    write_text(folder / "accuracy.md", to_markdown(table, never, chosen_cells(rows, table)))
    write_text(folder / "accuracy.tex", to_latex(table, never))


def write_statistics(folder: Path, rows: pd.DataFrame, warn: Callable[[str], None]) -> None:
    """Write comparisons.csv, metrics.csv, confusion.csv, spread.csv, curves.csv, mistakes.csv and advice.md.

    Args:
        folder: The results folder.
        rows: Of results.csv, as `load_results` returns them: those of one experiment.
        warn: Told of models whose predictions are missing or of other test rows.

    Raises:
        ResultsError: A file cannot be written.
    """
    answers = load_model_predictions(folder, main_rows(rows), warn)
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


def load_model_predictions(folder: Path, rows: pd.DataFrame, warn: Callable[[str], None]) -> list[Predictions]:
    """Read the predictions of these rows; a model without usable ones is left out with a warning.

    Args:
        folder: The results folder.
        rows: What `main_rows` returns.
        warn: Takes the warning.
    """
    answers: list[Predictions] = []
    problems: list[str] = []
    names = model_names(rows)
    for record in rows.to_dict("records"):
        try:
            model = _load(folder, record, names[record["fingerprint"]])
            check_classes(model, answers)
            answers.append(model)
        except ResultsError as error:
            problems.append(str(error))
    if problems:
        left_out = "1 model is" if len(problems) == 1 else f"{len(problems)} models are"
        warn(f"{left_out} left out of the statistics: {problems[0]}")
    return answers


def _load(folder: Path, record: dict[Any, Any], name: str) -> Predictions:
    fingerprint = str(record["fingerprint"])
    table = load_predictions(folder, fingerprint)
    columns = [column for column in table.columns if column.startswith(_SCORE)]
    if not {"id", "label", "predicted"} <= set(table.columns):
        raise ResultsError(f"the predictions of {name} ({fingerprint}) lack columns; run the experiment again")
    table = table.sort_values("id", kind="stable")
    classes = pd.Index([column.removeprefix(_SCORE) for column in columns])
    labels, predicted = (classes.get_indexer(pd.Index(table[c])).astype(np.int64) for c in ("label", "predicted"))
    unknown = sorted({*table["label"], *table["predicted"]} - set(classes))
    if unknown:
        raise ResultsError(
            f"the predictions of {name} ({fingerprint}) name the class {unknown[0]!r}, of which they have no scores; "
            "run the experiment again"
        )
    accuracy = float((labels == predicted).mean()) if len(table) else float("nan")
    if len(table) != record["n_test"] or not np.isclose(accuracy, record["accuracy"], atol=1e-9):
        raise ResultsError(
            f"the predictions of {name} ({fingerprint}) are not those of its row: {len(table)} test rows and accuracy "
            f"{accuracy:.4f} against {record['n_test']} and {record['accuracy']:.4f}; run the experiment again"
        )
    return Predictions(
        fingerprint=fingerprint,
        name=name,
        dataset=str(record["dataset"]),
        classes=tuple(classes),
        ids=table["id"].to_numpy(dtype=object),
        labels=labels,
        predicted=predicted,
        scores=table[columns].to_numpy(dtype=np.float64),
    )


def _cells(values: tuple[Any, ...]) -> list[Any]:
    return [None if pd.isna(v) else f"{v:.6g}" if isinstance(v, float) else v for v in values]
