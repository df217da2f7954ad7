"""The results folder: results.csv, the per-sample predictions and the other tables, written whole or not at all.

    rows = featbench.load_results("results/digits")

Two processes may write into one folder: results.csv is changed under a file lock.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import Timeout

from featbench.errors import ResultsError, first_line
from featbench.locks import file_lock
from featbench.results.cells import CellError, typed
from featbench.results.files import AS_IT_WAS, csv_dialect, read_limited, replacing, write_csv, writing_to
from featbench.results.row import COLUMNS, Row

_FLOATS = [field.name for field in fields(Row) if "float" in str(field.type)]
RESULTS_CSV = "results.csv"
CURRENT_CSV = "current.csv"
NOTES_CSV = "notes.csv"
NOTE_COLUMNS = ("split", "note", "images", "example")
PREDICTIONS = "predictions"
_LOCK_TIMEOUT_S = 60.0
_MOST_BYTES = 2**26  # of current.csv, which has a line for each row
_NAME_LENGTH = 60  # characters of each part: four parts stay below the 255 bytes that file systems allow


def prepare_folder(folder: Path) -> None:
    """Make a results folder and check that it can be written, before hours are spent on what goes in.

    Raises:
        ResultsError: It cannot be made or written.
    """
    with writing_to(folder / RESULTS_CSV):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Put rows into results.csv: one with a known fingerprint replaces the old one in place, others go at the end.

    Columns that a newer version put into the file are kept, after those of this version.

    Raises:
        ResultsError: The file is damaged, locked by another process for a minute, or cannot be written.
    """
    prepare_folder(folder)
    path = folder / RESULTS_CSV
    with _locked(path):
        columns, old = _read_cells(path)
        extra = [column for column in columns if column not in COLUMNS]
        by_fingerprint = {cells["fingerprint"]: cells for cells in old}
        for row in rows:
            kept = {column: by_fingerprint.get(row.fingerprint, {}).get(column, "") for column in extra}
            by_fingerprint[row.fingerprint] = asdict(row) | kept
        header = [*COLUMNS, *extra]
        write_csv(path, header, ([cells.get(name, "") for name in header] for cells in by_fingerprint.values()))


def load_results(path: str | Path) -> pd.DataFrame:
    """Read results.csv into typed columns.

    Args:
        path: A results folder, or the CSV file itself.

    Returns:
        One row a trained model: counts and seeds as Int64, numbers as float64, `converged` as boolean, `created_at`
        as UTC datetimes, the rest as strings. Empty cells are missing values.

    Raises:
        ResultsError: There is no results.csv, it is no CSV file, a column is missing, or a cell has the wrong type.
    """
    file = _results_file(Path(path))
    try:
        # Only an empty cell is missing: a class or a weights file may be called "NA" or "None".
        dialect = csv_dialect(file)
        table = pd.read_csv(
            file, dtype=str, keep_default_na=False, na_values=[""], encoding=dialect.encoding, sep=dialect.separator
        )
    except (ValueError, OSError) as error:  # pandas' parser errors and decoding errors are ValueErrors
        raise ResultsError(f"{file} is not a readable CSV file: {first_line(error)}; {AS_IT_WAS}") from error
    later = COLUMNS[COLUMNS.index("created_at") + 1 :]  # columns that files of earlier versions lack
    table = table.reindex(columns=[*table.columns, *(column for column in later if column not in table.columns)])
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ResultsError(
            f"{file} lacks the columns {', '.join(missing)}: another version or program wrote it; "
            "run the experiment again into a new folder (--results)"
        )
    for name in _FLOATS:
        table[name] = table[name].map(dialect.number, na_action="ignore")
    try:
        return typed(table)
    except CellError as error:
        raise ResultsError(f"{file}: {error}; correct the cell, or {AS_IT_WAS}") from error


def write_current(folder: Path, rows: pd.DataFrame) -> None:
    """Write current.csv: which rows of results.csv the tables are about, those of the experiment as it ran last.

    Raises:
        ResultsError: The file cannot be written.
    """
    write_csv(folder / CURRENT_CSV, ["fingerprint"], ([fingerprint] for fingerprint in rows["fingerprint"]))


def load_current(folder: Path) -> pd.DataFrame:
    """Read the rows of results.csv that the tables are about: those current.csv names, or all where there is none.

    Raises:
        ResultsError: As `load_results`; or current.csv names no row of results.csv.
    """
    rows = load_results(folder)
    try:
        listed = read_limited(folder / CURRENT_CSV, _MOST_BYTES).decode("utf-8").split()
    except FileNotFoundError:
        return rows
    except (ValueError, OSError) as error:
        raise ResultsError(f"{folder / CURRENT_CSV} is not a text file: {error}; remove it") from error
    current = rows[rows["fingerprint"].isin(listed)].reset_index(drop=True)
    if current.empty and not rows.empty:
        raise ResultsError(
            f"{folder / CURRENT_CSV} names no row of {RESULTS_CSV}; remove it to have the tables of all rows"
        )
    return current


def artifact_path(folder: Path, kind: str, row: Row, suffix: str) -> Path:
    """Return where a file that belongs to a row lives: `<folder>/<kind>/<artifact name><suffix>`."""
    return folder / kind / f"{artifact_name(row)}{suffix}"


def artifact_name(row: Row) -> str:
    """Name a row's files: readable and unique, `<method>-<backbone>-<layer>-<fingerprint>`."""
    parts = [part for part in (row.method, row.backbone, row.layer) if part]
    return "-".join([*(_safe(part)[:_NAME_LENGTH] for part in parts), row.fingerprint])


