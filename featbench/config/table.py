"""What every table of an experiment file has in common, and what every value in one has to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
# Beyond these there is only a slip of the finger, which would end in want of memory, or never.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Repeats = Annotated[int, Field(ge=1, le=1000)]
Processes = Annotated[int, Field(ge=1, le=1024)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]

_LARGEST_INT = 2**63
_SMALLEST, _LARGEST = 1e-30, 1e30  # solvers and networks compute in 32 bits, too
_DEEPEST = 16


class Table(BaseModel):
    """A frozen table; keys that it does not have are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def _refuse(self, key: str, why: str) -> None:
        """Refuse a key that was set although it has no effect here."""
        if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
            raise ValueError(f"{key} has no effect {why}; remove it")


def check_values(content: Any) -> None:
    """Check numbers and strings, however deep they lie.

    Raises:
        ValueError: A number is not finite or too large, a string has a character that no name
            and no file has, or tables and lists are nested too deep.
    """
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        key, value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError(f"{key} is nested too deep; no setting is")
        if isinstance(value, Mapping):
            waiting += [(f"{key}.{name}".lstrip("."), item, depth + 1) for name, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{key}.{number}", item, depth + 1) for number, item in enumerate(value)]
        elif isinstance(value, float) and value != 0 and not _SMALLEST <= abs(value) <= _LARGEST:
            raise ValueError(f"{key} = {value}: give 0, or a number between {_SMALLEST:g} and {_LARGEST:g}")
        elif isinstance(value, int) and abs(value) >= _LARGEST_INT:
            raise ValueError(f"{key} is a number of more than 64 bits; give a smaller one")
        elif isinstance(value, str) and "\0" in value:
            raise ValueError(f"{key} holds a NUL character, which no name and no path has")
        elif isinstance(value, str) and not is_utf8(value):
            raise ValueError(f"{key} is not UTF-8, so experiment.toml cannot name it; rename the file or folder")


def is_utf8(text: str) -> bool:
    """Say whether text has no bytes of a file's name that Python could not decode."""
    try:
        return text.encode() is not None
    except UnicodeEncodeError:
        return False
