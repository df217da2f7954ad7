"""The head of a network: the linear layer that turns features into classes."""

from __future__ import annotations

from torch import fx, nn

LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SIZES = {getattr, "size", "dim"}


def find_head(network: nn.Module, graph: fx.Graph) -> fx.Node | None:
    """Return the linear layer that a network ends with: a `Linear`, or a convolution as SqueezeNet's.

    Between it and the output there may be pooling, activation and reshaping, but nothing that has weights or joins
    two tensors: the last convolution of a residual block is no head. None where there is no such layer.
    """
    node = only_input(output_of(graph))
    while node is not None:
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, LINEAR):
            return node
        if module is not None and any(True for _ in module.parameters()):
            return None
        node = only_input(node)
    return None


def output_of(graph: fx.Graph) -> fx.Node:
    """Return the node that ends a graph."""
    last: fx.Node = next(iter(reversed(graph.nodes)))
    return last


def only_input(node: fx.Node) -> fx.Node | None:
    """Return the only input of a node that is a tensor; None where there are several or none. Sizes do not count."""
    sizes = _sizes(node.graph)
    tensors = [other for other in node.all_input_nodes if other not in sizes]
    return tensors[0] if len(tensors) == 1 else None


def _sizes(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that are sizes of tensors, or computed from sizes alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node.target in _SIZES or (inputs and found.issuperset(inputs)):
            found.add(node)
    return found
