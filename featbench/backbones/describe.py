"""What `featbench list layers` prints of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import fx, nn

from featbench.backbones.architectures import get_architecture
from featbench.backbones.expand import find_blocks
from featbench.backbones.pooling import check_pooling, is_channels_last, make_pool, resolve_pooling
from featbench.backbones.shapes import Shapes, count_multiply_adds, find_channels_last, output_shapes
from featbench.backbones.spec import Architecture
from featbench.backbones.tracing import PENULTIMATE, Traced
from featbench.errors import UsageError


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes:
        name: Its name.
        shape: Of one image's output.
        width: Features of one image after pooling; None where the layer cannot be pooled so.
        compute: Share of the network's multiply-adds up to and including this layer, 0 to 1.
        is_block: Whether it is one of `blocks`.
    """

    name: str
    shape: tuple[int, ...]
    width: int | None
    compute: float
    is_block: bool


def describe_layers(traced: Traced, image_shape: tuple[int, int, int], pooling: str) -> list[Layer]:
    """Return every layer that gives one tensor an image, in the order they run, `penultimate` among them.

    Raises:
        UsageError: The network cannot take such images, or there is no such pooling.
    """
    check_pooling(pooling)
    shapes = output_shapes(traced, image_shape)
    counts = count_multiply_adds(traced, image_shape)
    total = sum(counts.values()) or 1
    shares = {node: done / total for node, done in zip(counts, accumulate(counts.values()), strict=True)}
    blocks = set(find_blocks(traced, shapes))
    unclear = {node: shape for node, shape in shapes.items() if is_channels_last(shape) is None}
    last = find_channels_last(traced, unclear, image_shape) if unclear else {}
    return [
        Layer(
            name,
            shapes[node],
            _width(traced.network, pooling, shapes[node], name, last.get(node)),
            shares[node],
            name in blocks,
        )
        for name, node in _with_penultimate(traced, shapes)
    ]


def describe_backbone(name: str, pooling: str, image_size: int | None = None, channels: int = 3) -> list[Layer]:
    """Describe the layers of a backbone by name; nothing is downloaded.

    Args:
        name: The backbone.
        pooling: One of POOLINGS.
        image_size: Rows and columns of the images; else those of its default weights.
        channels: Of the images, 1 or 3; see `get_architecture`.

    Raises:
        UsageError: There is no such backbone or pooling, or it cannot take such images.
    """
    architecture, image_shape = find_architecture(name, image_size, channels)
    return describe_layers(outline(architecture, image_shape[1]), image_shape, pooling)


def find_architecture(name: str, image_size: int | None, channels: int) -> tuple[Architecture, tuple[int, int, int]]:
    """Return the architecture of a name, and the shape (C, h, w) of its images.

    Raises:
        UsageError: There is no such backbone, or it cannot take such images.
    """
    architecture = get_architecture(name, channels)
    shape = architecture.preprocess_at(image_size).photo_shape
    if shape[0] != channels:
        raise UsageError(f"{name} always takes three channels; grey is repeated three times for it, so remove --grey")
    return architecture, shape


def outline(architecture: Architecture, size_px: int) -> Traced:
    """Build a network on torch's meta device, without memory for its weights, where its code is known to allow that."""
    if architecture.foreign:
        return architecture.trace(architecture.make(size_px))
    try:
        with torch.device("meta"):
            return architecture.trace(architecture.make(size_px))
    except NotImplementedError:  # RegNet computes its widths with tensors
        return architecture.trace(architecture.make(size_px).to("meta"))


def _with_penultimate(traced: Traced, shapes: Shapes) -> list[tuple[str, fx.Node]]:
    """Return the layers with their nodes; the penultimate one comes last of those that are the same."""
    layers = [(name, traced.find(name)) for name in traced.ordered_names() if traced.find(name) in shapes]
    before = traced.penultimate
    places = [number + 1 for number, (_, node) in enumerate(layers) if node is before]
    return (
        [*layers[: places[-1]], (PENULTIMATE, layers[places[-1] - 1][1]), *layers[places[-1] :]] if places else layers
    )


def _width(
    network: nn.Module, pooling: str, shape: tuple[int, ...], layer: str, channels_last: bool | None
) -> int | None:
    try:
        pooling = resolve_pooling(network, layer, pooling, shape) or "flatten"
        return make_pool(pooling, shape, layer, channels_last=channels_last).width
    except UsageError:
        return None
