"""Progress of long work: stages report to a `Progress`, which decides how to show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int, str], None]
"""Counts steps that are done, with a short note on how it goes (or "")."""


class Progress(Protocol):
    """Takes messages and progress."""

    def say(self, message: str) -> None:
        """Take one line of news."""
        ...

    def warn(self, message: str) -> None:
        """Take one line that the user should not miss."""
        ...

    def bar(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Follow work of a known number of steps."""
        ...


class Silent:
    """Progress that is not shown."""

    def say(self, message: str) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing; warnings that matter are in the results as well."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Count nothing."""
        yield lambda steps, note: None


class OnceOnly:
    """Progress that passes each message on once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._passed_on: set[str] = set()
        self.warnings: list[str] = []

    def say(self, message: str) -> None:
        """Pass a line of news on."""
        if self._is_new(message):
            self._progress.say(message)

    def warn(self, message: str) -> None:
        """Pass a warning on, and keep it in `warnings`."""
        if self._is_new(message):
            self.warnings.append(message)
            self._progress.warn(message)

    def bar(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Follow work; every bar is shown."""
        return self._progress.bar(label, total)

    def _is_new(self, message: str) -> bool:
        new = message not in self._passed_on
        self._passed_on.add(message)
        return new
