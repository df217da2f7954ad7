"""What every table of an experiment file has in common, and the kinds of numbers in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
# Beyond these there is only a slip of the finger, which would end in want of memory, or never.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Repeats = Annotated[int, Field(ge=1, le=1000)]
Processes = Annotated[int, Field(ge=1, le=1024)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]


class Table(BaseModel):
    """A frozen table; keys that it does not have are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def _refuse(self, key: str, why: str) -> None:
        """Refuse a key that was set although it has no effect here."""
        if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
            raise ValueError(f"{key} has no effect {why}; remove it")
