"""From a model's card to its networks, checked against the hashes of the training."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from featbench.backbones.layers import FeatureNetwork
from featbench.backbones.load import RANDOM, Backbone, load_backbone
from featbench.baselines.network import with_new_head
from featbench.config import BackboneConfig, is_weights_file, split_part
from featbench.data.preprocess import Preprocess
from featbench.errors import ResultsError, WeightsError
from featbench.features.passes import Pass
from featbench.predict.images import ArrayPreprocess
from featbench.results.cards import RUN_AGAIN, Card

WEIGHTS = "weights"  # folder in a results folder; weights files that moved are looked for there


def card_preprocess(card: Card) -> Preprocess:
    """Return what images go through."""
    content = card.preprocess.model_dump()
    return (
        Preprocess(**content) if card.array_shape is None else ArrayPreprocess(**content, array_shape=card.array_shape)
    )


def trained_backbone(folder: Path, card: Card, *, offline: bool) -> Backbone:
    """Build the backbone that a model was trained on.

    Raises:
        WeightsError: Its weights are missing, or are not the same.
    """
    source = _weights_file(folder, card) if is_weights_file(card.weights) else card.weights
    backbone = _load(card, source, offline=offline)
    if backbone.weights_hash() != card.weights_hash:
        what = "random weights" if source == RANDOM else "weights"
        raise WeightsError(
            f"the {what} of {card.backbone} ({source}) are not those that the model was trained on; bring those back "
            f"(environment.json has the versions of then), or {RUN_AGAIN}"
        )
    return backbone


def make_passes(folder: Path, card: Card, *, offline: bool) -> tuple[list[Pass], list[int]]:
    """Build the networks of a classifier's features; layers of one backbone come out of one pass.

    Returns:
        The passes; and for each of the card's parts, which pass its layer comes out of.

    Raises:
        UsageError: A backbone or a layer does not exist here.
        WeightsError: Weights are missing, or are not those of the training.
    """
    groups: dict[str, list[Card]] = {}
    for part in card.parts:
        groups.setdefault(part.model_dump_json(exclude={"layer"}), []).append(part)
    passes = []
    for parts in groups.values():
        preprocess = card_preprocess(parts[0])
        backbone = trained_backbone(folder, parts[0], offline=offline)
        layers = [str(part.layer) for part in parts]
        features = backbone.features(layers, parts[0].pooling or "flatten", preprocess.photo_shape, as_written=True)
        passes.append(Pass(features, preprocess, parts[0].precision, preprocess.photo_shape))
    return passes, [number for part in card.parts for number, parts in enumerate(groups.values()) if part in parts]


def trained_network(card: Card, state: dict[str, Tensor], file: Path) -> nn.Module:
    """Build the network of a card, (B, C, h, w) -> (B, n_classes) logits, with the tensors of its file.

    Raises:
        ResultsError: They do not fit.
    """
    backbone = _load(card, RANDOM, offline=True)
    network = with_new_head(backbone.traced, len(card.classes), dropout=0.0, seed=0, freeze_until=None).network
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ResultsError(f"{file} does not fit {card.backbone}: {reason}; its code has changed since") from error
    return network.eval().requires_grad_(requires_grad=False)


def logits_network(network: nn.Module, n_classes: int) -> FeatureNetwork:
    """Wrap a network so that its logits come out as features do."""
    return FeatureNetwork(_OneOutput(network), ("logits",), (n_classes,))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a kept network.

    Raises:
        ResultsError: The file is damaged, or a number in it is not finite.
    """
    try:
        tensors = safetensors.torch.load_file(file)
    except Exception as error:  # safetensors and torch raise many kinds on damaged files
        raise ResultsError(f"{file} is damaged: {str(error) or type(error).__name__}; {RUN_AGAIN}") from error
    wrong = next((name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), None)
    if wrong is not None:
        raise ResultsError(f"{file} holds numbers that are not finite ({wrong}): the training diverged; {RUN_AGAIN}")
    return tensors


def read_head(file: Path, n_classes: int, width: int) -> tuple[Tensor, Tensor]:
    """Read the weight (n_classes, width) and the bias (n_classes,) of a kept head.

    Raises:
        ResultsError: The file is damaged, or of another head.
    """
    tensors = read_tensors(file)
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if shapes != {"weight": ((n_classes, width), torch.float32), "bias": ((n_classes,), torch.float32)}:
        raise ResultsError(f"{file} is not the head of {n_classes} classes on {width} features; {RUN_AGAIN}")
    return tensors["weight"], tensors["bias"]


class _OneOutput(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images),)


def _load(card: Card, source: str, *, offline: bool) -> Backbone:
    weights = None if source == "none" else source
    config = BackboneConfig(name=card.backbone, weights=weights, image_size=card.preprocess.crop_px)
    return load_backbone(config, seed=card.seed, offline=offline, channels=card_preprocess(card).channels)


def _weights_file(folder: Path, card: Card) -> str:
    path, part = split_part(card.weights)
    moved = folder / WEIGHTS / path.name
    # Path.is_file() raises where a folder on the way is closed, or a name too long
    found = next((place for place in (path, moved) if os.path.isfile(place)), None)  # noqa: PTH113
    if found is None:
        raise WeightsError(
            f"the weights file {path} that the model was trained on is not there any more; put it back, or to {moved}"
        )
    return f"{found}#{part}" if part else str(found)
