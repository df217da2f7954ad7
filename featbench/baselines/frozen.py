"""Frozen parts: split a network after the layers that do not learn, and compute these once for every image.

The activations of a frozen part are the same in every epoch unless the images change (augmentation, mixup). The rest
consists of the same modules, run by the traced graph, so that weights, optimizer and saved files are as if the whole
network had run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from featbench.backbones.tracing import Traced
from featbench.baselines.network import nodes_until
from featbench.spill import spill

_BATCH = 256
_PROBED = 4  # images that the halves are compared with the network on

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Halves:
    """A network in two: `rest(frozen(inputs))` are its logits."""

    frozen: Run
    rest: Run


def split_after(traced: Traced, layer: str) -> Halves | None:
    """Split a network after a layer; None where the rest needs other tensors from before it, too."""
    last = traced.find(layer)
    before = dict.fromkeys(nodes_until(traced.graph, last))
    crossing = {n for n in before if n.op != "get_attr" and any(user not in before for user in n.users)}
    if crossing != {last}:
        return None
    front, back = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in before:
        copies[node] = front.node_copy(node, lambda other: copies[other])
    front.output(copies[last])
    copies = {last: back.placeholder("activations")}
    for node in traced.graph.nodes:
        if (node not in before and node.op != "placeholder") or (node in before and node.op == "get_attr"):
            copies[node] = back.node_copy(node, lambda other: copies[other])
    # eliminate_dead_code would remove operations in place; all are needed here
    return Halves(fx.GraphModule(traced.network, front).forward, fx.GraphModule(traced.network, back).forward)


def computes_the_same(halves: Halves, network: nn.Module, inputs: Tensor) -> bool:
    """Say whether, in training mode, the two halves give the network's own outputs for a few images.

    A network may compute in training mode what the graph, traced in eval mode, leaves out. Batch-norm statistics and
    the global random numbers are afterwards as before.
    """
    inputs = inputs[:_PROBED]
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    outputs = []
    for run in (network, lambda images: halves.rest(halves.frozen(images))):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            outputs.append(run(inputs.clone()))
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(kept[name])
    whole, parts = outputs
    return bool(torch.allclose(whole, parts, rtol=1e-3, atol=1e-3 * float(whole.abs().max())))


def activations(
    run: Run,
    prepare: Run,
    images: Tensor,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
    spill_dir: Path | None = None,
) -> Tensor:
    """Compute a frozen part's activations of every image, on the CPU: (N, ...) float32 or, under autocast, bfloat16.

    With `spill_dir` they are in a file there, and not in memory.

    Raises:
        OSError: There is no room for the file.
    """
    with torch.no_grad(), autocast():
        computed = (run(prepare(batch.to(device))).cpu() for batch in torch.split(images, _BATCH))
        first = next(computed)  # no split is empty
        parts = chain([first], computed)
        if spill_dir is not None:
            as_bytes = (part.contiguous().view(torch.uint8).numpy() for part in parts)  # numpy has no bfloat16
            return torch.from_numpy(spill(as_bytes, spill_dir)).view(first.dtype)
        found = torch.empty((len(images), *first.shape[1:]), dtype=first.dtype)
        for place, part in zip(torch.split(found, _BATCH), parts, strict=True):
            place.copy_(part)
    return found


def bytes_of(run: Run, inputs: Tensor, n_images: int) -> int:
    """Return the bytes of a frozen part's activations of so many images, from those of one."""
    with torch.no_grad():
        return run(inputs[:1]).nbytes * n_images
