"""Layers: from names to one network that returns the pooled features of all of them in one forward pass.

The network is traced in eval mode with torch.fx, as torchvision's feature extraction does. A layer's pooling is put
right behind the layer's node, so that no later in-place operation can change what it sees, and everything behind the
deepest layer asked for is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from featbench.backbones.pooling import Pool, make_pool
from featbench.errors import UsageError, WeightsError, unknown

PENULTIMATE = "penultimate"
_BLANK_IMAGES = 2
_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Traced:
    """A network's eval graph, with the name of each node as torchvision gives it."""

    network: nn.Module
    graph: fx.Graph
    names: dict[str, fx.Node]

    @cached_property
    def head(self) -> fx.Node:
        """The last linear layer that runs: a `Linear`, or a convolution where that makes the classes (SqueezeNet)."""
        for node in reversed(self.graph.nodes):
            if node.op == "call_module" and isinstance(self.network.get_submodule(str(node.target)), _LINEAR):
                found: fx.Node = node
                return found
        raise UsageError(f"{type(self.network).__name__} has no linear layer, so no penultimate one; name layers")

    @property
    def head_name(self) -> str:
        """The module path of the last linear layer, as in "fc" or "classifier.6"."""
        return str(self.head.target)

    def layer_names(self) -> list[str]:
        """Return every name that a layer may have: graph nodes, and modules, which stand for their last node."""
        nodes = [name for name, node in self.names.items() if node.op != "placeholder"]
        modules = {name.rpartition(".")[0] for name in nodes} - {""}
        parents = {".".join(m.split(".")[:depth]) for m in modules for depth in range(1, m.count(".") + 2)}
        return [PENULTIMATE, *nodes, *sorted(parents - set(nodes))]

    def find(self, layer: str) -> fx.Node:
        """Return the node of a layer.

        Raises:
            UsageError: There is no such layer.
        """
        if layer == PENULTIMATE:
            before = self.head.args[0]
            assert isinstance(before, fx.Node)
            return before
        if layer in self.names and self.names[layer].op != "placeholder":
            return self.names[layer]
        inside = [node for name, node in self.names.items() if name.startswith(layer + ".")]
        if not inside:
            raise unknown("layer", layer, self.layer_names(), listed_by="featbench list layers NAME")
        return inside[-1]

    def unused(self, tensor: str) -> bool:
        """Say whether a tensor of the state dict takes no part in the eval forward, as those of auxiliary heads."""
        owner = tensor.rpartition(".")[0]
        used = {str(node.target) for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        return not any(tensor == target or owner == target or owner.startswith(target + ".") for target in used)


def trace(network: nn.Module) -> Traced:
    """Trace a network in eval mode."""
    operators = [item for item in vars(torchvision.ops).values() if isinstance(item, type)]
    leaves = [item for item in operators if issubclass(item, nn.Module) and not issubclass(item, nn.Sequential)]
    tracer = NodePathTracer(autowrap_modules=(math, torchvision.ops), leaf_modules=leaves)
    graph = tracer.trace(network.eval())
    names = {name: node for node, name in tracer.node_to_qualname.items() if node.op != "output"}
    return Traced(network, graph, names)


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that returns features: `module(images)` gives one (B, widths[i]) tensor for each of `layers`."""

    module: nn.Module
    layers: tuple[str, ...]
    widths: tuple[int, ...]


def feature_network(
    traced: Traced, layers: Sequence[str], pooling: str, image_shape: tuple[int, int, int], *, has_head: bool = True
) -> FeatureNetwork:
    """Cut a network down to the pooled features of some layers.

    Args:
        traced: The network.
        layers: Names: "penultimate", graph nodes or modules.
        pooling: How a layer's output becomes one row of numbers, as in "avg" or "avg:4".
        image_shape: (C, H, W) of the images it will see.
        has_head: Whether the last linear layer has weights; without them no layer behind it may be asked for.

    Raises:
        UsageError: A layer does not exist, or cannot be pooled so.
        WeightsError: A layer needs the head, and the weights have none.
    """
    nodes = {layer: traced.find(layer) for layer in layers}
    shapes = _output_shapes(traced, nodes, image_shape)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    pools: dict[str, Pool] = {}
    outputs: dict[str, fx.Node] = {}
    for node in traced.graph.nodes:
        if node.op == "output":
            continue
        copies[node] = graph.node_copy(node, lambda other: copies[other])
        for layer in (layer for layer, found in nodes.items() if found is node):
            pools[f"pool_{len(pools)}"] = make_pool(pooling, shapes[layer], layer)
            outputs[layer] = graph.call_module(f"pool_{len(pools) - 1}", (copies[node],))
    graph.output(tuple(outputs[layer] for layer in layers))
    targets = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    held = {name: _attribute(traced.network, name) for name in targets - pools.keys()}
    module = fx.GraphModule({**held, **pools}, graph).eval()
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    if not has_head and traced.head_name in {node.target for node in module.graph.nodes}:
        raise WeightsError(
            f"layers {', '.join(layers)} need the head {traced.head_name!r}, which the weights file does not have; "
            f'ask for layers before it, as "{PENULTIMATE}", or for weights with a head'
        )
    widths = {outputs_layer: pools[str(node.target)].width for outputs_layer, node in outputs.items()}
    return FeatureNetwork(module, tuple(layers), tuple(widths[layer] for layer in layers))


def _attribute(network: nn.Module, name: str) -> Any:
    owner, _, last = name.rpartition(".")
    return getattr(network.get_submodule(owner), last)


class _Shapes(fx.Interpreter):
    """Runs a graph and keeps the shape of each node's output."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.shapes[n.name] = tuple(result.shape) if isinstance(result, Tensor) else ()
        return result


def describe_layers(traced: Traced, image_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Return every layer that gives one tensor an image, in the order they run, with its shape without the batch."""
    shapes = _run_shapes(traced, image_shape)
    order = {node: number for number, node in enumerate(traced.graph.nodes)}
    nodes = {layer: traced.find(layer) for layer in traced.layer_names()}
    in_order = sorted(nodes, key=lambda layer: order[nodes[layer]])
    found = {layer: shapes[nodes[layer].name] for layer in in_order}
    return {layer: shape[1:] for layer, shape in found.items() if _has_features(shape)}


def _output_shapes(
    traced: Traced, nodes: dict[str, fx.Node], image_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """Find the shape of each layer's output, without the batch."""
    shapes = _run_shapes(traced, image_shape)
    for layer, node in nodes.items():
        if not _has_features(shapes[node.name]):
            raise UsageError(f"layer {layer!r} does not give one tensor an image, so it has no features; name another")
    return {layer: shapes[node.name][1:] for layer, node in nodes.items()}


def _has_features(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and shape[0] == _BLANK_IMAGES


def _run_shapes(traced: Traced, image_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Run blank images to find the shape of each node's output; () where that is no tensor."""
    runner = _Shapes(traced.network, traced.graph)
    device = next((parameter.device for parameter in traced.network.parameters()), torch.device("cpu"))
    try:
        with torch.inference_mode():
            runner.run(torch.zeros(_BLANK_IMAGES, *image_shape, device=device))
    except (RuntimeError, AssertionError) as error:  # vision transformers assert their own size
        size = f"{image_shape[1]}x{image_shape[2]}"
        reason = str(error).splitlines()[0]
        raise UsageError(f"{type(traced.network).__name__} cannot take images of {size} px: {reason}") from error
    return runner.shapes
