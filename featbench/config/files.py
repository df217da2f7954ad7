"""Reading an experiment: a built-in name, a file or a folder, and `--set` over it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from featbench.config.baseline import BaselineConfig
from featbench.config.labels import TABLE_ENDINGS, table_message
from featbench.config.models import BackboneConfig, DatasetConfig, EvaluateConfig, Experiment, is_weights_file
from featbench.config.table import Table
from featbench.errors import UsageError, nearest, unknown

_TABLES: dict[str, type[Table]] = {
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
        if path.suffix.lower() in TABLE_ENDINGS:
            raise UsageError(table_message(path))
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
