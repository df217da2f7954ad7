"""`python:module:factory`: a network of the user's own.

`factory()` returns an `nn.Module` with random weights; trained ones belong in a file that `weights` names. The module
is looked for in the current folder first. Images are resized so that their shorter side is `image_size`, cropped to the
centre square, scaled to [0, 1] and standardised with ImageNet's mean and deviation, or with the module's own `MEAN` and
`STD`, three numbers each.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from featbench.backbones.spec import Architecture
from featbench.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from featbench.errors import UsageError
from featbench.factories import call_factory, find_factory


def factory_architecture(name: str) -> Architecture:
    """Find the factory of a `python:module:factory` name; it is not called yet.

    Raises:
        UsageError: There is no such module or function, or it cannot be used.
    """
    module, factory = find_factory(name, "python:my_networks:make")
    size_px = 224  # replaced: image_size has to be set
    preprocess = Preprocess(
        size_px, size_px, _numbers(name, module, "MEAN", IMAGENET_MEAN), _numbers(name, module, "STD", IMAGENET_STD)
    )
    return Architecture(name, lambda _: _call(name, factory), preprocess, foreign=True, needs_size=True)


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
    network = call_factory(name, factory)
    if not isinstance(network, nn.Module):
        raise UsageError(f"{name} returns {type(network).__name__}; it has to return a torch.nn.Module")
    return network
