"""Progress for people: bars in a terminal or a notebook; elsewhere, as on a pipe, a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from importlib.util import find_spec
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

from featbench.progress import Advance, Progress, Silent
from featbench.terminal import one_line

_PIPE_WIDTH = 200
_BAR_FROM_WIDTH = 90
_LINE_EVERY_S = 30.0  # on a pipe


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s")


class ProgressBars:
    """Shows progress on stderr, so that stdout holds nothing but results.

    Args:
        quiet: Show warnings only.
        clock: Gives seconds.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = make_console(stderr=True)
        self._quiet = quiet
        self._clock = clock
        is_notebook = self._console.is_jupyter and find_spec("ipywidgets") is not None  # rich needs it there
        self._has_bars = self._console.is_terminal or is_notebook
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            *([BarColumn()] if self._console.width >= _BAR_FROM_WIDTH else []),  # rather the numbers
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            disable=quiet or not self._has_bars,
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
        """Show a bar; where there are none, a line when the work begins and then every half minute."""
        if not self._has_bars:
            self.say(f"{label}: {total} to do")
            yield self._lines(label, total)
            return
        task = self._bars.add_task(one_line(label), total=total, note="")
        yield lambda steps, note: self._bars.update(task, advance=steps, note=one_line(note))

    def _lines(self, label: str, total: int) -> Advance:
        done = 0
        started_s = said_s = self._clock()

        def advance(steps: int, note: str) -> None:
            nonlocal done, said_s
            done += steps
            now_s = self._clock()
            if done and done < total and now_s - said_s >= _LINE_EVERY_S:
                said_s = now_s
                rate = done / (now_s - started_s)
                left = f"{timedelta(seconds=round((total - done) / rate))} to go"
                self.say(", ".join([f"{label}: {done} of {total}", f"{rate:.3g}/s", left, *([note] if note else [])]))

        return advance


def follow(progress: Progress | bool | None) -> AbstractContextManager[Progress]:
    """Return what a call from Python reports to.

    Args:
        progress: Takes messages and progress; or whether bars are shown. None shows them where somebody can see them:
            where stderr is a terminal, and in a notebook.
    """
    if progress is None:
        console = make_console(stderr=True)
        progress = console.is_terminal or console.is_jupyter
    if isinstance(progress, bool):
        return ProgressBars() if progress else nullcontext(Silent())
    return nullcontext(progress)


def make_console(*, stderr: bool = False) -> Console:
    """Return where to print; a pipe has room for long lines."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def print_plain(console: Console, text: str) -> None:
    """Print text as it is: no markup, no colours, no line breaks where the terminal ends."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
