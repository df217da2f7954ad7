"""`blocks`: the stages of a network, found from its modules alone, without a table of families.

A stage is a module with two or more layers of weights (norms and biases are none) before the head. The search begins
with the network's children, and replaces the one with the most such layers by its own children until there are at least
three stages, none with more than three quarters of all layers, as ResNet's layer1 to layer4 or the children of
SqueezeNet's `features`. A network without such groups, as VGG, has a block for each layer of weights, with the norm,
activation and pooling that follow it. Of more than 15 blocks every second, third, ... is kept, the last one always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, fx, nn

from featbench.backbones.head import only_input
from featbench.backbones.shapes import Shapes
from featbench.backbones.tracing import Traced

_ENOUGH = 3
_MOST = 15
_MOST_WEIGHTS = 0.75  # the third stage of Swin-B, ConvNeXt-B and ResNet-152 have 0.70 to 0.73, and are stages


def find_blocks(traced: Traced, shapes: Shapes) -> list[str]:
    """Return the names of a network's blocks in the order they run; they do not depend on the size of the images."""
    tree = _grow(traced)
    paths = _search(tree)
    names = [_behind(traced, tree, shapes, path) if tree.is_leaf(path) else path for path in paths]
    found = {traced.find(name): name for name in names if traced.find(name) in shapes}
    return _thin([found[node] for node in traced.graph.nodes if node in found])


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

    def is_leaf(self, path: str) -> bool:
        return path in self.leaves

    def holds_head(self, path: str) -> bool:
        return self.head.startswith(path + ".")


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
    while True:
        stages = [path for path in paths if len(tree.weights[path]) > 1]
        to_open = [path for path in stages if not tree.is_leaf(path)]
        with_head = [path for path in paths if tree.holds_head(path)]
        if not with_head and len(stages) >= _ENOUGH and not any(_is_most(tree, path) for path in to_open):
            return stages
        if not with_head and not to_open:
            return [path for path in paths if tree.weights[path]]
        opened = with_head[0] if with_head else max(to_open, key=lambda path: len(tree.weights[path]))
        place = paths.index(opened)
        paths[place : place + 1] = tree.children[opened]


def _is_most(tree: _Tree, path: str) -> bool:
    return len(tree.weights[path]) > _MOST_WEIGHTS * len(tree.weights[""])


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


def _thin(names: Sequence[str]) -> list[str]:
    step = math.ceil(len(names) / _MOST) or 1
    return list(names[::-1][::step][::-1])
