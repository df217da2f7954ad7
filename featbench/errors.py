"""The errors a user can cause, each with the exit code that the command line gives it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FeatbenchError(Exception):
    """Something went wrong that one clear message explains; the command line exits with 1.

    Args:
        message: What was given, what is allowed, what to do next.
        with_lines: Whether the message has lines to paste into a shell, so that its line breaks are its own; where it
            has none, a line break is one in a name, and is shown as an escape.
    """

    exit_code = 1

    def __init__(self, message: str, *, with_lines: bool = False) -> None:
        super().__init__(message)
        self.with_lines = with_lines


class UsageError(FeatbenchError):
    """The command line or the experiment is wrong: a name, a key, a value; exits with 2."""

    exit_code = 2


class DataError(FeatbenchError):
    """The images are missing, unreadable or too few."""


class WeightsError(FeatbenchError):
    """Weights are missing, or do not fit the network."""


class CacheError(FeatbenchError):
    """A feature cache is damaged, or cannot be written."""


class ResultsError(FeatbenchError):
    """A results folder is damaged, or cannot be written."""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or its name where it has no text; further lines are often advice."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def list_names(names: Iterable[str], limit: int = 10) -> str:
    """Join names for a message; of more than `limit` the first, and how many there are besides."""
    shown = list(names)
    rest = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + rest


def nearest(given: str, valid: Iterable[str]) -> str | None:
    """Return the valid name closest to the given one, if any is close."""
    by_lower = {name.lower(): name for name in valid}
    close = get_close_matches(given.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def unknown(kind: str, given: str, valid: Iterable[str], *, listed_by: str | None = None) -> UsageError:
    """Make the error for a name that is not in a table: the closest match, then what is valid.

    Args:
        kind: What the name stands for, as in "backbone".
        given: The name that was given.
        valid: Every valid name.
        listed_by: The command that prints the valid names; without it they stand in the message.
    """
    names = list(valid)
    close = nearest(given, names)
    hint = f"; did you mean {close!r}?" if close else "."
    rest = f"`{listed_by}` prints the valid names." if listed_by else f"Valid: {', '.join(names)}."
    return UsageError(f"unknown {kind} {given!r}{hint} {rest}")
