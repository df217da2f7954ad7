"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import csv
import re
import stat
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featbench import places
from featbench.errors import ResultsError, first_line

RESTORE = (  # what to do about a file that cannot be read
    "restore the file as featbench wrote it (a spreadsheet changes numbers and dates when it saves), or run the "
    "experiment again into another folder (--results; features are reused)"
)
_MAX_HEADER = 1_000_000  # characters: predictions have a column a class
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+([Ee][+-]?[0-9]+)?")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` when the block ends, and is removed if it fails.

    Raises:
        ResultsError: The file cannot be written.
    """
    with writing_to(path), places.replacing(path) as temporary:
        yield temporary


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an OSError into a ResultsError that names the file.

    Raises:
        ResultsError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"cannot write {path}: {error.strerror or error}; free or open that place, or choose another with --results"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file.

    Raises:
        ResultsError: The file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file: a header, then the rows; None is an empty cell.

    Raises:
        ResultsError: The file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Read a file of a folder that may come from somebody else.

    Raises:
        OSError: It is missing, or cannot be read.
        ValueError: It is no regular file, a link that leads elsewhere, or larger.
    """
    check_regular(path)
    if path.resolve().parent != path.parent.resolve():
        raise ValueError("it is a link to another folder; put the file itself there")
    n_bytes = path.stat().st_size
    if n_bytes > max_bytes:
        raise ValueError(f"it has {n_bytes:,} bytes, and no more than {max_bytes:,} are read")
    return path.read_bytes()


def check_regular(path: Path) -> None:
    """Refuse anything but a regular file: opening a pipe would wait for ever.

    Raises:
        OSError: It is missing.
        ValueError: It is a folder, a pipe or the like.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no regular file")


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written: as featbench does, or as a spreadsheet saved it.

    Excel puts a byte-order mark before it, and, where a country writes 0,5, semicolons between the cells.
    """

    separator: str
    encoding: str = "utf-8-sig"

    def number(self, cell: str) -> str:
        """Write a number with a decimal point; other text stays as it is."""
        return cell.replace(",", ".") if self.separator == ";" and _DECIMAL_COMMA.fullmatch(cell) else cell


def csv_dialect(path: Path) -> Dialect:
    """Recognise the dialect of a CSV file by its header: commas are featbench's, semicolons or tabs a spreadsheet's.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, or no UTF-8 text.
    """
    check_regular(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline(_MAX_HEADER)
    separators = [] if "," in header else [one for one in (";", "\t") if one in header]
    return Dialect(separators[0] if separators else ",")


def read_csv(path: Path, columns: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file of this package: `columns` in this order, strings but for the `numbers`, which become float64.

    An empty cell is "" or, of a number, NaN, as is "nan"; no other text is a missing value, since a class may be called
    NA.

    Raises:
        ResultsError: It is missing or no CSV file, a column is missing, or a cell of a number holds something else.
    """
    try:
        dialect = csv_dialect(path)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding=dialect.encoding, sep=dialect.separator)
        missing = [column for column in columns if column not in table.columns]
        if missing:
            raise ResultsError(f"{path} lacks the columns {', '.join(missing)}: another version or program wrote it")
        return table[list(columns)].assign(
            **{
                column: pd.to_numeric(table[column].replace("nan", "").map(dialect.number)).astype("float64")
                for column in numbers
            }
        )
    except FileNotFoundError:
        raise ResultsError(f"there is no {path}") from None
    except (ValueError, OSError) as error:  # pandas' parser errors and decoding errors are ValueErrors
        raise ResultsError(f"{path} is not a readable CSV file: {first_line(error)}; {RESTORE}") from error


def read_table(
    path: Path, columns: Sequence[str], numbers: Sequence[str] = (), never_empty: Container[str] = ()
) -> pd.DataFrame:
    """Read a CSV file as `read_csv` does, and refuse numbers that are infinite or, in some columns, missing.

    Raises:
        ResultsError: As `read_csv`; or the file is damaged.
    """
    table = read_csv(path, columns, numbers)
    for column in numbers:
        wrong = np.isinf(table[column]) | (table[column].isna() & (column in never_empty))
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            given = "empty" if np.isnan(table[column].iloc[row]) else "infinite"
            raise ResultsError(f"{path} is damaged: {column} is {given} in row {row + 1}")
    return table
