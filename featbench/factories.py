"""`python:module:factory`: finding and calling a function of the user's own, with errors that name it.

The module is looked for in the current folder first.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from featbench.errors import UsageError, unknown

PREFIX = "python:"


def find_factory(name: str, example: str) -> tuple[ModuleType, Callable[[], Any]]:
    """Import the module of a `python:module:factory` name and find its factory, which is not called yet.

    Args:
        name: The name in the experiment.
        example: A name of that form, for the error.

    Raises:
        UsageError: There is no such module or function, or it cannot be called without arguments.
    """
    place, _, function = name.removeprefix(PREFIX).partition(":")
    if not all(part.isidentifier() for part in [*place.split("."), function]):
        raise UsageError(f'{name!r} is not "python:module:factory", as in "{example}"')
    module = _import(name, place)
    return module, _find(name, module, function)


def call_factory(name: str, factory: Callable[[], Any]) -> Any:
    """Call a factory.

    Raises:
        UsageError: It fails.
    """
    try:
        return factory()
    except Exception as error:
        raise failed(name, "the function", error) from error


def failed(name: str, what: str, error: Exception) -> UsageError:
    """Make the error for user code that failed."""
    lines = str(error).splitlines()
    return UsageError(f"{name}: {what} failed with {type(error).__name__}{f': {lines[0]}' if lines else ''}")


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
        raise failed(name, f"importing {place}", error) from error
    except Exception as error:
        raise failed(name, f"importing {place}", error) from error


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