def find_artifact(folder: Path, kind: str, fingerprint: str, suffix: str) -> Path:
    """Find the file of the row with this fingerprint.

    Raises:
        ResultsError: There is none, or more than one.
    """
    found = _artifacts(folder, kind, fingerprint, suffix)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ResultsError(
            f"one file of row {fingerprint} should be in {folder / kind}, found: {names}; "
            "the fingerprint column of results.csv names the rows, and running the experiment again writes their files"
        )
    return found[0]


def has_artifact(folder: Path, kind: str, fingerprint: str, suffix: str) -> bool:
    """Say whether there is a file of the row with this fingerprint."""
    return bool(_artifacts(folder, kind, fingerprint, suffix))


def write_predictions(
    folder: Path,
    row: Row,
    ids: Sequence[str],
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    scores: npt.NDArray[np.floating[Any]],
    classes: Sequence[str],
) -> Path:
    """Write what a model said about each test image.

    Args:
        folder: The results folder.
        row: The model's row.
        ids: N sample ids.
        labels: True classes, (N,) int64 in [0, n_classes).
        predicted: Predicted classes, (N,) int64 in [0, n_classes).
        scores: Probabilities or decision values, (N, n_classes) float; -inf for a class that was not trained.
        classes: n_classes names.

    Returns:
        The CSV file: id, label, predicted, then one `score:<class>` a class.

    Raises:
        ResultsError: The file cannot be written.
    """
    names = np.asarray(classes, dtype=object)
    table = pd.DataFrame(scores, columns=[f"score:{name}" for name in classes])
    table.insert(0, "id", list(ids))
    table.insert(1, "label", names[labels])
    table.insert(2, "predicted", names[predicted])
    path = artifact_path(folder, PREDICTIONS, row, ".csv")
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n", encoding="utf-8")
    return path


def load_predictions(folder: str | Path, fingerprint: str) -> pd.DataFrame:
    """Read the per-sample predictions of a row: id, label and predicted as strings, scores as float64.

    The scores of a network that diverged are NaN.

    Raises:
        ResultsError: There is no such file, or it is no CSV file.
    """
    path = find_artifact(Path(folder), PREDICTIONS, fingerprint, ".csv")
    try:
        dialect = csv_dialect(path)
        sep, encoding = dialect.separator, dialect.encoding
        header = pd.read_csv(path, nrows=0, sep=sep, encoding=encoding).columns
        scores = [column for column in header if column.startswith("score:")]
        table: pd.DataFrame = pd.read_csv(
            path,
            dtype=dict.fromkeys(header, "str") | dict.fromkeys(scores, "float64"),
            keep_default_na=False,
            na_values={score: [""] for score in scores},  # and nowhere else: an image may be called NA
            decimal="," if sep == ";" else ".",
            sep=sep,
            encoding=encoding,
        )
        return table
    except (ValueError, OSError) as error:
        raise ResultsError(
            f"{path} is not a readable CSV file: {first_line(error)}; run the experiment again"
        ) from error


def write_skipped(folder: Path, skipped: Sequence[tuple[str, str, str]]) -> Path:
    """Write skipped.csv, the images that were left out: (split, id, reason) each.

    Raises:
        ResultsError: The file cannot be written.
    """
    path = folder / "skipped.csv"
    write_csv(path, ("split", "id", "reason"), skipped)
    return path


def write_notes(folder: Path, notes: Sequence[tuple[str, str, int, str]]) -> Path:
    """Write notes.csv, what is said of images that were read: (split, note, images, example) each.

    Raises:
        ResultsError: The file cannot be written.
    """
    path = folder / NOTES_CSV
    write_csv(path, NOTE_COLUMNS, notes)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with writing_to(path):
        lock = file_lock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout as error:
            raise ResultsError(
                f"another process has held {lock.lock_file} for {_LOCK_TIMEOUT_S:.0f} s; let it end, or use another "
                "folder"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _read_cells(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read the cells of results.csv as they stand, so that what is not changed is written back letter for letter."""
    if not path.exists():
        return [], []
    try:
        dialect = csv_dialect(path)
        with path.open(encoding=dialect.encoding, newline="") as file:
            header, *lines = csv.reader(file, strict=True, delimiter=dialect.separator)
        cells = [dict(zip(header, line, strict=True)) for line in lines]
        for row in cells:
            row |= {name: dialect.number(row[name]) for name in _FLOATS if name in row}
    except (csv.Error, ValueError, OSError) as error:
        raise ResultsError(f"{path} is damaged: {error}; restore it, or remove it and run again") from error
    if "fingerprint" not in header:
        raise ResultsError(f"{path} has no column fingerprint, so featbench did not write it; use another folder")
    return header, cells


def _artifacts(folder: Path, kind: str, fingerprint: str, suffix: str) -> list[Path]:
    """List regular files alone: to open a pipe is to wait for ever."""
    files = (folder / kind).glob(f"*{suffix}")
    return sorted(file for file in files if file.stem.endswith(f"-{fingerprint}") and file.is_file())


def _results_file(path: Path) -> Path:
    file = path / RESULTS_CSV if path.is_dir() else path
    if not file.is_file():
        raise ResultsError(
            f"there is no {RESULTS_CSV} at {path}; `featbench run EXPERIMENT --results DIR` makes a folder with one"
        )
    return file


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)
