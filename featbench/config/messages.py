"""What is wrong with an experiment, in one sentence, with the nearest key that is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from featbench.config.table import Table
from featbench.errors import nearest

_LONGEST = 200  # characters of a value in a message
_MOST_ERRORS = 5  # in a message


def what_is_wrong(error: ValidationError, tables: Mapping[str, type[Table]]) -> str:
    """Describe what pydantic refused.

    Args:
        error: What pydantic found.
        tables: The table below each key, and below "" the whole.
    """
    wrong = [_explain(each, tables) for each in error.errors()]
    more = f"; and {len(wrong) - _MOST_ERRORS} more" if len(wrong) > _MOST_ERRORS else ""
    return "; ".join(wrong[:_MOST_ERRORS]) + more


def shown(value: Any) -> str:
    """Return what was given as Python writes it, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _explain(error: Any, tables: Mapping[str, type[Table]]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        names = [part for part in error["loc"] if isinstance(part, str)]
        valid = list(tables["" if len(names) == 1 else names[0]].model_fields)
        close = nearest(names[-1], valid)
        hint = f"did you mean {close!r}? " if close else ""
        return f"unknown key {shown(place)}; {hint}Valid here: {', '.join(valid)}."
    if error["type"] == "missing":
        return f"{place} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place} = {shown(error['input'])}: {message}"
