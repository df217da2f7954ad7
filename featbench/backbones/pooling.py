"""Poolings: how the output of a layer becomes one row of numbers an image.

| a layer's output | poolings |
| --- | --- |
| map (C, H, W), or (H, W, C) as Swin's | `avg`, `max`, `avg:K`, `max:K` (a KxK grid of cells), `flatten` |
| tokens (T, D) | `avg`, `max`, `flatten`, `cls` (the first), `tokens:N` (the mean of all but the first N), `tokens` |
| vector (D) | `avg`, `max` and `flatten` all leave it as it is |

`tokens` is `tokens:1` here; `resolve_pooling` settles what it and `cls` are for networks with more tokens than one, or
none, before those of the patches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from featbench.backbones.tracing import PENULTIMATE
from featbench.errors import UsageError, unknown

_MAP = ("avg", "max", "avg:K", "max:K", "flatten")
_TOKENS = ("avg", "max", "flatten", "cls", "tokens", "tokens:N")
VECTOR_POOLINGS = ("avg", "max", "flatten")
POOLINGS = ("avg", "max", "avg:K", "max:K", "flatten", "cls", "tokens", "tokens:N")
_GRID = re.compile(r"(avg|max):([1-9][0-9]{0,3})")
_LIBRARIES = ("timm.", "torchvision.")  # whose networks say how many tokens come first
_SKIP = re.compile(r"tokens(?::([0-9]{1,4}))?")


def check_pooling(pooling: str) -> None:
    """Refuse a pooling that no layer has.

    Raises:
        UsageError: It is not one of POOLINGS.
    """
    if _general(pooling) not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)


class Pool(nn.Module):
    """Pools a batch of one layer's outputs: (B, ...) -> a new (B, width) tensor."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.function = function
        self.width = width

    def forward(self, output: Tensor) -> Tensor:
        """Pool; the copy keeps the result from sharing memory with an output that is changed in place later."""
        pooled = self.function(output).flatten(1)
        shared = (
            torch.compiler.is_exporting() or pooled.data_ptr() == output.data_ptr()
        )  # exporting, there is no memory
        return pooled.clone() if shared else pooled


def make_pool(pooling: str, shape: tuple[int, ...], layer: str, *, channels_last: bool | None = None) -> Pool:
    """Make the pooling of a layer.

    Args:
        pooling: One of POOLINGS.
        shape: Of the layer's output, without the batch.
        layer: The layer's name, for messages.
        channels_last: Whether a map is (H, W, C); None to decide by the shape.

    Raises:
        UsageError: The pooling makes no sense for this shape; the message names those that do.
    """
    check_pooling(pooling)
    kind, valid = {1: ("a vector", VECTOR_POOLINGS), 2: ("a token sequence", _TOKENS), 3: ("a map", _MAP)}.get(
        len(shape), (f"{len(shape)}-dimensional", ("flatten",))
    )
    if _general(pooling) not in valid:
        raise UsageError(
            f"pooling {pooling!r} makes no sense for layer {layer!r}, whose output is {kind} of shape {shape}; "
            f"poolings that do: {', '.join(valid)}"
        )
    function = _function(pooling, shape, layer, channels_last)
    return Pool(function, math.prod(function(torch.zeros(1, *shape)).shape[1:]))


def is_channels_last(shape: tuple[int, ...]) -> bool | None:
    """Say whether a square map is (H, W, C), as Swin's, by which two sizes are equal; None where all three are."""
    if len(shape) == 3 and shape[0] == shape[1] == shape[2]:
        return None
    return len(shape) == 3 and shape[0] == shape[1]


def _general(pooling: str) -> str:
    if _GRID.fullmatch(pooling):
        return f"{pooling.partition(':')[0]}:K"
    return "tokens:N" if ":" in pooling and _SKIP.fullmatch(pooling) else pooling


def _identity(output: Tensor) -> Tensor:
    return output


def _function(
    pooling: str, shape: tuple[int, ...], layer: str, channels_last: bool | None
) -> Callable[[Tensor], Tensor]:
    if pooling == "flatten" or len(shape) == 1:
        return _identity
    return _tokens(pooling, shape, layer) if len(shape) == 2 else _map(pooling, shape, layer, channels_last)


def _tokens(pooling: str, shape: tuple[int, ...], layer: str) -> Callable[[Tensor], Tensor]:
    if skip := _SKIP.fullmatch(pooling):
        first = int(skip[1] or 1)
        if first >= shape[0]:
            raise UsageError(f"pooling {pooling!r} makes no sense for layer {layer!r}, which has {shape[0]} tokens")
        return lambda output: output[:, first:].mean(1)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "avg": lambda output: output.mean(1),
        "max": lambda output: output.amax(1),
        "cls": lambda output: output[:, 0],
    }
    return functions[pooling]


def _map(pooling: str, shape: tuple[int, ...], layer: str, channels_last: bool | None) -> Callable[[Tensor], Tensor]:
    last = is_channels_last(shape) if channels_last is None else channels_last
    if last is None:
        raise UsageError(
            f"layer {layer!r} has as many channels as rows and columns ({shape[0]}), so its axis of channels is "
            "ambiguous; use pooling flatten, or another image_size"
        )
    height, width = shape[:2] if last else shape[1:]
    grid = _GRID.fullmatch(pooling)
    cells = int(grid[2]) if grid else 1
    if cells > min(height, width):
        raise UsageError(
            f"pooling {pooling!r} makes no sense for layer {layer!r}: its maps are {height}x{width}; "
            f"the finest grid is {pooling[:3]}:{min(height, width)}"
        )
    pool = F.adaptive_avg_pool2d if pooling.startswith("avg") else F.adaptive_max_pool2d
    return lambda output: pool(output.movedim(-1, 1) if last else output, cells)


def resolve_pooling(network: nn.Module, layer: str, pooling: str, shape: tuple[int, ...]) -> str | None:
    """Return the pooling for a layer of this shape: `tokens` may become `tokens:N`; None is no pooling.

    Before the tokens of the patches stand a class token, registers, both, or none. A network's own count is used:
    timm's `num_prefix_tokens`, one of torchvision's. Of a network of one's own the first token is taken for a class
    token.

    A penultimate layer that is a vector is no matter of poolings for other shapes. `tokens` stays where the class token
    is the only one before the patches, so that caches of before serve.

    Raises:
        UsageError: `cls` of a layer without a class token.
    """
    if layer == PENULTIMATE and len(shape) == 1 and pooling not in VECTOR_POOLINGS:
        return None
    if pooling not in ("cls", "tokens") or len(shape) != 2:
        return pooling
    n_before: int | None
    if isinstance(network, models.VisionTransformer):
        n_before, has_class, n_patches = 1, True, network.seq_length - 1
    else:
        has_class = any(name.split(".")[-1].startswith("cls_token") for name, _ in network.named_parameters())
        n_before = getattr(network, "num_prefix_tokens", None)
        if n_before is None and not type(network).__module__.startswith(_LIBRARIES):
            return pooling
        n_before = int(has_class) if n_before is None else n_before
        n_patches = getattr(getattr(network, "patch_embed", None), "num_patches", None)
    if shape[0] == n_patches:  # some networks add the class token late, as CaiT
        n_before, has_class = 0, False
    if pooling == "cls":
        if not has_class:
            raise UsageError(
                f"pooling 'cls' makes no sense for layer {layer!r}: {type(network).__name__} has no class token there; "
                "use avg, max or tokens"
            )
        return pooling
    return pooling if n_before == 1 else f"tokens:{n_before}"
