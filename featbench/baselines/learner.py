"""What a strategy trains: a network, and its inputs: images, or activations that are computed once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from featbench.backbones.load import Backbone
from featbench.backbones.tracing import BLOCKS, PENULTIMATE
from featbench.baselines.frozen import activations, bytes_of, computes_the_same, split_after
from featbench.baselines.network import Trainable, with_new_head
from featbench.baselines.strategies import Recipe
from featbench.progress import Progress
from featbench.spill import make_room

ONCE, ON_DISK, IN_THE_LOOP = "computed once", "computed once, on disk", "in the loop"
ACTIVATION_BYTES = 4 * 2**30  # memory for the activations of all splits; more than that goes to disk

Run = Callable[[Tensor], Tensor]
Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Images:
    """Images and labels in memory: `images` (N, C, h, w) uint8, or float activations (N, ...); `labels` (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Parts:
    """The rows that a network learns from, is chosen by, and is tested on once."""

    train: Images
    val: Images
    test: Images

    @property
    def n_images(self) -> int:
        """How many images there are in all."""
        return sum(len(part.labels) for part in (self.train, self.val, self.test))

    def replaced(self, images: Callable[[Tensor], Tensor]) -> tuple[Parts, float]:
        """Return the same rows with other images, and the seconds that those of test took."""
        train, val = (replace(part, images=images(part.images)) for part in (self.train, self.val))
        started_s = time.perf_counter()
        test = replace(self.test, images=images(self.test.images))
        return Parts(train, val, test), time.perf_counter() - started_s


@dataclass(frozen=True)
class Learner:
    """A network and its data.

    Attributes:
        trainable: What learns.
        prepare: Turns a batch of `parts` into inputs of `run`.
        run: Turns these into logits; None is the network itself.
        parts: The data.
        frozen: Whether the frozen part was computed once (and where its activations are), or runs in every epoch; None
            where nothing is frozen.
        scaling: Mean and deviation that the inputs of a linear head are standardised by.
        test_s: Seconds that the frozen part took for the test rows, where it was computed once.
    """

    trainable: Trainable
    prepare: Run
    run: Run | None
    parts: Parts
    frozen: str | None = None
    scaling: tuple[Tensor, Tensor] | None = None
    test_s: float = 0.0


@dataclass(frozen=True)
class Compute:
    """Where and how activations of frozen parts are computed and kept.

    Attributes:
        device: The device.
        autocast: Makes the context of the forward pass.
        spill_dir: Folder for a file of activations that do not fit the memory; None where they may not be on disk.
        memory_bytes: For the activations of all splits.
    """

    device: torch.device
    autocast: Autocast
    spill_dir: Path | None = None
    memory_bytes: int = ACTIVATION_BYTES


def make_learner(
    backbone: Backbone, recipe: Recipe, parts: Parts, n_classes: int, seed: int, compute: Compute, progress: Progress
) -> Learner:
    """Set up what a recipe trains; the backbone's network is changed in place.

    Activations that do not fit the memory go to disk; where they cannot, and for a linear head, the frozen part stays
    in the loop.

    Raises:
        UsageError: The recipe does not fit the network.
    """
    if recipe.strategy == "linear_head":
        return _linear_head(backbone, recipe, parts, n_classes, seed, compute)
    blocks = backbone.expand([BLOCKS]) if recipe.layer_decay != 1 else ()
    trainable = with_new_head(
        backbone.traced,
        n_classes,
        dropout=recipe.dropout,
        seed=seed,
        freeze_until=recipe.freeze_until,
        blocks=blocks,
    )
    trainable.network.to(compute.device)
    whole = Learner(trainable, backbone.preprocess.normalise, None, parts)
    if recipe.freeze_until is None:
        return whole
    learner = _with_frozen_part_computed(backbone, recipe, whole, compute, progress)
    return learner or replace(whole, frozen=IN_THE_LOOP)


def images_change(recipe: Recipe) -> bool:
    """Say whether a recipe shows an image differently from epoch to epoch."""
    return recipe.augment != "none" or recipe.mixup > 0


def _with_frozen_part_computed(
    backbone: Backbone, recipe: Recipe, whole: Learner, compute: Compute, progress: Progress
) -> Learner | None:
    """Compute the frozen part of every image; None where that would not be the same training, or there is no room."""
    halves = None if images_change(recipe) else split_after(backbone.traced, str(recipe.freeze_until))
    if halves is None:
        return None
    parts = whole.parts
    sample = whole.prepare(parts.train.images[:4].to(compute.device))
    whole.trainable.train(True)
    with compute.autocast():
        n_bytes = bytes_of(halves.frozen, sample, parts.n_images)
        if not computes_the_same(halves, whole.trainable.network, sample):
            return None
    on_disk = n_bytes > compute.memory_bytes
    if on_disk and compute.spill_dir is None:
        return None
    folder = compute.spill_dir if on_disk else None
    try:
        if folder is not None:
            make_room(folder, n_bytes)
        once, test_s = parts.replaced(
            lambda images: activations(halves.frozen, whole.prepare, images, compute.device, compute.autocast, folder)
        )
    except OSError as error:
        progress.warn(
            f"{n_bytes / 1e9:.3g} GB of activations cannot be put into {folder}: {error.strerror or error}; the frozen "
            "part runs in every epoch, which is slower: free some space, or use --cache"
        )
        return None
    frozen = ON_DISK if on_disk else ONCE
    return replace(whole, prepare=_unchanged, run=halves.rest, parts=once, frozen=frozen, test_s=test_s)


def _linear_head(
    backbone: Backbone, recipe: Recipe, parts: Parts, n_classes: int, seed: int, compute: Compute
) -> Learner:
    """Set up a head on standardised features: computed once, or by the frozen body where images change."""
    normalise, device = backbone.preprocess.normalise, compute.device
    body = backbone.features([PENULTIMATE], "avg").module.to(device)

    def features(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = body(inputs)[0].float()
        return found

    def computed(images: Tensor) -> Tensor:
        return activations(features, normalise, images, device, compute.autocast)

    with compute.autocast():
        n_bytes = bytes_of(features, normalise(parts.train.images[:1].to(device)), parts.n_images)
    in_the_loop = images_change(recipe) or n_bytes > compute.memory_bytes
    test_s = 0.0
    if in_the_loop:
        train = computed(parts.train.images)
    else:
        parts, test_s = parts.replaced(computed)
        train = parts.train.images
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(train.shape[1], n_classes)
    network = nn.Sequential(nn.Dropout(recipe.dropout), head)
    trainable = Trainable(network, "1")
    if not in_the_loop:
        scaled, _ = parts.replaced(lambda rows: (rows - mean) / std)
        return Learner(trainable, _unchanged, None, scaled, ONCE, (mean, std), test_s)
    centre, scale = mean.to(device), std.to(device)

    def run(inputs: Tensor) -> Tensor:
        logits: Tensor = network((features(inputs) - centre) / scale)
        return logits

    return Learner(trainable, normalise, run, parts, IN_THE_LOOP, (mean, std))


def fold_scaling(state: dict[str, Tensor], scaling: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Turn a head on standardised features into the same head on the features themselves."""
    mean, std = scaling
    weight = state["1.weight"] / std
    return {"weight": weight, "bias": state["1.bias"] - weight @ mean}


def _unchanged(inputs: Tensor) -> Tensor:
    return inputs
