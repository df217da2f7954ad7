"""Progress in a terminal: bars. On a pipe, plain lines instead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
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
from rich.text import Text

from featbench.progress import Advance
from featbench.terminal import one_line

_PIPE_WIDTH = 200
_BAR_FROM_WIDTH = 90
_LINE_EVERY_S = 30.0  # on a pipe


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s")


class TerminalProgress:
    """Shows progress on stderr, so that stdout holds nothing but results."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._console = make_console(stderr=True)
        self._quiet = quiet
        self._verbose = verbose
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            *([BarColumn()] if self._console.width >= _BAR_FROM_WIDTH else []),  # rather the numbers
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
            self._print(message)

    def warn(self, message: str) -> None:
        """Print a line."""
        self._print(f"warning: {message}")

    def _print(self, message: str) -> None:
        print_plain(self._console, one_line(message))

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Show a bar; on a pipe, a line when the work begins and then every half minute."""
        if not self._console.is_terminal:
            self.say(f"{label}: {total} to do")
            yield self._lines(label, total)
            return
        task = self._bars.add_task(one_line(label), total=total, note="")
        yield lambda steps, note: self._bars.update(task, advance=steps, note=one_line(note))

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


def make_console(*, stderr: bool = False) -> Console:
    """Return where to print; a pipe has room for long lines."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def print_plain(console: Console, text: str) -> None:
    """Print text as it is: no markup, no colours, no line breaks where the terminal ends."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
