"""The accuracy table as the page shows it: accuracy.csv's rows and columns, each cell with interval and verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from featbench.report.folder import Folder
from featbench.stats.accuracy import KEYS, accuracy_table, is_on_line, is_reference
from featbench.stats.models import MODEL_KEYS


@dataclass(frozen=True)
class Entry:
    """One model in a cell; `mean` and `sd` are over its `n_repeats` where there are several."""

    model: dict[Any, Any]
    mean: float | None = None
    sd: float | None = None
    n_repeats: int = 1


@dataclass(frozen=True)
class Line:
    """One row of the table: the keys that are shown, and a cell for each method."""

    keys: tuple[str, ...]
    cells: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class AccuracyTable:
    """The table; `methods` are the classifiers, then `n_references` reference columns.

    Keys that are `folded` have no column of their own, so that the table fits a page: they stand below the layer.
    """

    folded = ("weights", "pooling", "feature_dim", "steps")

    key_columns: tuple[str, ...]
    methods: tuple[str, ...]
    n_references: int
    lines: tuple[Line, ...]

    def without_equal_keys(self) -> AccuracyTable:
        """Leave out the key columns that are the same on every row, but for the layer."""
        values = [{line.keys[place] for line in self.lines} for place in range(len(self.key_columns))]
        kept = [p for p, name in enumerate(self.key_columns) if len(values[p]) > 1 or name == "layer"]
        lines = tuple(replace(line, keys=tuple(line.keys[place] for place in kept)) for line in self.lines)
        return replace(self, key_columns=tuple(self.key_columns[place] for place in kept), lines=lines)


def page_table(folder: Folder, shown: tuple[str, ...] = KEYS) -> AccuracyTable:
    """Arrange the models as `accuracy_table` does, with the key columns in `shown`."""
    table = accuracy_table(folder.rows)
    methods = tuple(column for column in table.columns if column not in KEYS)
    spread = {_model_key(record): record for record in folder.tables["spread.csv"].to_dict("records")}
    records = folder.models.to_dict("records")
    lines = []
    for line in table.to_dict("records"):
        key = tuple(line[name] for name in KEYS)
        cells = tuple(
            tuple(_entry(r, spread) for r in records if r["method"] == method and is_on_line(r, key))
            for method in methods
        )
        lines.append(Line(tuple(line[name] for name in shown), cells))
    n_references = sum(is_reference(method) for method in methods)
    return AccuracyTable(shown, methods, n_references, tuple(lines))


def _model_key(record: dict[Any, Any]) -> tuple[str, ...]:
    """Return what identifies a model over its repeats, of a row of results.csv or of spread.csv."""
    values = [record[name] for name in MODEL_KEYS]
    return tuple("" if pd.isna(v) else str(int(v)) if isinstance(v, float) else str(v) for v in values)


def _entry(record: dict[Any, Any], spread: dict[tuple[str, ...], dict[Any, Any]]) -> Entry:
    found = spread.get(_model_key(record))
    if found is None or not found["n_repeats"] > 1:
        return Entry(record)
    return Entry(record, found["accuracy_mean"], found["accuracy_sd"], int(found["n_repeats"]))
