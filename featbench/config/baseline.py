"""`[[baselines]]`: how a reference network is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featbench.config.table import Count, NonNegative, Positive, Table


class BaselineConfig(Table):
    """`[[baselines]]`: one reference network. What is None is chosen by the strategy, and recorded in the row."""

    strategy: Literal["scratch", "finetune", "partial", "linear_head"]
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    backbone: str | None = None
    epochs: Count | None = None
    batch_size: Annotated[int, Field(ge=2)] | None = None
    optimizer: Literal["sgd", "adamw"] | None = None
    lr: Positive | None = None
    backbone_lr_factor: Positive = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: NonNegative | None = None
    l1: NonNegative = 0.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "one_cycle"
    augment: Literal["none", "flip", "crop", "flip_crop", "flip_crop_erase"] = "none"
    freeze_until: str | None = None
    early_stopping: Count | None = None
    repeats: Count = 1

    @property
    def method(self) -> str:
        """What the row and the column are called: the strategy, and the label behind a colon."""
        return self.strategy if self.label is None else f"{self.strategy}:{self.label}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.strategy == "partial" and self.freeze_until is None:
            raise ValueError('freeze_until is missing: the last layer to freeze, as in freeze_until = "layer2"')
        if self.strategy != "partial":
            self._refuse("freeze_until", f'with strategy = "{self.strategy}"')
        if self.strategy in ("scratch", "linear_head"):
            self._refuse("backbone_lr_factor", f'with strategy = "{self.strategy}"')
        if self.strategy == "linear_head":
            self._refuse("augment", 'with strategy = "linear_head", which trains on features computed once')
        if self.optimizer == "adamw":
            self._refuse("momentum", 'with optimizer = "adamw"')
        return self
