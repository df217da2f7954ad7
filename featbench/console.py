"""What a run looks like in a terminal: progress bars and the final table. On a pipe, plain lines instead."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from featbench.progress import Advance
from featbench.results.statistics import ADVICE
from featbench.results.tables import KEYS, accuracy_table, best_by_validation, is_reference

_PIPE_WIDTH = 200
_LINE_EVERY_S = 30.0  # on a pipe


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s")


class TerminalProgress:
    """Shows progress on stderr, so that stdout holds nothing but results."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._console = _console(stderr=True)
        self._quiet = quiet
        self._verbose = verbose
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, message: str) -> None:
        """Print a line, unless the user wants quiet."""
        if not self._quiet:
            self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a line."""
        self._console.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Show a bar; on a pipe, a line when the work begins and then every half minute."""
        if not self._console.is_terminal:
            self.say(f"{label}: {total} to do")
            yield self._lines(label, total)
            return
        task = self._bars.add_task(label, total=total, note="")
        yield lambda steps, note: self._bars.update(task, advance=steps, note=note)

    def _lines(self, label: str, total: int) -> Advance:
        done = 0
        started_s = said_s = time.monotonic()

        def advance(steps: int, note: str) -> None:
            nonlocal done, said_s
            done += steps
            now_s = time.monotonic()
            if done and done < total and now_s - said_s >= _LINE_EVERY_S:
                said_s = now_s
                rate = done / (now_s - started_s)
                left = f"{timedelta(seconds=round((total - done) / rate))} to go"
                self.say(", ".join([f"{label}: {done} of {total}", f"{rate:.3g}/s", left, *([note] if note else [])]))

        return advance


def print_table(rows: pd.DataFrame, results_dir: Path) -> None:
    """Print the accuracy table of an experiment's rows, the best by validation in bold, then the folder's advice."""
    table = accuracy_table(rows)
    best = best_by_validation(rows)
    shown = [
        column for column in table.columns if column not in KEYS or table[column].nunique() > 1 or column == "layer"
    ]
    grid = Table(caption_justify="left")
    for column in shown:
        numeric = column not in KEYS
        grid.add_column(
            f"{column}\n(reference)" if is_reference(column) else column,
            justify="right" if numeric else "left",
            style="dim" if is_reference(column) else None,
            overflow="fold",
        )
    for record in table.to_dict("records"):
        grid.add_row(*(_cell(record, str(column), best) for column in shown))
    console = _console()
    console.print(grid)
    if best is not None:
        low, high = best["accuracy_low"], best["accuracy_high"]
        where = f"{best['backbone']} {best['layer']}"
        console.print(
            f"Test accuracy. * best by validation: {best['method']} on {where}, "
            f"{best['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}, {best['n_test']} test images)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if (results_dir / ADVICE).is_file():
        console.print((results_dir / ADVICE).read_text("utf-8"), markup=False, highlight=False, soft_wrap=True, end="")
    console.print(f"Tables and models: {results_dir}", markup=False, highlight=False, soft_wrap=True)


def _cell(record: Mapping[Hashable, Any], column: str, best: pd.Series | None) -> str:
    value: Any = record[column]
    if column in KEYS:
        return escape(str(value))
    if pd.isna(value):
        return ""
    is_best = best is not None and column == best["method"] and all(record[key] == _text(best[key]) for key in KEYS)
    return f"[bold]*{value:.4f}[/bold]" if is_best else f"{value:.4f}"


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console
