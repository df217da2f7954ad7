"""The accuracy table at the end of a run, in the fullest form that the terminal has room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from featbench.progress_bars import make_console, print_plain
from featbench.results.store import ADVICE
from featbench.stats.accuracy import (
    KEYS,
    NEVER_NOTE,
    accuracy_table,
    as_text,
    best_by_validation,
    chosen_cells,
    is_reference,
    never_table,
)
from featbench.terminal import one_line, visible

_LEAVE_OUT = ("feature_dim", "weights", "pooling", "dataset", "steps", "backbone")  # in this order
_ANY_WIDTH = 1_000_000


def print_table(rows: pd.DataFrame, results_dir: Path) -> None:
    """Print the accuracy table of an experiment's rows, the best by validation in bold, then the folder's advice.

    Where the terminal is narrow, names are written in several lines, then columns are left out that do not tell rows
    apart, and in the end each accuracy has a line of its own; numbers are never broken. A pipe gets the whole table.
    """
    console = make_console()
    best = best_by_validation(rows)
    table, never = accuracy_table(rows), never_table(rows)
    text = as_text(table, never)
    text = text.mask(chosen_cells(rows, table), "*" + text)
    grid = _fitting(text, console)
    console.print(grid, width=None if console.is_terminal else max(console.width, _width(grid, console)))
    if best is not None:
        low, high = best["accuracy_low"], best["accuracy_high"]
        where = " ".join(best[key] for key in ("backbone", "layer") if isinstance(best[key], str))
        line = (
            f"Test accuracy. * best by validation: {best['method']} on {where}, "
            f"{best['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}, {best['n_test']} test images)"
        )
        print_plain(console, one_line(line))
    if never.to_numpy().any():
        print_plain(console, NEVER_NOTE)
    if (results_dir / ADVICE).is_file():
        print_plain(console, visible((results_dir / ADVICE).read_text("utf-8").rstrip("\n")))
    print_plain(console, one_line(f"Tables and models: {results_dir}"))


def _fitting(text: pd.DataFrame, console: Console) -> Table:
    for grid in _forms(text):
        if not console.is_terminal or _width(grid, console) <= console.width:
            break
    return grid


def _forms(text: pd.DataFrame) -> Iterator[Table]:
    """Yield the table from its fullest form to its narrowest."""
    methods = [str(column) for column in text if column not in KEYS]
    keys = [key for key in KEYS if key == "layer" or text[key].nunique() > 1]
    yield _grid(text[keys + methods], folded=False)
    yield _grid(text[keys + methods], folded=True)
    left_out: list[str] = []
    for key in _LEAVE_OUT:
        others = [other for other in keys if other != key]
        if key in keys and not text.duplicated(others).any():
            keys = others
            left_out.append(key)
            yield _grid(text[keys + methods], folded=True, left_out=left_out)
    names = {method: f"{method} (ref.)" for method in methods if is_reference(method)}
    each = (
        text[keys + methods]
        .rename(columns=names)
        .melt(keys, var_name="method", value_name="accuracy", ignore_index=False)
    )
    yield _grid(each[each["accuracy"] != ""].sort_index(kind="stable"), folded=True, left_out=left_out)


def _grid(text: pd.DataFrame, *, folded: bool, left_out: Sequence[str] = ()) -> Table:
    note = f"{', '.join(left_out)}: in accuracy.csv" if left_out else None
    grid = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), caption=note, caption_justify="left"
    )
    for column in map(one_line, map(str, text)):
        name = f"{column}\n(reference)" if is_reference(column) else column
        is_number = column not in (*KEYS, "method")
        grid.add_column(
            Text(name.replace("_", "_\n").replace("erence)", ".)") if folded else name),
            justify="right" if is_number else "left",
            style="dim" if is_reference(column) else None,
            no_wrap=is_number,
            overflow="fold",
        )
    for line in text.itertuples(index=False):
        grid.add_row(*(Text(cell, "bold" if cell.startswith("*") else "") for cell in map(one_line, map(str, line))))
    return grid


def _width(grid: Table, console: Console) -> int:
    return console.measure(grid, options=console.options.update_width(_ANY_WIDTH)).maximum
