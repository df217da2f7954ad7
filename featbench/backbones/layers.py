"""From names of layers to one network that returns the pooled features of all of them in one forward pass.

Each pooling is inserted right behind its layer's node in the traced graph, so that no later in-place operation can
change its input; the graph ends after the deepest of the layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from featbench.backbones.pooling import Pool, is_channels_last, make_pool, resolve_pooling
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
    traced: Traced,
    layers: Sequence[str],
    pooling: str,
    image_shape: tuple[int, int, int],
    *,
    has_head: bool = True,
    as_written: bool = False,
) -> FeatureNetwork:
    """Cut a network down to the pooled features of some layers.

    Args:
        traced: The network.
        layers: Names: "penultimate", graph nodes or modules.
        pooling: How a layer's output becomes one row of numbers, as in "avg" or "avg:4"; see `resolve_pooling`.
        image_shape: (C, H, W) of the images it will see.
        has_head: Whether the last linear layer has weights; without them it and what follows have no features.
        as_written: Do not resolve the pooling for each layer: a model's card has the resolved one.

    Raises:
        UsageError: A layer does not exist, or cannot be pooled so.
        WeightsError: A layer needs the head, and the weights have none.
    """
    nodes = {layer: traced.find(layer) for layer in layers}
    shapes = _layer_shapes(traced, nodes, image_shape)
    poolings = {
        layer: pooling if as_written else resolve_pooling(traced.network, layer, pooling, shape)
        for layer, shape in shapes.items()
    }
    pools = _make_pools(traced, nodes, poolings, shapes, image_shape)
    module = _cut(traced, nodes, pools)
    if not has_head and traced.head_name in {node.target for node in module.graph.nodes}:
        raise WeightsError(
            f"layers {', '.join(layers)} need the head {traced.head_name!r}, which the weights file does not have; "
            f'ask for layers before it, as "{PENULTIMATE}", or for weights with a head'
        )
    widths = tuple(pools[layer].width for layer in layers)
    return FeatureNetwork(module, tuple(layers), widths)


def resolved_poolings(
    traced: Traced, layers: Sequence[str], pooling: str, image_shape: tuple[int, int, int]
) -> dict[str, str | None]:
    """Return the pooling to use for each layer; see `resolve_pooling`.

    Raises:
        UsageError: A layer does not exist, or cannot be pooled so.
    """
    shapes = _layer_shapes(traced, {layer: traced.find(layer) for layer in layers}, image_shape)
    return {layer: resolve_pooling(traced.network, layer, pooling, shape) for layer, shape in shapes.items()}


def _layer_shapes(
    traced: Traced, nodes: Mapping[str, fx.Node], image_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    shapes = output_shapes(traced, image_shape)
    for layer, node in nodes.items():
        if node not in shapes:
            raise UsageError(f"layer {layer!r} does not give one tensor an image, so it has no features; name another")
    return {layer: shapes[node] for layer, node in nodes.items()}


def _make_pools(
    traced: Traced,
    nodes: Mapping[str, fx.Node],
    poolings: Mapping[str, str | None],
    shapes: Mapping[str, tuple[int, ...]],
    image_shape: tuple[int, int, int],
) -> dict[str, Pool]:
    unclear = {
        nodes[layer]: shape
        for layer, shape in shapes.items()
        if poolings[layer] != "flatten" and is_channels_last(shape) is None
    }
    last = find_channels_last(traced, unclear, image_shape) if unclear else {}
    return {
        layer: make_pool(poolings[layer] or "flatten", shape, layer, channels_last=last.get(nodes[layer]))
        for layer, shape in shapes.items()
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
    """Return whether a node may change its input in place, so that it is kept although its result is unused."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    return bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__")) or name == "setitem"


def _attribute(network: nn.Module, name: str) -> Any:
    owner, _, last = name.rpartition(".")
    return getattr(network.get_submodule(owner), last)
