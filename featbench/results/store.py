"""results.csv, a row a trained model: read as typed columns, appended to row by row, written whole or not at all.

    rows = featbench.load_results("results/digits")

Two processes may write into one folder: results.csv is changed under a file lock.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryFile

import pandas as pd
from filelock import Timeout

from featbench.errors import ResultsError
from featbench.locks import file_lock
from featbench.results.cells import CellError, typed
from featbench.results.files import RESTORE, csv_dialect, read_limited, write_csv, writing_to
from featbench.results.row import COLUMNS, Row

RESULTS_CSV = "results.csv"
CURRENT_CSV = "current.csv"
ADVICE = "advice.md"
_FLOATS = [field.name for field in fields(Row) if "float" in str(field.type)]
_LATER = COLUMNS[COLUMNS.index("created_at") + 1 :]  # columns that files of earlier versions lack
_LOCK_TIMEOUT_S = 60.0
_MAX_BYTES = 2**26  # of current.csv, which has a line for each row

Cells = dict[str, str]  # column -> the cell's text; "" where the column does not apply


def prepare_folder(folder: Path) -> None:
    """Make a results folder and check that it can be written, before hours are spent on what goes in.

    Raises:
        ResultsError: It cannot be made or written.
    """
    with writing_to(folder / RESULTS_CSV):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


class ResultsTable:
    """results.csv of one folder, parsed once and kept up to date.

    Rows added through this object are written to the file at once and need no reading. When another process has
    changed the file (another size, time or inode), it is parsed again. The file is read when it is first needed, and
    need not exist before the first `add`.

    Every method raises ResultsError where the file is no CSV file, lacks columns, or a cell has the wrong type: such a
    file is never written over.
    """

    def __init__(self, folder: Path, *, lock_timeout_s: float = _LOCK_TIMEOUT_S) -> None:
        """Name the folder; nothing is read. `lock_timeout_s` is how long `add` waits for another process."""
        self._path = folder / RESULTS_CSV
        self._lock_timeout_s = lock_timeout_s
        self._version: tuple[int, ...] | None = None  # of the file that was parsed; None where there was none
        self._extra: list[str] = []  # columns of a newer version
        self._cells: dict[str, Cells] = {}  # by fingerprint, in the order of the file

    def has(self, fingerprint: str) -> bool:
        """Say whether there is a row with this fingerprint."""
        self._refresh()
        return fingerprint in self._cells

    def add(self, *rows: Row) -> None:
        """Write rows: one with a known fingerprint replaces the old one in place, others go at the end.

        Columns that a newer version put into the file are kept, after those of this version.

        Raises:
            ResultsError: The file is damaged, locked by another process for a minute, or cannot be written.
        """
        with _locked(self._path, self._lock_timeout_s):
            self._refresh()
            cells = dict(self._cells)
            for row in rows:
                kept = {column: cells.get(row.fingerprint, {}).get(column, "") for column in self._extra}
                own = {name: "" if value is None else str(value) for name, value in asdict(row).items()}
                cells[row.fingerprint] = own | kept
            header = [*COLUMNS, *self._extra]
            write_csv(self._path, header, ([line.get(name, "") for name in header] for line in cells.values()))
            self._cells, self._version = cells, _version(self._path)

    def load(self) -> pd.DataFrame:
        """Return the rows as `load_results` does."""
        self._refresh()
        if self._version is None:
            raise _missing(self._path.parent)
        return _typed(self._path, [*COLUMNS, *self._extra], list(self._cells.values()))

    def _refresh(self) -> None:
        """Parse the file where it is not the one that was parsed or written last."""
        version = _version(self._path)
        if version == self._version:
            return
        self._extra, self._cells = [], {}
        if version is not None:
            columns, cells = _read_cells(self._path)
            _typed(self._path, columns, cells)  # a wrong cell is an error before hours of training, not after
            self._extra = [column for column in columns if column not in COLUMNS]
            self._cells = {line["fingerprint"]: line for line in cells}
        self._version = version


def load_results(path: str | Path) -> pd.DataFrame:
    """Read results.csv into typed columns.

    Args:
        path: A results folder, or the CSV file itself.

    Returns:
        One row a trained model: counts and seeds as Int64, numbers as float64, `converged` as boolean, `created_at`
        as UTC datetimes, the rest as strings. Empty cells are missing values. `images_per_class` of rows that an
        earlier version wrote is taken out of their `params`.

    Raises:
        ResultsError: There is no results.csv, it is no CSV file, a column is missing, or a cell has the wrong type.
    """
    path = Path(path)
    file = path / RESULTS_CSV if path.is_dir() else path
    if not file.is_file():
        raise _missing(path)
    return _typed(file, *_read_cells(file))


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
        listed = read_limited(folder / CURRENT_CSV, _MAX_BYTES).decode("utf-8").split()
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


@contextmanager
def _locked(path: Path, timeout_s: float) -> Iterator[None]:
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = file_lock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout as error:
            raise ResultsError(
                f"another process has held {lock.lock_file} for {timeout_s:.0f} s; let it end, or use another folder"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _version(path: Path) -> tuple[int, ...] | None:
    """Return what changes whenever the file is replaced; None where it is missing."""
    try:
        # opening makes a network drive look at the server's file; O_NONBLOCK, since opening a pipe would wait for ever
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(file)
    finally:
        os.close(file)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_cells(file: Path) -> tuple[list[str], list[Cells]]:
    """Read the columns and the cells as they stand, so that what is not changed is written back letter for letter."""
    try:
        dialect = csv_dialect(file)
        with file.open(encoding=dialect.encoding, newline="") as opened:
            lines = list(csv.reader(opened, strict=True, delimiter=dialect.separator))
        if not lines:
            raise ValueError("it is empty")
        header, *lines = lines
        if len(set(header)) < len(header):
            raise ValueError("two columns have the same name")
        too_long = next((number for number, line in enumerate(lines, 1) if len(line) > len(header)), None)
        if too_long is not None:
            raise ValueError(f"row {too_long} has more cells than there are columns")
    except (csv.Error, ValueError, OSError) as error:
        raise _unreadable(file, error) from error
    # a spreadsheet may leave out empty cells at the end of a line
    cells = [dict(zip(header, [*line, *[""] * (len(header) - len(line))], strict=True)) for line in lines if line]
    for line in cells:
        line |= {name: dialect.number(line[name]) for name in _FLOATS if name in line}
    return header, cells


def _typed(file: Path, columns: list[str], cells: list[Cells]) -> pd.DataFrame:
    missing = [column for column in COLUMNS if column not in columns and column not in _LATER]
    if missing:
        raise ResultsError(
            f"{file} lacks the columns {', '.join(missing)}: another version or program wrote it; "
            "run the experiment again into a new folder (--results)"
        )
    columns = [*columns, *(column for column in _LATER if column not in columns)]
    # Only an empty cell is missing: a class or a weights file may be called "NA" or "None".
    lines = [[line.get(column) or None for column in columns] for line in cells]
    try:
        return typed(pd.DataFrame(lines, columns=columns, dtype="str"))
    except CellError as error:
        raise ResultsError(f"{file}: {error}; correct the cell, or {RESTORE}") from error


def _missing(path: Path) -> ResultsError:
    return ResultsError(
        f"there is no {RESULTS_CSV} at {path}; `featbench run EXPERIMENT --results DIR` makes a folder with one"
    )


def _unreadable(file: Path, error: Exception) -> ResultsError:
    return ResultsError(f"{file} is not a readable CSV file: {error}; {RESTORE}")
