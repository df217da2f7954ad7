"""Tracing: from a network to its graph, in which every node has a name that a layer may have."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from featbench.errors import UsageError, first_line, unknown
from featbench.fingerprint import hash_array

PENULTIMATE = "penultimate"
BLOCKS = "blocks"
LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SIZES = {getattr, "size", "dim"}


@dataclass(frozen=True)
class Traced:
    """A network's eval graph.

    Attributes:
        network: The network.
        graph: Its graph.
        names: The nodes by name, as torchvision gives it.
        gives_classes: Whether its output is known to be classes, although it may not end with a linear layer.
    """

    network: nn.Module
    graph: fx.Graph
    names: dict[str, fx.Node]
    gives_classes: bool = False

    @cached_property
    def head(self) -> fx.Node | None:
        """The linear layer that the network ends with; None where it ends without one."""
        return find_head(self.network, self.graph)

    @property
    def head_name(self) -> str:
        """The module path of the head, as in "fc" or "classifier.6".

        Raises:
            UsageError: The network ends without a linear layer.
        """
        if self.head is None:
            raise UsageError(f"{type(self.network).__name__} does not end with a linear layer, so it has no head")
        return str(self.head.target)

    @cached_property
    def body(self) -> dict[str, fx.Node]:
        """The nodes that run before the head, by name; the image is none."""
        order = {node: number for number, node in enumerate(self.graph.nodes)}
        end = len(order) if self.head is None else order[self.head]
        return {name: node for name, node in self.names.items() if node.op != "placeholder" and order[node] < end}

    @cached_property
    def _layers(self) -> dict[str, fx.Node]:
        """Every name besides "penultimate": graph nodes, and modules, which stand for their last node."""
        nodes = {name: node for name, node in self.names.items() if node.op != "placeholder"}
        modules: dict[str, fx.Node] = {}
        for name, node in nodes.items():
            for end in (place for place, character in enumerate(name) if character == "."):
                modules[name[:end]] = node
        return nodes | {name: modules[name] for name in sorted(modules.keys() - nodes.keys())}

    def layer_names(self) -> list[str]:
        """Return every name that a layer may have."""
        return [PENULTIMATE, *(name for name in self._layers if name not in (PENULTIMATE, BLOCKS))]

    def ordered_names(self) -> list[str]:
        """Return the names of graph nodes and modules in the order they run."""
        order = {node: number for number, node in enumerate(self.graph.nodes)}
        return sorted(self.layer_names()[1:], key=lambda name: order[self._layers[name]])

    def find(self, layer: str) -> fx.Node:
        """Return the node of a layer.

        Raises:
            UsageError: There is no such layer.
        """
        if layer == PENULTIMATE:
            if self.penultimate is None:
                raise UsageError(f"{type(self.network).__name__} has no one {layer} layer; name layers instead")
            return self.penultimate
        if layer not in self._layers:
            raise unknown("layer", layer, [*self.layer_names(), BLOCKS], listed_by="featbench list layers NAME")
        return self._layers[layer]

    @property
    def penultimate(self) -> fx.Node | None:
        """What feeds the head; where there is none, what the network returns, if that is one tensor of features."""
        if self.head is None and self.gives_classes:
            return None
        return only_input(output_of(self.graph) if self.head is None else self.head)

    def steps(self) -> list[str]:
        """Write down all that the network does, besides the tensors of its state dict."""
        lines = []
        for node in self.graph.nodes:
            arguments = f"{node.args} {node.kwargs}"
            target = getattr(node.target, "__name__", node.target)
            lines.append(f"{node.op} {target} {arguments}")
            if node.op == "get_attr":
                value = operator.attrgetter(str(node.target))(self.network)
                lines.append(hash_array(value.detach().cpu().numpy()) if isinstance(value, Tensor) else repr(value))
            if node.op == "call_module":
                modules = self.network.get_submodule(str(node.target)).modules()
                lines += [f"{_source(type(module))} {_settings(module)}" for module in modules]
        return lines

    def unused(self, tensor: str) -> bool:
        """Say whether a tensor of the state dict takes no part in the eval forward, as those of auxiliary heads."""
        owner = tensor.rpartition(".")[0]
        used = {str(node.target) for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        return not any(tensor == target or owner == target or owner.startswith(target + ".") for target in used)


def _works_on(node: fx.Node, absent: set[fx.Node]) -> bool:
    """Say whether a node does with one of these what cannot be done with None."""
    does = node.op == "call_method" or getattr(node.target, "__module__", "") == operator.add.__module__
    return does and bool(node.args) and node.args[0] in absent


def _source(kind: type[nn.Module]) -> str:
    """Return what identifies the code of a module that is one node: its name, and its source where torch has it not."""
    if kind.__module__.startswith(("torch.", "torchvision.")):
        return kind.__qualname__
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # made by code, not by a file
        return kind.__qualname__


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return what a module was made with, as its stride; whether it trains is none of that."""
    plain = (bool, int, float, str, tuple, type(None))
    public = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    return {name: value for name, value in sorted(public.items()) if isinstance(value, plain)}


def trace(
    network: nn.Module,
    *,
    leaves: Sequence[type[nn.Module]] = (),
    whole: Sequence[Callable[..., Any]] = (),
    gives_classes: bool = False,
) -> Traced:
    """Trace a network in eval mode.

    Args:
        network: The network; it is put in eval mode.
        leaves: Kinds of modules that are one node each, besides those of torch and torchvision.
        whole: Functions that are one node each, because they cannot be traced.
        gives_classes: Whether its output is known to be classes.

    Raises:
        UsageError: torch.fx cannot trace it.
    """
    operators = [item for item in vars(torchvision.ops).values() if isinstance(item, type)]
    modules = [item for item in operators if issubclass(item, nn.Module) and not issubclass(item, nn.Sequential)]

    def run(**pinned: None) -> tuple[fx.Graph, NodePathTracer]:
        tracer = NodePathTracer(
            autowrap_modules=(math, torchvision.ops),
            autowrap_functions=tuple(whole),
            leaf_modules=[*LINEAR, *modules, *leaves],
        )
        return tracer.trace(network.eval(), concrete_args=pinned or None), tracer

    try:
        graph, tracer = run()
        # arguments besides the image that are None, as `mask` of `forward(self, x, mask=None)`
        absent = {node for node in graph.nodes if node.op == "placeholder" and node.args == (None,)}
        if any(_works_on(node, absent) for node in graph.nodes):
            # `if mask is not None:` was taken for true. Not always done, since the caches of timm's go by their graphs.
            graph, tracer = run(**{str(node.target): None for node in absent})
    except Exception as error:
        raise UsageError(
            f"torch.fx cannot trace {type(network).__name__} ({first_line(error)}), and layers are found by tracing; "
            "its forward must not decide by the values of tensors, as in `if x.mean() > 0`"
        ) from error
    names = {name: node for node, name in tracer.node_to_qualname.items() if node.op != "output"}
    return Traced(network, graph, names, gives_classes)


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
    sizes: set[fx.Node] = set()  # of tensors, or computed from sizes alone
    for other in node.graph.nodes:
        inputs = other.all_input_nodes
        if other.target in _SIZES or (inputs and sizes.issuperset(inputs)):
            sizes.add(other)
    tensors = [other for other in node.all_input_nodes if other not in sizes]
    return tensors[0] if len(tensors) == 1 else None
