"""The `layers` setting: `blocks` and shell-style patterns are replaced by names of layers.

`blocks` are the stages of a network, found from its modules alone, without a table of families. A stage is a module
with two or more layers of weights (norms and biases are none) before the head. The search begins with the network's
children, and replaces the one with the most such layers by its own children until there are at least three stages, none
with more than three quarters of all layers, as ResNet's layer1 to layer4 or the children of SqueezeNet's `features`. A
network without such groups, as VGG, has a block for each layer of weights, with the norm, activation and pooling that
follow it. Of more than 15 blocks every second, third, ... is kept, the last one always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor, fx, nn

from featbench.backbones.shapes import Shapes, output_shapes
from featbench.backbones.tracing import BLOCKS, Traced, only_input
from featbench.errors import UsageError, list_names

_ENOUGH = 3
_MOST = 15
_MOST_WEIGHTS = 0.75  # the third stage of Swin-B, ConvNeXt-B and ResNet-152 have 0.70 to 0.73, and are stages


def expand_layers(traced: Traced, layers: Sequence[str], image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Replace `blocks` and each pattern by the layers they stand for, in the order they run.

    A `*` does not cross a dot, as it does not cross a slash in the shell: `layer*` is layer1 to layer4 of a ResNet, and
    `layer*.*` their blocks. No layer is repeated; the head, layers after it and layers that give no features
    are not included.

    Raises:
        UsageError: There is no such layer, a pattern matches none, or the network cannot take such images.
    """
    if not any(_stands_for_others(layer) for layer in layers):
        return tuple(layers)
    shapes = output_shapes(traced, image_shape)
    seen = {traced.find(layer) for layer in layers if not _stands_for_others(layer)}
    expanded: list[str] = []
    for layer in layers:
        if not _stands_for_others(layer):
            expanded.append(layer)
            continue
        for name in _blocks(traced, shapes) if layer == BLOCKS else _match(traced, layer, shapes):
            if traced.find(name) not in seen:
                seen.add(traced.find(name))
                expanded.append(name)
    return tuple(expanded)


def _stands_for_others(layer: str) -> bool:
    return layer == BLOCKS or any(character in layer for character in "*?[")


def _blocks(traced: Traced, shapes: Shapes) -> list[str]:
    found = find_blocks(traced, shapes)
    if not found:
        raise UsageError(f"{type(traced.network).__name__} has no layers with weights, so no blocks; name layers")
    return found


def _match(traced: Traced, pattern: str, shapes: Shapes) -> list[str]:
    names = traced.ordered_names()
    matching = [name for name in names if _matches(name, pattern)]
    body = set(traced.body.values())
    found = [name for name in matching if traced.find(name) in body and traced.find(name) in shapes]
    if matching and not found:
        raise UsageError(
            f"layers = {pattern!r} matches only the head, or what gives no features ({list_names(matching)}); "
            "patterns stand for layers before the head, which is to be named outright"
        )
    if not found:
        parent = pattern.rpartition(".")[0]
        near = [name for name in names if "." in name and _matches(name.rpartition(".")[0], parent)]
        there = near or [name for name in names if "." not in name]
        raise UsageError(
            f"no layer matches {pattern!r} (a * does not cross a dot); there are {list_names(there)}; "
            "`featbench list layers NAME` prints all"
        )
    return found


def _matches(name: str, pattern: str) -> bool:
    names, patterns = name.split("."), pattern.split(".")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def find_blocks(traced: Traced, shapes: Shapes) -> list[str]:
    """Return the names of a network's blocks in the order they run; they do not depend on the size of the images."""
    tree = _grow(traced)
    paths = _search(tree)
    names = [_behind(traced, tree, shapes, path) if path in tree.leaves else path for path in paths]
    found = {traced.find(name): name for name in names if traced.find(name) in shapes}
    blocks = [found[node] for node in traced.graph.nodes if node in found]
    step = math.ceil(len(blocks) / _MOST) or 1
    return blocks[::-1][::step][::-1]


@dataclass
class _Tree:
    """The modules that run before the head.

    Attributes:
        head: The module path of the head; "" where there is none.
        weights: Module path -> names of the weights in it that have two dimensions or more.
        children: Module path -> the paths of its children.
        leaves: The nodes of the graph by name.
    """

    head: str
    weights: dict[str, set[str]] = field(default_factory=dict)
    children: dict[str, dict[str, None]] = field(default_factory=dict)
    leaves: dict[str, fx.Node] = field(default_factory=dict)


def _grow(traced: Traced) -> _Tree:
    tree = _Tree(traced.head_name if traced.head else "")
    for name, node in traced.body.items():
        parts = name.split(".")
        tree.leaves[name] = node
        for depth in range(len(parts) + 1):
            path = ".".join(parts[:depth])
            tree.weights.setdefault(path, set()).update(_weights(traced.network, node))
            if depth:
                tree.children.setdefault(".".join(parts[: depth - 1]), {})[path] = None
    return tree


def _weights(network: nn.Module, node: fx.Node) -> set[str]:
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return {f"{node.target}.{name}" for name, weight in module.named_parameters() if _is_matrix(weight)}
    if node.op == "get_attr":
        weight = dict(network.named_parameters()).get(str(node.target))
        return {str(node.target)} if weight is not None and _is_matrix(weight) else set()
    return set()


def _is_matrix(weight: Tensor) -> bool:
    return sum(size > 1 for size in weight.shape) >= 2


def _search(tree: _Tree) -> list[str]:
    paths = list(tree.children.get("", {}))
    most = _MOST_WEIGHTS * len(tree.weights.get("", ()))
    while True:
        stages = [path for path in paths if len(tree.weights[path]) > 1]
        to_open = [path for path in stages if path not in tree.leaves]
        with_head = [path for path in paths if tree.head.startswith(path + ".")]
        if not with_head and len(stages) >= _ENOUGH and all(len(tree.weights[path]) <= most for path in to_open):
            return stages
        if not with_head and not to_open:
            return [path for path in paths if tree.weights[path]]
        opened = with_head[0] if with_head else max(to_open, key=lambda path: len(tree.weights[path]))
        place = paths.index(opened)
        paths[place : place + 1] = tree.children[opened]


def _behind(traced: Traced, tree: _Tree, shapes: Shapes, path: str) -> str:
    """Return the last of the norms, activations and poolings that follow a layer in its own module."""
    node = tree.leaves[path]
    name_of = {other: name for name, other in tree.leaves.items()}
    name = path
    while len(node.users) == 1:
        node = next(iter(node.users))
        follows = name_of.get(node, "").rpartition(".")[0] == path.rpartition(".")[0] and node in name_of
        if not follows or tree.weights[name_of[node]] or only_input(node) is None:
            break
        if len(shapes.get(node, ())) != len(shapes.get(traced.find(path), ())):
            break
        name = name_of[node]
    return name
