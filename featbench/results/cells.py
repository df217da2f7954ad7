"""The cells of results.csv, from text to typed columns; a wrong cell is an error that names its column and row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pandas as pd

from featbench.results.row import Row

_SHARES = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
_REQUIRED = ("accuracy", "accuracy_low", "accuracy_high")  # the other metrics are missing of a network that diverged
_POSITIVE = ("n_classes", "feature_dim", "n_train", "n_test", "images_per_class")
_FINGERPRINT = re.compile(r"[0-9A-Za-z-]{1,64}")
_INTEGER = re.compile(r"([0-9]{1,16})(\.0*)?")  # spreadsheets and pandas add .0 where a cell of the column is empty
_BOOLEANS = {"True": True, "False": False, "TRUE": True, "FALSE": False}  # a spreadsheet writes capitals
_MAX_DEPTH = 20
_MAX_SHOWN = 60
_YEARS = (2000, 2999)


class CellError(Exception):
    """A cell is wrong; the message rule which, and what is allowed there."""


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Turn columns of text, in which an empty cell is a missing value, into those that `load_results` returns.

    Raises:
        CellError: A cell has the wrong type, or a value out of range.
    """
    hints = get_type_hints(Row)
    for name in (field.name for field in fields(Row)):
        kinds = get_args(hints[name]) or (hints[name],)
        column = table[name]
        if (type(None) not in kinds and float not in kinds) or name in _REQUIRED:
            _refuse(column, column.isna(), "it may not be empty")
        table[name] = _column(name, column, kinds)
        if name in _REQUIRED:
            _refuse(column, table[name].isna(), "it is a number from 0 to 1")
    _refuse(table["fingerprint"], table["fingerprint"].duplicated(), "each row has one of its own")
    table["images_per_class"] = table["images_per_class"].fillna(table["params"].map(_size_in_params).astype("Int64"))
    return table


def _column(name: str, column: pd.Series, kinds: tuple[Any, ...]) -> pd.Series:
    if name in _TEXTS:
        allowed, rule = _TEXTS[name]
        _refuse(column, ~column.map(allowed, na_action="ignore").fillna(value=True).astype(bool), rule)
    if name == "created_at":
        moments = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
        wrong = ~moments.dt.year.between(*_YEARS)  # False for NaT, too
        _refuse(column, wrong, f"it is a date and time as in 2026-01-02T03:04:05.678+00:00, from {_YEARS[0]} on")
        return moments
    if bool in kinds:
        _refuse(column, ~column.isin(list(_BOOLEANS)) & column.notna(), "it is True, False or empty")
        return column.map(_BOOLEANS).astype("boolean")
    if int in kinds:
        least = 1 if name in _POSITIVE else 0
        numbers = column.map(_integer, na_action="ignore")
        wrong = column.notna() & ~(numbers.astype("float64") >= least)
        _refuse(column, wrong, f"it is a whole number, from {least} up and of at most 16 digits")
        return numbers.astype("Int64")
    if float in kinds:
        numbers = column.map(_number, na_action="ignore").astype("float64")
        _refuse(
            column,
            column.notna() & numbers.isna() & (column.map(str.lower, na_action="ignore") != "nan"),
            "it is a number",
        )
        low, high = _bounds(name)
        _refuse(column, (numbers < low) | (numbers > high), f"it is a number from {low:g} to {high:g}")
        return numbers
    return column


def _bounds(name: str) -> tuple[float, float]:
    if any(name.endswith(share) or name.startswith(f"{share}_") for share in _SHARES):
        return 0.0, 1.0
    return (0.0, 1e12) if name.endswith("_s") else (-1e300, 1e300)


def _refuse(column: pd.Series, wrong: pd.Series, rule: str) -> None:
    """Raise the error for the first wrong cell.

    Raises:
        CellError: One is wrong.
    """
    if wrong.any():
        row = int(wrong.to_numpy(dtype=bool).argmax())
        cell = column.iloc[row]
        given = "nothing" if pd.isna(cell) else repr(cell if len(cell) <= _MAX_SHOWN else f"{cell[:_MAX_SHOWN]}...")
        raise CellError(f"column {column.name} holds {given} in row {row + 1}; {rule}")


def _integer(text: str) -> int | None:
    found = _INTEGER.fullmatch(text)
    return int(found[1]) if found else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _size_in_params(params: str) -> int | None:
    """Return what earlier versions kept in `params` alone: the training images of each class of a learning curve."""
    size = json.loads(params).get("images_per_class")
    return size if isinstance(size, int) and size > 0 else None


def _is_object(text: str) -> bool:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and _is_plain(content, _MAX_DEPTH)


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, int | float):
        return abs(value) < 2**63
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_is_plain(child, depth - 1) for child in children)


_TEXTS: dict[str, tuple[Callable[[str], bool], str]] = {
    "kind": (lambda text: text in ("classifier", "baseline"), "it is classifier or baseline"),
    "params": (_is_object, f"it is a JSON object of finite numbers, nested at most {_MAX_DEPTH} deep"),
    "fingerprint": (
        lambda text: _FINGERPRINT.fullmatch(text) is not None,
        "it is letters, digits and -, at most 64 of them",
    ),
}
