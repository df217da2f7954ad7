"""`[[baselines]]`: how a reference network is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featbench.config.table import Count, Epochs, Fraction, NonNegative, Positive, Processes, Repeats, Table

Optimizers = Literal["sgd", "adam", "adamw"]
Schedules = Literal["constant", "step", "cosine", "one_cycle", "plateau"]
Augmentations = Literal[
    "none", "flip", "crop", "flip_crop", "flip_crop_erase", "flip_resized_crop", "trivial_augment", "rand_augment"
]
Share = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]


class BaselineConfig(Table):
    """`[[baselines]]`: one reference network. What is None is chosen by the strategy, and recorded in the row.

    Attributes:
        optimizer: `weight_decay` is L2 in the gradient with sgd (Nesterov) and adam, and decoupled with adamw.
        lr: The head's learning rate, the peak where the schedule has one; "auto" finds it by a range test.
        backbone_lr_factor: What is below the head has `lr` times this.
        layer_decay: Each block further below the head has the rate of the one above it times this.
        clip_norm: Largest norm of the gradient, which is scaled down to it.
        label_smoothing: Share of a label's weight that is spread over all classes.
        mixup: Parameter of the Beta distribution that pairs of images are mixed by; 0 mixes none.
        ema: Decay a step of the averaged weights, which are then the ones scored and kept; 0 keeps none.
        warmup_epochs: Over these the rate rises linearly.
        step_size: Epochs after which "step" multiplies the rate by `gamma`; None is a third of all.
        plateau_patience: Epochs without a lower validation loss after which "plateau" multiplies it by `gamma`.
        early_stopping: Epochs without a better one by validation that end the training.
        refit: Train a second time on train and val together, as classifiers are fitted, and test that network.
        tune: Trainings with other rates and epochs that are compared by validation; 0 is one training, as it is set.
        devices: Processes a machine that train together, each on its GPU (or on the CPU).
        num_nodes: Machines that train together.
        distributed: How they do: the name of one of Lightning's strategies.
    """

    strategy: Literal["scratch", "finetune", "partial", "linear_head"]
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    backbone: str | None = None
    epochs: Epochs | None = None
    batch_size: Annotated[int, Field(ge=2, le=65_536)] | None = None
    optimizer: Optimizers | None = None
    lr: Positive | Literal["auto"] | None = None
    backbone_lr_factor: Positive = 0.1
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] = 1.0
    momentum: Share = 0.9
    weight_decay: NonNegative | None = None
    l1: NonNegative = 0.0
    dropout: Share = 0.0
    clip_norm: Positive | None = None
    label_smoothing: Share = 0.0
    mixup: NonNegative = 0.0
    ema: Share = 0.0
    schedule: Schedules = "one_cycle"
    warmup_epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    step_size: Count | None = None
    gamma: Fraction = 0.1
    plateau_patience: Count = 5
    augment: Augmentations | None = None
    freeze_until: str | None = None
    early_stopping: Count | None = None
    refit: bool | None = None
    tune: Annotated[int, Field(ge=0, le=10)] = 0
    repeats: Repeats = 1
    devices: Processes = 1
    num_nodes: Processes = 1
    distributed: Literal["ddp", "ddp_find_unused_parameters_true"] = "ddp"

    @property
    def method(self) -> str:
        """What the row and the column are called: the strategy, and the label behind a colon."""
        return self.strategy if self.label is None else f"{self.strategy}:{self.label}"

    @property
    def processes(self) -> int:
        """How many processes train one network together."""
        return self.devices * self.num_nodes

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.strategy == "partial" and self.freeze_until is None:
            raise ValueError('freeze_until is missing: the last layer to freeze, as in freeze_until = "layer2"')
        if self.strategy != "partial":
            self._refuse("freeze_until", f'with strategy = "{self.strategy}"')
        if self.strategy in ("scratch", "linear_head"):
            for key in ("backbone_lr_factor", "layer_decay"):
                self._refuse(key, f'with strategy = "{self.strategy}"')
        if self.optimizer in ("adam", "adamw"):
            self._refuse("momentum", f'with optimizer = "{self.optimizer}"')
        if self.schedule == "one_cycle":
            self._refuse("warmup_epochs", 'with schedule = "one_cycle", which warms up by itself')
        if self.schedule != "step":
            self._refuse("step_size", f'with schedule = "{self.schedule}"')
        if self.schedule not in ("step", "plateau"):
            self._refuse("gamma", f'with schedule = "{self.schedule}"')
        if self.schedule != "plateau":
            self._refuse("plateau_patience", f'with schedule = "{self.schedule}"')
        if self.refit and (self.early_stopping is not None or self.schedule == "plateau"):
            raise ValueError(
                'refit = true trains on the validation rows, which early_stopping and schedule = "plateau" go by; '
                "remove one of them"
            )
        if self.processes == 1:
            self._refuse("distributed", "with one process; set devices or num_nodes")
        elif self.lr == "auto":
            raise ValueError('lr = "auto" is found by one process; find it with devices = 1, and set lr')
        elif self.batch_size is not None and self.batch_size < 2 * self.processes:
            raise ValueError(
                f"batch_size = {self.batch_size} is less than two images for each of the {self.processes} processes"
            )
        if self.tune == 1:
            raise ValueError("tune = 1 compares nothing; set how many trainings to compare, from 2 to 10")
        if self.epochs is not None and self.step_size is not None and self.step_size >= self.epochs:
            raise ValueError(f"step_size = {self.step_size} has no effect in {self.epochs} epochs; make it smaller")
        if self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs = {self.warmup_epochs} leaves none of the {self.epochs} epochs to train")
        return self
