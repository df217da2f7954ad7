"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import csv
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from featbench.errors import ResultsError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` when the block ends, and is removed if it fails.

    Raises:
        ResultsError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):  # it is gone after the rename, and never was where the folder could not be made
            temporary.unlink()


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into a ResultsError that names the file."""
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


def read_limited(path: Path, most_bytes: int) -> bytes:
    """Read a file of a folder that may come from somebody else.

    Raises:
        OSError: It is missing, or cannot be read.
        ValueError: It is no regular file (opening a pipe would wait for ever), or larger.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    if status.st_size > most_bytes:
        raise ValueError(f"it has {status.st_size:,} bytes, where {most_bytes:,} are the most that is read")
    return path.read_bytes()


def read_csv(path: Path, columns: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file of this package: `columns` in this order, strings but for the `numbers`, which become float64.

    An empty cell is "" or NaN, and so is "nan" of a number; no other text is a missing value, since a class may be
    called NA.

    Raises:
        ResultsError: It is missing or no CSV file, a column is missing, or a number is none.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        missing = [column for column in columns if column not in table.columns]
        if missing:
            raise ResultsError(f"{path} lacks the columns {', '.join(missing)}: another version or program wrote it")
        return table[list(columns)].assign(
            **{column: pd.to_numeric(table[column].replace("nan", "")).astype("float64") for column in numbers}
        )
    except FileNotFoundError:
        raise ResultsError(f"there is no {path}") from None
    except (ValueError, OSError) as error:  # pandas' parser errors and decoding errors are ValueErrors
        raise ResultsError(f"{path} is not a readable CSV file: {error}") from error
