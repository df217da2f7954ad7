"""The experiment: what an experiment file may say, checked once at the edge.

The models are frozen; code behind the edge trusts them. A key that is unknown, and a setting that would have no
effect, is refused with the key's name, never dropped.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from featbench.errors import UsageError, nearest, unknown

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def _refuse(self, key: str, why: str) -> None:
        """Refuse a key that was set although it has no effect here."""
        if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
            raise ValueError(f"{key} has no effect {why}; remove it")


class DatasetConfig(_Table):
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
            raise ValueError('root is missing: the folder of images, as in root = "photos/"')
        if self.name != "folder":
            self._refuse("root", 'unless name = "folder" (where data sets are kept is --data)')
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction leave nothing to train on; their sum must stay below 1")
        return self


class BackboneConfig(_Table):
    """`[[backbones]]`: which network, which weights, which layers, pooled how."""

    name: str
    weights: str | None = None  # None: the network's default weights
    layers: tuple[str, ...] = ("penultimate",)
    pooling: str = "avg"
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: Count | None = None
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


class EvaluateConfig(_Table):
    """`[evaluate]`: which classifiers, and how their hyper-parameters are chosen."""

    classifiers: tuple[str, ...] = ("linear_svc", "svm_rbf", "random_forest")
    selection: Literal["auto", "cv", "holdout", "none"] = "auto"
    folds: Annotated[int, Field(ge=2)] = 5
    repeats: Count = 1
    train_sizes: tuple[Count, ...] = ()
    grids: Mapping[str, Mapping[str, tuple[Any, ...]]] = Field(default_factory=dict)
    engine: Literal["auto", "sklearn"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.classifiers)) != len(self.classifiers):
            raise ValueError(f"classifiers names one twice: {', '.join(self.classifiers)}")
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
        return self


class BaselineConfig(_Table):
    """`[[baselines]]`: one reference network. What is None is chosen by the strategy, and recorded in the row."""

    strategy: Literal["scratch", "finetune", "partial", "linear_head"]
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


class Experiment(_Table):
    """A whole experiment file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    dataset: DatasetConfig
    backbones: Annotated[tuple[BackboneConfig, ...], Field(min_length=1)]
    evaluate: EvaluateConfig = EvaluateConfig()
    baselines: tuple[BaselineConfig, ...] = ()

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
        if self.baselines and set(names) == {"pixels"}:
            raise ValueError("baselines need a network among [[backbones]]; pixels is none")
        return self


_TABLES: dict[str, type[_Table]] = {
    "dataset": DatasetConfig,
    "backbones": BackboneConfig,
    "evaluate": EvaluateConfig,
    "baselines": BaselineConfig,
}


def builtin_experiments() -> dict[str, str]:
    """Return the built-in experiments: name -> TOML text."""
    folder = resources.files("featbench") / "experiments"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text("utf-8") for file in files if file.name.endswith(".toml")}


def load_experiment(source: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment and check it.

    Args:
        source: A built-in name, the path of a TOML file, or a folder of images.
        overrides: `KEY=VALUE` settings that replace what the file says; dotted keys, list items by number, as in
            `backbones.0.name=resnet18`.

    Raises:
        UsageError: There is no such experiment, or something in it is wrong.
    """
    content = _read(source)
    for override in overrides:
        _override(content, override)
    _absolute_paths(content, Path.cwd())
    return parse_experiment(content)


def parse_experiment(content: Mapping[str, Any]) -> Experiment:
    """Check an experiment given as nested mappings, as TOML gives it.

    Raises:
        UsageError: A key or a value is wrong; the message names it and the nearest valid one.
    """
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise UsageError("the experiment is wrong: " + "; ".join(_explain(e) for e in error.errors())) from None


def _read(source: str) -> dict[str, Any]:
    builtin = builtin_experiments()
    if source in builtin:  # a folder of this name is ./name
        return tomllib.loads(builtin[source])
    path = Path(source).expanduser()
    if path.is_dir():
        content = tomllib.loads(builtin["folder"])
        content["name"] = _name_of(path)
        content["dataset"]["root"] = str(path.resolve())
        return content
    if path.is_file():
        try:
            content = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is not a TOML file: {error}") from None
        _absolute_paths(content, path.resolve().parent)
        return content
    if path.suffix == ".toml" or "/" in source or "\\" in source:
        raise UsageError(f"there is no experiment file or folder of images {source!r}")
    raise unknown("experiment", source, builtin)


def _name_of(folder: Path) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in folder.resolve().name)
    return kept.lstrip("._-") or "folder"


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set takes KEY=VALUE, as in --set seed=1, and got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *parents, last = key.split(".")
    place: Any = content
    for depth, part in enumerate(parents):
        if isinstance(place, list):
            place = place[_item(place, part, override)]
        elif isinstance(place, dict):
            place = place.setdefault(part, [] if part in ("backbones", "baselines") and depth == 0 else {})
        else:
            raise UsageError(f"--set {override}: {'.'.join(parents[:depth])} is a value and has no keys")
    if isinstance(place, list):
        place[_item(place, last, override)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise UsageError(f"--set {override}: {'.'.join(parents)} is a value and has no keys")


def _item(items: list[Any], part: str, override: str) -> int:
    if not part.isdecimal() or int(part) > len(items):
        raise UsageError(f"--set {override}: {part!r} is not the number of an item; there are {len(items)}, from 0")
    if int(part) == len(items):
        items.append({})
    return int(part)


def _absolute_paths(content: dict[str, Any], base: Path) -> None:
    """Make relative paths absolute: in a file they start at the file's folder, in --set where the command runs."""
    dataset = content.get("dataset")
    if isinstance(dataset, dict) and isinstance(dataset.get("root"), str):
        dataset["root"] = str(base / Path(dataset["root"]).expanduser())
    backbones = content.get("backbones")
    for backbone in backbones if isinstance(backbones, list) else []:
        weights = backbone.get("weights") if isinstance(backbone, dict) else None
        if isinstance(weights, str) and is_weights_file(weights):
            backbone["weights"] = str(base / Path(weights).expanduser())


def is_weights_file(weights: str) -> bool:
    """Say whether a `weights` setting names a file, not a member of an enum."""
    return weights.endswith((".safetensors", ".pth", ".pt"))


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        names = [part for part in error["loc"] if isinstance(part, str)]
        table = Experiment if len(names) == 1 else _TABLES[names[0]]
        valid = list(table.model_fields)
        close = nearest(names[-1], valid)
        hint = f"did you mean {close!r}? " if close else ""
        return f"unknown key {place!r}; {hint}Valid here: {', '.join(valid)}."
    if error["type"] == "missing":
        return f"{place} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("value_error",):
        return f"{place}: {message}" if place else message
    return f"{place} = {error['input']!r}: {message}"
