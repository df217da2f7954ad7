"""The network that a strategy trains: a new head, and which part of the rest learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from featbench.backbones.tracing import Traced
from featbench.errors import UsageError


@dataclass(frozen=True)
class Trainable:
    """A network with a new head.

    Attributes:
        network: The whole network, float32.
        head: The module path of the new head.
        frozen: Module paths that neither learn nor update their batch-norm statistics.
        depths: Parameter -> number of blocks between it and the head; 0 for parameters that are missing.
    """

    network: nn.Module
    head: str
    frozen: frozenset[str] = frozenset()
    depths: Mapping[str, int] = field(default_factory=dict)

    def train(self, mode: bool) -> None:
        """Switch to training mode, except what is frozen: its batch-norm statistics must not move."""
        self.network.train(mode)
        for name in self.frozen:
            self.network.get_submodule(name).eval()

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the head that learn."""
        return list(self.network.get_submodule(self.head).parameters())

    def body_parameters(self) -> list[nn.Parameter]:
        """Return the parameters below the head that learn."""
        head = {id(parameter) for parameter in self.head_parameters()}
        return [p for p in self.network.parameters() if p.requires_grad and id(p) not in head]


def with_new_head(
    traced: Traced,
    n_classes: int,
    *,
    dropout: float,
    seed: int,
    freeze_until: str | None,
    blocks: Sequence[str] = (),
) -> Trainable:
    """Replace the head of a traced network by a random one for `n_classes`, in place, and make it trainable.

    Args:
        traced: The network; its last linear layer is replaced by one of the same kind.
        n_classes: Outputs of the new head.
        dropout: Share of the head's inputs that training drops.
        seed: Draws the head's weights.
        freeze_until: Layers up to and including this one are frozen; None freezes none.
        blocks: The last layer of each block, for the depths of the parameters.

    Raises:
        UsageError: `freeze_until` is no layer of the network.
    """
    network = traced.network
    network.requires_grad_(requires_grad=True)
    until = list(nodes_until(traced.graph, traced.find(freeze_until))) if freeze_until else []
    frozen = frozenset(str(node.target) for node in until if node.op == "call_module")
    if traced.head_name in frozen:
        raise UsageError(f"freeze_until = {freeze_until!r} freezes the head {traced.head_name!r} too; name one before")
    for name in frozen:
        network.get_submodule(name).requires_grad_(requires_grad=False)
    attributes = {str(node.target) for node in until if node.op == "get_attr"}
    for name, parameter in network.named_parameters():
        if name in attributes:
            parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = _new_head(network.get_submodule(traced.head_name), n_classes)
    if dropout:  # by a hook, so that the head's tensors keep their names
        head.register_forward_pre_hook(partial(_drop, dropout))
    parent, _, last = traced.head_name.rpartition(".")
    setattr(network.get_submodule(parent), last, head)
    if getattr(network, "aux_logits", False):  # second heads of GoogLeNet and Inception, used in training mode only
        for name, value in {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}.items():
            if hasattr(network, name):
                setattr(network, name, value)
    return Trainable(network, traced.head_name, frozen, _depths(traced, blocks))


def _drop(share: float, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return F.dropout(inputs[0], share, module.training)


def _new_head(old: nn.Module, n_classes: int) -> nn.Module:
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, n_classes)
    if isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1):
        return nn.Conv2d(old.in_channels, n_classes, 1)
    raise UsageError(f"the network's last layer is {old}, which cannot be replaced by one for other classes")


def _depths(traced: Traced, blocks: Sequence[str]) -> dict[str, int]:
    ends = {traced.find(block) for block in blocks}
    left = len(ends)
    depths = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            module = traced.network.get_submodule(str(node.target))
            depths.update({f"{node.target}.{name}": left for name, _ in module.named_parameters()})
        elif node.op == "get_attr":
            depths[str(node.target)] = left
        left -= node in ends
    return depths


def nodes_until(graph: fx.Graph, last: fx.Node) -> Iterator[fx.Node]:
    """Yield the nodes of a graph up to and including this one."""
    for node in graph.nodes:
        yield node
        if node is last:
            return
