"""`python:module:factory`: a network of one's own.

`factory()` returns an `nn.Module` with random weights; trained ones belong in a file that `weights` names. The module
is looked for in the current folder first. Images are resized so that their shorter side is `image_size`, cropped to the
centre square, scaled to [0, 1] and standardised with ImageNet's mean and deviation, or with the module's own `MEAN` and
`STD`, three numbers each.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from featbench.backbones.spec import Architecture
from featbench.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from featbench.errors import UsageError, unknown

PREFIX = "python:"


def factory_architecture(name: str) -> Architecture:
    """Find the factory of a `python:module:factory` name; it is not called yet.

    Raises:
        UsageError: There is no such module or function, or it cannot be used.
    """
    place, _, function = name.removeprefix(PREFIX).partition(":")
    if not all(part.isidentifier() for part in [*place.split("."), function]):
        raise UsageError(f'{name!r} is not "python:module:factory", as in "python:my_networks:make"')
    module = _import(name, place)
    factory = _find(name, module, function)
    size_px = 224  # of no meaning: image_size says it
    preprocess = Preprocess(
        size_px, size_px, _numbers(name, module, "MEAN", IMAGENET_MEAN), _numbers(name, module, "STD", IMAGENET_STD)
    )
    return Architecture(name, lambda _: _call(name, factory), preprocess, foreign=True, needs_size=True)


def _import(name: str, place: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does
    importlib.invalidate_caches()
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise UsageError(
                f"{name}: there is no module {error.name!r} in {folder}, nor where Python looks for modules"
            ) from error
        raise _failed(name, f"importing {place}", error) from error
    except Exception as error:
        raise _failed(name, f"importing {place}", error) from error


def _find(name: str, module: ModuleType, function: str) -> Callable[[], Any]:
    if not hasattr(module, function):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown(f"function of {module.__name__}", function, own)
    factory: Callable[[], Any] = getattr(module, function)
    if not callable(factory):
        raise UsageError(f"{name}: {function} is not a function but {type(factory).__name__}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UsageError(f"{name}: {function} has to work without arguments ({error})") from error
    return factory


def _numbers(name: str, module: ModuleType, constant: str, default: tuple[float, ...]) -> tuple[float, ...]:
    given = getattr(module, constant, default)
    try:
        numbers = tuple(float(number) for number in given)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or (constant == "STD" and min(numbers) <= 0):
        positive = "positive " if constant == "STD" else ""
        raise UsageError(f"{name}: {constant} has to be three {positive}numbers, for red, green and blue: {given!r}")
    return numbers


def _call(name: str, factory: Callable[[], Any]) -> nn.Module:
    try:
        network = factory()
    except Exception as error:
        raise _failed(name, "the function", error) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{name} returns {type(network).__name__}; it has to return a torch.nn.Module")
    return network


def _failed(name: str, what: str, error: Exception) -> UsageError:
    lines = str(error).splitlines()
    return UsageError(f"{name}: {what} failed with {type(error).__name__}{f': {lines[0]}' if lines else ''}")
