"""What a model looks at images with: one forward pass a backbone, for all of its layers that are needed.

Each image is decoded once for all backbones. A GPU works on the next batch, and threads decode those after it, while
one is scored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from featbench.backbones.layers import FeatureNetwork
from featbench.data.loader import Batch, read_together
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split
from featbench.features.extraction import default_batch_size
from featbench.features.forward import Forward, Outputs, Precision
from featbench.predict.networks import card_preprocess, trained_backbone
from featbench.progress import Progress
from featbench.results.cards import Card


@dataclass(frozen=True)
class Pass:
    """A network, what its images go through before, and the precision of its forward pass."""

    features: FeatureNetwork
    preprocess: Preprocess
    precision: Precision


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
        passes.append(Pass(features, preprocess, parts[0].precision))
    return passes, [number for part in card.parts for number, parts in enumerate(groups.values()) if part in parts]


class Passes:
    """Runs images through networks, batch by batch.

    Args:
        passes: The networks.
        device: Where they run.
    """

    def __init__(self, passes: Sequence[Pass], device: torch.device) -> None:
        self._passes = tuple(passes)
        self._device = device
        self._preprocesses = list(dict.fromkeys(each.preprocess for each in passes))
        self._batch_size = min(default_batch_size(each.preprocess.photo_shape) for each in passes)
        self._forwards: dict[int, Forward] = {}
        self._n_images = 0

    def stream(self, images: Split, progress: Progress) -> Iterator[tuple[Batch, list[Outputs]]]:
        """Yield each batch with the features of each pass; see `Forward.start`."""
        forwards = self._forwards_for(len(images), progress)
        started: deque[tuple[Batch, list[Callable[[], Outputs]]]] = deque()
        for batches in read_together(images, self._preprocesses, self._batch_size, device=self._device):
            fitted = dict(zip(self._preprocesses, batches, strict=True))
            outputs = [
                forward.start(fitted[each.preprocess].images)
                for each, forward in zip(self._passes, forwards, strict=True)
            ]
            started.append((batches[0], outputs))
            if len(started) > 1:  # a GPU is at the next batch while this one is scored
                yield _finish(*started.popleft())
        for batch, outputs in started:
            yield _finish(batch, outputs)

    def _forwards_for(self, n_images: int, progress: Progress) -> list[Forward]:
        """Return what runs the networks; a longer job than before may pay for compiling them."""
        for number, each in enumerate(self._passes if n_images > self._n_images else ()):
            if number not in self._forwards or not self._forwards[number].compiled:
                self._forwards[number] = Forward(
                    each.features,
                    each.preprocess,
                    device=self._device,
                    precision=each.precision,
                    batch_size=self._batch_size,
                    image_shape=each.preprocess.photo_shape,
                    n_images=n_images,
                    progress=progress,
                    forget=not any(forward.compiled for forward in self._forwards.values()),
                )
        self._n_images = max(n_images, self._n_images)
        return list(self._forwards.values())


def _finish(batch: Batch, outputs: Sequence[Callable[[], Outputs]]) -> tuple[Batch, list[Outputs]]:
    return batch, [wait() for wait in outputs]
