"""The tables of an experiment file, and the experiment they make."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, field_validator, model_validator

from featbench.config.baseline import BaselineConfig
from featbench.config.messages import what_is_wrong
from featbench.config.table import Count, Fraction, Positive, Repeats, Table, check_values
from featbench.errors import UsageError, nearest

LONGEST_NAME = 100  # characters of the name of an experiment, which is that of a folder, too
_MOST_CANDIDATES = 10_000  # of a grid


class DatasetConfig(Table):
    """`[dataset]`: which images, and how they are split."""

    name: str
    root: Path | None = None
    val_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.15
    limit_train: Count | None = None
    limit_test: Count | None = None
    on_bad_image: Literal["skip", "error"] = "skip"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "folder" and self.root is None:
            raise ValueError(
                'root is missing: the folder of images, as in root = "photos/" or --set dataset.root=photos/'
            )
        if self.name != "folder":
            self._refuse("root", 'unless name = "folder" (where data sets are kept is --data)')
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction leave nothing to train on; their sum must stay below 1")
        return self


class BackboneConfig(Table):
    """`[[backbones]]`: which network, which weights, which layers, pooled how."""

    name: str
    weights: str | None = None  # None: the network's default weights
    layers: tuple[str, ...] = ("penultimate",)
    pooling: str = "avg"
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    store: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.layers:
            raise ValueError('layers is empty; name at least one, as in layers = ["penultimate"]')
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers names a layer twice: {', '.join(self.layers)}")
        if self.name == "pixels":
            for key in ("weights", "layers", "pooling", "precision"):
                self._refuse(key, "on pixels, the control without a network")
        return self


class EvaluateConfig(Table):
    """`[evaluate]`: which classifiers, and how their hyper-parameters are chosen.

    Attributes:
        memory_gb: What features may take, with the copies that a fit makes of them, in units of 1e9 bytes; None is four
            fifths of the memory that is free. Beyond it the linear SVC reads them from disk, and the others refuse.
    """

    classifiers: tuple[str, ...] = ("linear_svc", "svm_rbf", "random_forest")
    selection: Literal["auto", "cv", "holdout", "none"] = "auto"
    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    repeats: Repeats = 1
    train_sizes: Annotated[tuple[Count, ...], Field(max_length=100)] = ()
    grids: Mapping[str, Mapping[str, tuple[Any, ...]]] = Field(default_factory=dict)
    engine: Literal["auto", "sklearn"] = "auto"
    steps: Annotated[tuple[tuple[str, ...], ...], Field(min_length=1)] = ((),)  # a list of strings is one variant
    fusions: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = ()  # of BACKBONE/LAYER
    memory_gb: Positive | None = None

    @field_validator("steps", mode="before")
    @classmethod
    def _one_variant(cls, steps: Any) -> Any:
        flat = isinstance(steps, list | tuple) and all(isinstance(step, str) for step in steps)
        return (steps,) if flat else steps

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("steps", "fusions"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                raise ValueError(f"{key} names a list twice; remove one")
        if len(set(self.classifiers)) != len(self.classifiers):
            raise ValueError(f"classifiers names one twice: {', '.join(self.classifiers)}")
        if not self.classifiers:
            self._refuse("memory_gb", "without classifiers")
        if self.selection in ("holdout", "none"):
            self._refuse("folds", f'with selection = "{self.selection}"')
        for name, grid in self.grids.items():
            if name not in self.classifiers:
                raise ValueError(f"grids.{name} has no effect: {name} is not among the classifiers; remove it")
            if self.selection == "none":
                raise ValueError(f'grids.{name} has no effect with selection = "none"; remove it')
            for key, values in grid.items():
                if not values:
                    raise ValueError(f"grids.{name}.{key} is empty; give at least one value")
            if (count := math.prod(map(len, grid.values()))) > _MOST_CANDIDATES:
                raise ValueError(f"grids.{name} has {count:,} candidates; more than {_MOST_CANDIDATES:,} are not tried")
        return self


class Experiment(Table):
    """A whole experiment file, or the same as nested dicts and lists: `Experiment(name="pets", dataset={...}, ...)`.

    Raises:
        UsageError: A key or a value is wrong; the message names it and the nearest valid one.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    dataset: DatasetConfig
    backbones: Annotated[tuple[BackboneConfig, ...], Field(min_length=1, max_length=200)]
    evaluate: EvaluateConfig = EvaluateConfig()
    baselines: Annotated[tuple[BaselineConfig, ...], Field(max_length=200)] = ()

    @model_validator(mode="before")
    @classmethod
    def _sane(cls, content: Any) -> Any:
        check_values(content)
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [backbone.name for backbone in self.backbones]
        for baseline in self.baselines:
            if baseline.backbone == "pixels":
                raise ValueError("a baseline cannot train pixels; name a network of [[backbones]]")
            if baseline.backbone is not None and baseline.backbone not in names:
                close = nearest(baseline.backbone, names)
                hint = f"; did you mean {close!r}?" if close else ""
                raise ValueError(
                    f"the baseline's backbone {baseline.backbone!r} is not one of this experiment's "
                    f"({', '.join(names)}){hint}"
                )
        for one, other in combinations(self.baselines, 2):
            if one.method == other.method and (
                one.backbone == other.backbone or None in (one.backbone, other.backbone)
            ):
                raise ValueError(
                    f"two baselines are {one.method} of the same backbone, and would share a column; tell them apart "
                    'with label, as in label = "l2"'
                )
        for fusion in self.evaluate.fusions:
            self._check_fusion(fusion)
        if self.baselines and set(names) == {"pixels"}:
            raise ValueError("baselines need a network among [[backbones]]; pixels is none")
        return self

    @model_validator(mode="wrap")  # below `_check`, so that it sees what that refuses
    @classmethod
    def _say_what_is_wrong(cls, content: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(content)
        except ValidationError as error:
            raise UsageError(f"the experiment is wrong: {what_is_wrong(error, _TABLES)}") from None

    def _check_fusion(self, fusion: tuple[str, ...]) -> None:
        """Check what can be without the networks: patterns of layers are opened later."""
        names = [backbone.name for backbone in self.backbones]
        if len(set(fusion)) != len(fusion):
            raise ValueError(f"evaluate.fusions: {list(fusion)} names a layer twice")
        for part in fusion:
            name, slash, _ = part.rpartition("/")
            if not slash or name not in names:
                raise ValueError(
                    f"evaluate.fusions: {part!r} is not BACKBONE/LAYER with a name of [[backbones]] "
                    f"({', '.join(names)}), as in '{names[0]}/penultimate'"
                )
            if names.count(name) > 1:
                raise ValueError(
                    f"evaluate.fusions: {name!r} is the name of {names.count(name)} [[backbones]]; keep one"
                )


_TABLES: dict[str, type[Table]] = {
    "": Experiment,
    "dataset": DatasetConfig,
    "backbones": BackboneConfig,
    "evaluate": EvaluateConfig,
    "baselines": BaselineConfig,
}


def is_weights_file(weights: str) -> bool:
    """Return whether a `weights` setting is a file: names of weights have neither a dot nor a slash."""
    return any(mark in weights for mark in (".", "/", os.sep))


def split_part(weights: str) -> tuple[Path, str]:
    """Split FILE#PART, as "dino.pth#teacher", where PART is the prefix of the tensors to load, or ""."""
    path, mark, part = weights.rpartition("#")
    whole = not mark or os.path.isfile(weights)  # noqa: PTH113  # Path.is_file() raises where a name is too long
    return (Path(weights), "") if whole else (Path(path), part)
