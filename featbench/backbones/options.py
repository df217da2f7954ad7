"""Options in the name of a network of featbench's own: `mlp:widths=512-128,activation=sigmoid`.

They are part of the name, so that two networks that differ in one have rows, caches and columns of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from featbench.errors import UsageError, nearest

_WIDTH = re.compile("[1-9][0-9]{0,3}")
_MOST_LAYERS = 16
Parse = Callable[[str], Any]


def parse_options(name: str, valid: Mapping[str, Parse]) -> dict[str, Any]:
    """Read what follows the colon of a name: KEY=VALUE, separated by commas.

    Args:
        name: As given, as in "mlp:widths=512-128".
        valid: For each option, what makes its value of the text; a ValueError says what is allowed.

    Raises:
        UsageError: An option is unknown, given twice, or its value is wrong.
    """
    base, colon, text = name.partition(":")
    options: dict[str, Any] = {}
    for part in text.split(",") if colon else ():
        key, _, value = part.partition("=")
        if key not in valid:
            close = nearest(key, valid)
            hint = f"; did you mean {close!r}?" if close else "."
            allowed = f"Valid: {', '.join(valid)}." if valid else f"{base} takes none."
            raise UsageError(f"unknown option {key!r} in {name!r}{hint} {allowed}")
        if key in options:
            raise UsageError(f"{name!r} gives {key} twice")
        try:
            options[key] = valid[key](value)
        except ValueError as error:
            raise UsageError(f"{key}={value} in {name!r}: {error}") from None
    return options


def widths(text: str) -> tuple[int, ...]:
    """Read widths of layers, as in 512-128."""
    parts = text.split("-")
    if len(parts) > _MOST_LAYERS or not all(map(_WIDTH.fullmatch, parts)):
        raise ValueError(
            f"widths are whole numbers above 0, joined by -, as in widths=512-128; {_MOST_LAYERS} of 9,999 at most"
        )
    return tuple(int(part) for part in parts)


def share(text: str) -> float:
    """Read a share of [0, 1)."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise ValueError("it has to be a number from 0 to below 1")
    return number


def switch(text: str) -> bool:
    """Read true or false."""
    if text not in ("true", "false"):
        raise ValueError("it has to be true or false")
    return text == "true"


def one_of(names: Mapping[str, Any]) -> Parse:
    """Make the reader of a name from a table."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"it has to be one of {', '.join(names)}")
        return text

    return read
