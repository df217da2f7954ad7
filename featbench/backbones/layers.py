"""Layers: from names to one network that returns the pooled features of all of them in one forward pass.

A layer's pooling is put right behind the layer's node in the traced graph, so that no later in-place operation can
change what it sees, and everything behind the deepest layer asked for is cut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from featbench.backbones.pooling import VECTOR_POOLINGS, Pool, is_channels_last, make_pool
from featbench.backbones.shapes import find_channels_last, output_shapes
from featbench.backbones.tracing import PENULTIMATE, Traced
from featbench.errors import UsageError, WeightsError


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
        pooling: How a layer's output becomes one row of numbers, as in "avg" or "avg:4"; a penultimate layer that is a
            vector may be left as it is.
        image_shape: (C, H, W) of the images it will see.
        has_head: Whether the last linear layer has weights; without them no layer behind it may be asked for.

    Raises:
        UsageError: A layer does not exist, or cannot be pooled so.
        WeightsError: A layer needs the head, and the weights have none.
    """
    nodes = {layer: traced.find(layer) for layer in layers}
    pools = _make_pools(traced, nodes, pooling, image_shape)
    module = _cut(traced, nodes, pools)
    if not has_head and traced.head_name in {node.target for node in module.graph.nodes}:
        raise WeightsError(
            f"layers {', '.join(layers)} need the head {traced.head_name!r}, which the weights file does not have; "
            f'ask for layers before it, as "{PENULTIMATE}", or for weights with a head'
        )
    return FeatureNetwork(module, tuple(layers), tuple(pools[layer].width for layer in layers))


def is_left_as_it_is(layer: str, pooling: str, shape: tuple[int, ...]) -> bool:
    """Say whether a pooling leaves a layer alone: the penultimate one where it is a vector and the pooling for maps."""
    return layer == PENULTIMATE and len(shape) == 1 and pooling not in VECTOR_POOLINGS


def _make_pools(
    traced: Traced, nodes: Mapping[str, fx.Node], pooling: str, image_shape: tuple[int, int, int]
) -> dict[str, Pool]:
    """Make the pooling of each layer from the shape of its output."""
    shapes = output_shapes(traced, image_shape)
    for layer, node in nodes.items():
        if node not in shapes:
            raise UsageError(f"layer {layer!r} does not give one tensor an image, so it has no features; name another")
    unclear = {node: shapes[node] for node in nodes.values() if is_channels_last(shapes[node]) is None}
    last = find_channels_last(traced, unclear, image_shape) if unclear and pooling != "flatten" else {}
    return {
        layer: make_pool(
            "flatten" if is_left_as_it_is(layer, pooling, shapes[node]) else pooling,
            shapes[node],
            layer,
            channels_last=last.get(node),
        )
        for layer, node in nodes.items()
    }


def _cut(traced: Traced, nodes: Mapping[str, fx.Node], pools: Mapping[str, Pool]) -> fx.GraphModule:
    """Copy the graph up to the last of the nodes, with each layer's pooling right behind its node."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    held: dict[str, Any] = {}
    outputs: dict[str, fx.Node] = {}
    for node in traced.graph.nodes:
        copies[node] = graph.node_copy(node, lambda other: copies[other])
        if node.op in ("call_module", "get_attr"):
            held[str(node.target)] = _attribute(traced.network, str(node.target))
        for layer in (layer for layer, found in nodes.items() if found is node):
            held[f"pool_{len(outputs)}"] = pools[layer]
            outputs[layer] = graph.call_module(f"pool_{len(outputs)}", (copies[node],))
        if len(outputs) == len(nodes):
            break
    graph.output(tuple(outputs[layer] for layer in nodes))
    module = fx.GraphModule(held, graph).eval()
    module.graph.eliminate_dead_code(is_impure_node=lambda node: node.is_impure() or _writes(module, node))
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _writes(module: nn.Module, node: fx.Node) -> bool:
    """Say whether a node may change its input in place, so that it counts although nobody uses what it returns."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__")) or name == "setitem"


def _attribute(network: nn.Module, name: str) -> Any:
    owner, _, last = name.rpartition(".")
    return getattr(network.get_submodule(owner), last)
