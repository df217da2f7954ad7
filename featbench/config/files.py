"""Reading an experiment: a built-in name, a file or a folder, and `--set` over it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from featbench.config.experiment import LONGEST_NAME, BackboneConfig, Experiment, is_weights_file
from featbench.config.labels import TABLE_ENDINGS, table_message
from featbench.config.messages import shown, what_is_wrong
from featbench.config.table import check_values
from featbench.config.toml import parse_toml, read_toml
from featbench.errors import UsageError, unknown
from featbench.places import expand_user

_LONGEST = 200  # characters of a key in a message
_DEEPEST = 16  # parts of a key


def builtin_experiments() -> dict[str, str]:
    """Return the built-in experiments: name -> TOML text."""
    folder = resources.files("featbench") / "experiments"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text("utf-8") for file in files if file.name.endswith(".toml")}


def load_experiment(source: str | Path | Mapping[str, Any] | Experiment, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment and check it.

    Args:
        source: A built-in name, the path of a TOML file, a folder of images, what such a file holds as nested dicts and
            lists, or an `Experiment`. Relative paths in the last two start at the current folder.
        overrides: `KEY=VALUE` settings that replace those of the file; dotted keys, list items by number, as in
            `backbones.0.name=resnet18`.

    Raises:
        UsageError: There is no such experiment, or something in it is wrong; the message names it and the nearest that
            is right.
    """
    if isinstance(source, Experiment):
        source = source.model_dump(mode="json", exclude_unset=True)
    content = _plain(source) if isinstance(source, Mapping) else _read(str(source))
    for override in overrides:
        _override(content, override)
    _absolute_paths(content, Path.cwd())
    return Experiment.model_validate(content)


def is_folder(source: str | Path | Mapping[str, Any] | Experiment) -> bool:
    """Say whether an experiment is named by a folder of images.

    Raises:
        UsageError: It begins with the home folder of nobody.
    """
    if isinstance(source, Experiment | Mapping) or str(source) in builtin_experiments():
        return False
    return bool(str(source)) and expand_user(source).is_dir()


def backbone_config(settings: Mapping[str, Any]) -> BackboneConfig:
    """Check the keys of one `[[backbones]]` table, given in Python; relative paths start at the current folder.

    Raises:
        UsageError: A value is wrong.
    """
    content = {"backbones": [_plain(settings)]}
    _absolute_paths(content, Path.cwd())
    try:
        check_values(content)
        return BackboneConfig.model_validate(content["backbones"][0])
    except ValidationError as error:
        raise UsageError(what_is_wrong(error, {"": BackboneConfig})) from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _plain(value: Any) -> Any:
    """Copy values from Python as TOML would give them: paths as text, NumPy's arrays as lists."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _read(source: str) -> dict[str, Any]:
    builtin = builtin_experiments()
    if source in builtin:  # a folder of this name is ./name
        return parse_toml(builtin[source])
    if not source:
        raise UsageError("the experiment is empty; name one, a TOML file or a folder; the current folder is .")
    path = expand_user(source)
    if os.path.isdir(path):  # noqa: PTH112  # where a path is too long or has a NUL, Path's own raises
        content = parse_toml(builtin["folder"])
        content["name"] = _name_of(path)
        content["dataset"]["root"] = str(path.resolve())
        return content
    if os.path.isfile(path):  # noqa: PTH113
        if path.suffix.lower() in TABLE_ENDINGS:
            raise UsageError(table_message(path), with_lines=True)
        content = read_toml(path)
        _absolute_paths(content, path.resolve().parent)
        return content
    if path.suffix == ".toml" or "/" in source or "\\" in source:
        raise UsageError(f"there is no experiment file or folder of images {shown(source)}")
    raise unknown("experiment", source, builtin)


def _name_of(folder: Path) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in folder.resolve().name)
    return kept.lstrip("._-")[:LONGEST_NAME] or "folder"


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set takes KEY=VALUE, as in --set seed=1, and got {shown(override)}")
    value = _value(key, text)
    *parents, last = key.split(".", _DEEPEST)
    if len(parents) == _DEEPEST:
        raise UsageError(f"--set {key[:_LONGEST]}...: no setting lies that deep; the key has too many dots")
    place: Any = content
    for depth, part in enumerate(parents):
        if isinstance(place, list):
            place = place[_item(place, part, override)]
        elif isinstance(place, dict):
            place = place.setdefault(part, [] if part in ("backbones", "baselines") and depth == 0 else {})
        else:
            raise UsageError(f"--set {shown(override)}: {'.'.join(parents[:depth])} is a value and has no keys")
    if isinstance(place, list):
        place[_item(place, last, override)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise UsageError(f"--set {shown(override)}: {'.'.join(parents)} is a value and has no keys")


def _value(key: str, text: str) -> Any:
    """Read a value as TOML does; a bare word is a string."""
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError as error:
        if text.startswith(("[", "{", '"', "'")):
            raise UsageError(
                f"--set {shown(key)}: {shown(text)} is no TOML value: {error}; a list of names is "
                """'["linear_svc", "ridge"]', with the quotes around it for the shell"""
            ) from None
        return text
    return parsed["value"] if len(parsed) == 1 else text  # more than one line is no value


def _item(items: list[Any], part: str, override: str) -> int:
    if not (part.isdecimal() and len(part) < _DEEPEST) or int(part) > len(items):
        raise UsageError(
            f"--set {shown(override)}: {shown(part)} is not the number of an item; there are {len(items)}, from 0"
        )
    if int(part) == len(items):
        items.append({})
    return int(part)


def _absolute_paths(content: dict[str, Any], base: Path) -> None:
    """Make relative paths absolute: in a file they start at the file's folder, in --set where the command runs."""
    dataset = content.get("dataset")
    if isinstance(dataset, dict) and isinstance(dataset.get("root"), str):
        dataset["root"] = _absolute("dataset.root", dataset["root"], base)
    backbones = content.get("backbones")
    for backbone in backbones if isinstance(backbones, list) else []:
        weights = backbone.get("weights") if isinstance(backbone, dict) else None
        if isinstance(weights, str) and is_weights_file(weights):
            backbone["weights"] = _absolute("weights", weights, base)


def _absolute(key: str, text: str, base: Path) -> str:
    if not text:
        raise UsageError(f"{key} is empty; the folder that it starts from is .")
    path = base / expand_user(text)
    if min(text) < " " and not os.path.lexists(path):  # as the tab in "C:\temp"
        raise UsageError(
            f"{key} = {shown(text)}: there is no such path; in double quotes a backslash and a letter are another "
            "character: write a Windows path in 'single quotes', or with /"
        )
    return str(path)
