"""What `featbench summary` prints: the modules of a network with their parameters, and what each strategy trains.

Modules, shapes and parameters are torchinfo's. Multiply-adds are counted in the traced graph, since torchinfo derives
them from the parameters alone and so misses attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torchinfo
from torch import nn

from featbench.backbones.describe import find_architecture, outline
from featbench.backbones.shapes import count_multiply_adds
from featbench.backbones.tracing import Traced
from featbench.baselines.network import with_new_head
from featbench.errors import UsageError


@dataclass(frozen=True)
class Module:
    """A module of a network.

    Attributes:
        path: Its place, as in "layer1.conv"; "" is the network itself.
        kind: Its class.
        shape: Of one image's output; () where that is no tensor.
        parameters: In it and all below it.
        multiply_adds: In it and all below it, for one image: matrix products and convolutions.
        depth: How many modules it is inside of.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    depth: int


@dataclass(frozen=True)
class Summary:
    """A network: its modules in the order they run, and how many parameters each strategy trains.

    Attributes:
        image_shape: (C, h, w) of the images that gave the shapes.
        modules: The first is the network itself.
        trained: Strategy -> trained parameters; empty where the network ends without a linear layer.
        n_classes: Outputs of the head.
    """

    image_shape: tuple[int, int, int]
    modules: tuple[Module, ...]
    trained: Mapping[str, int]
    n_classes: int | None


def summarise(
    name: str,
    *,
    n_classes: int | None = None,
    image_size: int | None = None,
    channels: int = 3,
    freeze_until: str | None = None,
) -> Summary:
    """Describe a backbone; nothing is downloaded.

    Args:
        name: The backbone.
        n_classes: Outputs of its head; None leaves the head as it is.
        image_size: Rows and columns of the images; else those of its default weights.
        channels: Of the images, 1 or 3; see `get_architecture`.
        freeze_until: The last layer that `partial` freezes; None leaves `partial` out.

    Raises:
        UsageError: There is no such backbone or layer, it cannot take such images, or it has no head and one is asked
            for.
    """
    architecture, shape = find_architecture(name, image_size, channels)
    traced = outline(architecture, shape[1])
    trained: dict[str, int] = {}
    if traced.head is not None or n_classes is not None or freeze_until is not None:
        n_classes = n_classes or int(traced.network.get_parameter(f"{traced.head_name}.weight").shape[0])
        trained = _trained(traced, n_classes, freeze_until)
        traced = architecture.trace(traced.network)  # with its new head
    return Summary(shape, _modules(traced, shape), trained, n_classes)


def _trained(traced: Traced, n_classes: int, freeze_until: str | None) -> dict[str, int]:
    """Give a network a new head, and count what learns."""
    with traced.network.get_parameter(f"{traced.head_name}.weight").device:
        trainable = with_new_head(traced, n_classes, dropout=0.0, seed=0, freeze_until=freeze_until)
    head, body = (_count(part) for part in (trainable.head_parameters(), trainable.body_parameters()))
    whole = _count(trainable.network.parameters())
    partial = {} if freeze_until is None else {"partial": head + body}
    return {"linear_head": head, **partial, "finetune": whole, "scratch": whole}


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _modules(traced: Traced, image_shape: tuple[int, int, int]) -> tuple[Module, ...]:
    device = next((parameter.device for parameter in traced.network.parameters()), torch.device("cpu"))
    try:
        layers = torchinfo.summary(
            traced.network, (1, *image_shape), device=device, verbose=0, mode="eval"
        ).summary_list
    except RuntimeError as error:
        size = f"{image_shape[1]}x{image_shape[2]}"
        raise UsageError(f"{type(traced.network).__name__} cannot take images of {size} px: {error}") from error
    multiply_adds = _by_module(traced, image_shape)
    places: list[str] = []
    modules = []
    for layer in layers:
        places[max(layer.depth - 1, 0) :] = [layer.var_name] if layer.depth else []
        path = ".".join(places)
        shape = tuple(layer.output_size[1:]) if all(isinstance(size, int) for size in layer.output_size) else ()
        parameters = _count(layer.module.parameters())
        if layer.executed:
            modules.append(Module(path, layer.class_name, shape, parameters, multiply_adds.get(path, 0), layer.depth))
    return tuple(modules)


def _by_module(traced: Traced, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Count the multiply-adds of each node in all modules that it is in."""
    names = {node: name for name, node in traced.names.items()}
    sums: dict[str, int] = {}
    for node, count in count_multiply_adds(traced, image_shape).items():
        path = str(node.target) if node.op == "call_module" else names.get(node, "").rpartition(".")[0]
        while path:
            sums[path] = sums.get(path, 0) + count
            path = path.rpartition(".")[0]
        sums[""] = sums.get("", 0) + count
    return sums
