"""Shapes and compute of every node of a network, from a run on blank images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from featbench.backbones.tracing import Traced
from featbench.errors import UsageError, first_line

_BLANK_IMAGES = 2
Shapes = Mapping[fx.Node, tuple[int, ...]]


def output_shapes(traced: Traced, image_shape: tuple[int, int, int]) -> Shapes:
    """Return the shape of each node's output, without the batch, for the nodes that give one tensor an image.

    Raises:
        UsageError: The network cannot take such images.
    """
    runner = _Runner(traced)
    _run(runner, traced, image_shape)
    return {
        node: shape[1:]
        for node, shape in runner.shapes.items()
        if len(shape) > 1
        and shape[0] == _BLANK_IMAGES
        and node.op not in ("get_attr", "placeholder", "output")  # a parameter may be as long as the batch by chance
    }


def find_channels_last(traced: Traced, shapes: Shapes, image_shape: tuple[int, int, int]) -> dict[fx.Node, bool]:
    """Say which maps with as many channels as rows and columns are (H, W, C), and not (C, H, W).

    What stays when the images grow is the channels. A map of which that cannot be told is left out, as are all of a
    network for one size of images.

    Args:
        traced: The network.
        shapes: The maps: node -> shape without the batch.
        image_shape: (C, H, W) of the images that gave these shapes.
    """
    channels, height, width = image_shape
    try:
        larger = output_shapes(traced, (channels, 2 * height, 2 * width))
    except UsageError:
        return {}
    grown = {
        node: tuple(a != b for a, b in zip(larger.get(node, shape), shape, strict=True))
        for node, shape in shapes.items()
    }
    known = {(False, True, True): False, (True, True, False): True}
    return {node: known[axes] for node, axes in grown.items() if axes in known}


def count_multiply_adds(traced: Traced, image_shape: tuple[int, int, int]) -> dict[fx.Node, int]:
    """Return the multiply-adds of one image in each node, in the order they run: matrix products and convolutions.

    Raises:
        UsageError: The network cannot take such images.
    """
    runner = _Counter(traced)
    with _attention_in_parts():
        _run(runner, traced, image_shape)
    return {node: flops // (2 * _BLANK_IMAGES) for node, flops in runner.flops.items()}


class _Runner(fx.Interpreter):
    """Runs a graph and keeps the shape of each node's output; () where that is no tensor."""

    def __init__(self, traced: Traced) -> None:
        super().__init__(traced.network, graph=traced.graph)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.shapes[n] = tuple(result.shape) if isinstance(result, Tensor) else ()
        return result


class _Counter(_Runner):
    """Counts the floating-point operations of each node, two a multiply-add, besides."""

    def __init__(self, traced: Traced) -> None:
        super().__init__(traced)
        self.flops: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        self.flops[n] = counter.get_total_flops()
        return result


def _run(runner: _Runner, traced: Traced, image_shape: tuple[int, int, int]) -> None:
    device = next((parameter.device for parameter in traced.network.parameters()), torch.device("cpu"))
    try:
        with torch.inference_mode():
            runner.run(torch.zeros(_BLANK_IMAGES, *image_shape, device=device))
    except (
        RuntimeError,
        AssertionError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
    ) as error:  # transformers assert their size
        size = f"{image_shape[1]}x{image_shape[2]}"
        network = type(traced.network).__name__
        raise UsageError(f"{network} cannot take images of {size} px: {first_line(error)}") from error


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Keep attention from running as one fused operator, whose operations torch does not count."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
