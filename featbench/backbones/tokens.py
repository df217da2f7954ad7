"""Which tokens of a transformer are patches: before them stand a class token, registers, both, or none.

A network's own count is used: timm's `num_prefix_tokens`, one of torchvision's. Of a network of one's own the first
token is taken for a class token; `tokens:N` says how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision import models

from featbench.backbones.pooling import VECTOR_POOLINGS
from featbench.backbones.tracing import PENULTIMATE
from featbench.errors import UsageError

_LIBRARIES = ("timm.", "torchvision.")


@dataclass(frozen=True)
class Prefix:
    """The tokens before those of the patches.

    Attributes:
        count: How many there are.
        has_class: Whether the first is a class token.
        n_patches: How many patches there are; None where the network does not say. Layers with as many tokens have none
            before them: some networks add the class token late, as CaiT.
    """

    count: int
    has_class: bool
    n_patches: int | None


def find_prefix(network: nn.Module) -> Prefix | None:
    """Return how many tokens a network has before those of the patches; None where it does not say."""
    if isinstance(network, models.VisionTransformer):
        return Prefix(1, has_class=True, n_patches=network.seq_length - 1)
    has_class = any(name.split(".")[-1].startswith("cls_token") for name, _ in network.named_parameters())
    count = getattr(network, "num_prefix_tokens", None)
    if count is None and not type(network).__module__.startswith(_LIBRARIES):
        return None
    n_patches = getattr(getattr(network, "patch_embed", None), "num_patches", None)
    return Prefix(int(has_class) if count is None else count, has_class, n_patches)


def resolve_pooling(network: nn.Module, layer: str, pooling: str, shape: tuple[int, ...]) -> str | None:
    """Return the pooling for a layer of this shape: `tokens` may become `tokens:N`; None is no pooling.

    A penultimate layer that is a vector is no matter of poolings for other shapes. `tokens` stays where the class token
    is the only one before the patches, so that caches of before serve.

    Raises:
        UsageError: `cls` of a layer without a class token.
    """
    if layer == PENULTIMATE and len(shape) == 1 and pooling not in VECTOR_POOLINGS:
        return None
    prefix = find_prefix(network) if pooling in ("cls", "tokens") and len(shape) == 2 else None
    if prefix is None:
        return pooling
    bare = shape[0] == prefix.n_patches
    if pooling == "cls":
        if bare or not prefix.has_class:
            raise UsageError(
                f"pooling 'cls' makes no sense for layer {layer!r}: {type(network).__name__} has no class token there; "
                "use avg, max or tokens"
            )
        return pooling
    count = 0 if bare else prefix.count
    return pooling if count == 1 else f"tokens:{count}"
