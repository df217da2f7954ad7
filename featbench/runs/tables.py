"""The tables of a results folder: computed from results.csv and predictions/, written, and read again.

rows = featbench.load_results("results/digits")
write_tables(Path("results/digits"), rows, print)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featbench.errors import ResultsError
from featbench.results.artifacts import load_predictions
from featbench.results.files import read_limited, read_table, write_csv, write_text
from featbench.results.store import ADVICE, RESULTS_CSV, load_current
from featbench.stats.accuracy import accuracy_table, chosen_cells, never_table, table_cells, to_latex, to_markdown
from featbench.stats.models import Predictions, check_classes, main_rows, model_names
from featbench.stats.statistics import NEVER_EMPTY, TABLES, Statistics, are_of_rows, compute_statistics

_SCORE = "score:"
_MAX_ADVICE_BYTES = 2**20


def write_tables(folder: Path, rows: pd.DataFrame, warn: Callable[[str], None]) -> Statistics:
    """Compute the statistics of rows, and write the tables and advice.md.

    Args:
        folder: The results folder.
        rows: Of results.csv, as `load_results` returns them: those of one experiment.
        warn: Told of models whose predictions are missing or of other test rows.

    Raises:
        ResultsError: A file cannot be written.
    """
    _write_accuracy(folder, rows)
    statistics = compute_statistics(rows, load_model_predictions(folder, main_rows(rows), warn), warn)
    for name, table in statistics.tables.items():
        write_csv(folder / name, list(table.columns), map(_cells, table.itertuples(index=False, name=None)))
    write_text(folder / ADVICE, "".join(f"- {sentence}\n" for sentence in statistics.advice))
    return statistics


def read_tables(folder: Path, warn: Callable[[str], None]) -> Statistics:
    """Read the tables of a results folder; where they are missing, damaged or of other rows, make them again.

    Args:
        folder: The results folder.
        warn: Told of models whose predictions are missing or of other test rows.

    Raises:
        ResultsError: results.csv is missing, damaged, of another version or without a row; or a file cannot be written.
    """
    if folder.is_file():
        raise ResultsError(f"{folder} is a file; give the results folder that {RESULTS_CSV} lies in")
    rows = load_current(folder)
    if rows.empty:
        raise ResultsError(f"{folder / RESULTS_CSV} has no row yet; `featbench run` trains the models that it tells of")
    try:
        tables = {name: read_table(folder / name, *spec, never_empty=NEVER_EMPTY) for name, spec in TABLES.items()}
        lines = read_limited(folder / ADVICE, _MAX_ADVICE_BYTES).decode("utf-8").split("\n")
    except (ResultsError, OSError, ValueError):
        return write_tables(folder, rows, warn)
    if not are_of_rows(tables, rows):
        return write_tables(folder, rows, warn)
    _write_accuracy(folder, rows)
    return Statistics(rows, tables, tuple(line.removeprefix("- ") for line in lines if line.strip()))


def _write_accuracy(folder: Path, rows: pd.DataFrame) -> None:
    table, never = accuracy_table(rows), never_table(rows)
    write_csv(folder / "accuracy.csv", list(table.columns), table_cells(table))
    write_text(folder / "accuracy.md", to_markdown(table, never, chosen_cells(rows, table)))
    write_text(folder / "accuracy.tex", to_latex(table, never))


def load_model_predictions(folder: Path, rows: pd.DataFrame, warn: Callable[[str], None]) -> list[Predictions]:
    """Read the predictions of these rows; a model without usable ones is left out with a warning.

    Args:
        folder: The results folder.
        rows: What `main_rows` returns.
        warn: Takes the warning.
    """
    found: list[Predictions] = []
    problems: list[str] = []
    names = model_names(rows)
    for record in rows.to_dict("records"):
        try:
            model = _load(folder, record, names[record["fingerprint"]])
            check_classes(model, found)
            found.append(model)
        except ResultsError as error:
            problems.append(str(error))
    if problems:
        left_out = "1 model is" if len(problems) == 1 else f"{len(problems)} models are"
        warn(f"{left_out} left out of the statistics: {problems[0]}")
    return found


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
