"""From a `[[backbones]]` entry to a network in eval mode, with its weights and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from featbench.backbones.architectures import get_architecture
from featbench.backbones.expand import expand_layers
from featbench.backbones.fitting import Loaded, load_file
from featbench.backbones.layers import FeatureNetwork, feature_network, resolved_poolings
from featbench.backbones.pooling import VECTOR_POOLINGS, check_pooling
from featbench.backbones.spec import Architecture
from featbench.backbones.tracing import PENULTIMATE, Traced
from featbench.backbones.weights import hash_weights
from featbench.config import BackboneConfig, is_weights_file, split_part
from featbench.data.preprocess import Preprocess
from featbench.errors import UsageError, WeightsError, unknown
from featbench.fingerprint import fingerprint

RANDOM = "random"


@dataclass(frozen=True)
class Backbone:
    """A network ready for features.

    Attributes:
        name: The backbone's name.
        weights: Which weights it has: a member's name, "random", or the name of the file.
        traced: The network in eval mode, and its graph.
        preprocess: What images go through before it.
        has_head: Whether its head has weights.
        foreign: Whether its code may change under the same name.
        source: Where its weights come from: as `weights`, but with a file's whole path.
        notes: Sentences for the user about its weights.
    """

    name: str
    weights: str
    traced: Traced
    preprocess: Preprocess
    has_head: bool
    foreign: bool = False
    source: str = RANDOM
    notes: tuple[str, ...] = ()

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self.traced.network

    def weights_hash(self) -> str:
        """Hash every tensor of the network, and what it does with them where its code may change."""
        weights = hash_weights(self.network)
        return fingerprint({"weights": weights, "steps": self.traced.steps()}) if self.foreign else weights

    def features(
        self,
        layers: Sequence[str],
        pooling: str,
        image_shape: tuple[int, int, int] | None = None,
        *,
        as_written: bool = False,
    ) -> FeatureNetwork:
        """Cut the network down to the pooled features of some layers, for images of shape (C, h, w)."""
        shape = image_shape or self.preprocess.photo_shape
        return feature_network(self.traced, layers, pooling, shape, has_head=self.has_head, as_written=as_written)

    def resolve(self, layers: Sequence[str], pooling: str, image_shape: tuple[int, int, int]) -> dict[str, str | None]:
        """Return the pooling of those layers that need another than `pooling`; see `resolve_pooling`.

        Raises:
            UsageError: A layer does not exist, or cannot be pooled so.
        """
        if pooling not in ("cls", "tokens") and (PENULTIMATE not in layers or pooling in VECTOR_POOLINGS):
            return {}  # nothing to look up
        found = resolved_poolings(self.traced, layers, pooling, image_shape)
        return {layer: own for layer, own in found.items() if own != pooling}

    def expand(self, layers: Sequence[str], image_shape: tuple[int, int, int] | None = None) -> tuple[str, ...]:
        """Replace `blocks` and patterns by the layers they stand for; see `expand_layers`."""
        return expand_layers(self.traced, layers, image_shape or self.preprocess.photo_shape)


def check_backbone(config: BackboneConfig) -> None:
    """Refuse an unknown backbone, weights, size or pooling before anything is loaded.

    Raises:
        UsageError: A name is not valid; the message has the nearest that is.
        WeightsError: There is no such weights file.
    """
    architecture = get_architecture(config.name)
    architecture.preprocess_at(config.image_size, weights_name(architecture, config))
    check_pooling(config.pooling)
    if config.weights is not None and is_weights_file(config.weights):
        path, _ = split_part(config.weights)
        if not path.is_file():
            raise WeightsError(f"there is no weights file {path}")


def weights_name(architecture: Architecture, config: BackboneConfig) -> str:
    """Return the weights of an entry: a member's name, "random", or a file's path.

    Raises:
        UsageError: The architecture has none of this name; or it has none at all and the entry does not say "random".
    """
    chosen = config.weights or architecture.default_weights
    if chosen == "DEFAULT":
        chosen = architecture.default_weights
    if chosen is None:
        some = ", ".join(architecture.pretrained)
        raise UsageError(
            f"{architecture.name} has no pretrained weights{f', but as {some}' if some else ''}; set weights to "
            f'{"one of these, " if some else ""}a file, or "random" for a network that was not trained'
        )
    if chosen in (*architecture.weights, architecture.default_weights) or is_weights_file(chosen):
        return chosen
    valid = [*architecture.weights, "a file of weights, as in ./resnet.pth"]
    raise unknown(f"weights of {architecture.name}", chosen, valid)


def weights_file(architecture: Architecture, config: BackboneConfig) -> Path | None:
    """Return the file that an entry's weights are read from, which a download may still have to make.

    None where they are random, or where their library alone knows the file.
    """
    chosen = weights_name(architecture, config)
    if chosen in architecture.pretrained:
        return architecture.pretrained[chosen].file()
    if chosen in architecture.bundled:
        return architecture.bundled[chosen]
    return split_part(chosen)[0] if is_weights_file(chosen) else None


def load_backbone(config: BackboneConfig, *, seed: int, offline: bool = False, channels: int = 3) -> Backbone:
    """Build a backbone with its weights.

    Args:
        config: The experiment's entry.
        seed: Draws the weights where they are random.
        offline: Forbids downloads.
        channels: Of the data set's images, 1 or 3; see `get_architecture`.

    Raises:
        UsageError: A name is not valid.
        WeightsError: The weights are missing or do not fit.
    """
    architecture = get_architecture(config.name, channels)
    chosen = weights_name(architecture, config)
    preprocess = architecture.preprocess_at(config.image_size, chosen)
    loaded = Loaded(has_head=True)
    if chosen in architecture.pretrained:
        traced = architecture.trace(architecture.pretrained[chosen].load(preprocess.crop_px, offline))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            traced = architecture.trace(architecture.make(preprocess.crop_px))
        if chosen in architecture.bundled:
            loaded = load_file(traced, architecture.bundled[chosen])
        elif is_weights_file(chosen):
            loaded = load_file(traced, *split_part(chosen), architecture.adapt)
    traced.network.requires_grad_(requires_grad=False)
    shown = Path(chosen).name if is_weights_file(chosen) else chosen
    notes = (*describe_weights(architecture, config), *loaded.notes)
    return Backbone(config.name, shown, traced, preprocess, loaded.has_head, architecture.foreign, chosen, notes)


def describe_weights(architecture: Architecture, config: BackboneConfig) -> tuple[str, ...]:
    """Return sentences about an entry before its weights are loaded: another name, or that they are random."""
    if config.weights is not None or weights_name(architecture, config) != RANDOM:
        return architecture.notes
    why = "comes as its function returns it" if architecture.foreign else "was never trained"
    return (
        *architecture.notes,
        f'{config.name} {why}, and results call its weights random; set weights to a file, or to "random"',
    )
