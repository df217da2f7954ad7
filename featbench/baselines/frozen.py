"""Frozen parts: cut a network behind what does not learn, so that this part is computed once for every image.

What a frozen part gives for an image is the same in every epoch unless the images change (augmentation, mixup). The
rest is the same modules, run by the traced graph, so that weights, optimizer and saved files are as if the whole
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
from featbench.spill import spill

_BATCH = 256
_PROBED = 4  # images that the rest is compared with the whole network on

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cut:
    """A network in two: `rest(frozen(inputs))` are its logits."""

    frozen: Run
    rest: Run


def cut_behind(traced: Traced, layer: str) -> Cut | None:
    """Cut a network behind a layer; None where more than that layer's one tensor would have to cross the cut."""
    last = traced.find(layer)
    before = _until(traced.graph, last)
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
    # eliminate_dead_code would take operations in place for dead; nothing here is
    return Cut(fx.GraphModule(traced.network, front).forward, fx.GraphModule(traced.network, back).forward)


def _until(graph: fx.Graph, last: fx.Node) -> dict[fx.Node, None]:
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        found[node] = None
        if node is last:
            break
    return found


def is_same(cut: Cut, network: nn.Module, inputs: Tensor) -> bool:
    """Say whether, in the mode that training runs in, the two parts do to some images what the network does.

    A forward may do in training what the graph, which is that of eval mode, has not. Batch-norm statistics and the
    global random numbers are as before.
    """
    inputs = inputs[:_PROBED]
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    outputs = []
    for run in (network, lambda images: cut.rest(cut.frozen(images))):
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
    """Compute what a frozen part gives for every image, on the CPU: (N, ...) float32 or, under autocast, bfloat16.

    With `spill_dir` they are in a file there, and not in memory.

    Raises:
        OSError: The file does not fit its disk.
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
    """Return how many bytes what a frozen part gives for so many images takes, judged by one image's."""
    with torch.no_grad():
        return run(inputs[:1]).nbytes * n_images
