"""The features of images that are not cached: one forward pass a backbone, for all of its layers that are needed.

Each image is decoded once for all backbones. A GPU works on the next batch, and threads decode those after it, while
the caller is busy with one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from featbench.backbones.layers import FeatureNetwork
from featbench.data.loader import Batch, read_together
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split
from featbench.features.extraction import default_batch_size
from featbench.features.forward import Forward, Outputs, Precision
from featbench.progress import Progress


@dataclass(frozen=True)
class Pass:
    """A network, what its images go through before and are shaped like then, and the precision of its forward pass."""

    features: FeatureNetwork
    preprocess: Preprocess
    precision: Precision
    image_shape: tuple[int, int, int]


class Passes:
    """Runs images through networks, batch by batch.

    Args:
        passes: The networks.
        device: Where they run.
        batch_size: Images in a forward pass; None chooses by the size of the images.
    """

    def __init__(self, passes: Sequence[Pass], device: torch.device, batch_size: int | None = None) -> None:
        self._passes = tuple(passes)
        self._device = device
        self._preprocesses = list(dict.fromkeys(each.preprocess for each in passes))
        self._batch_size = batch_size or min(default_batch_size(each.image_shape) for each in passes)
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
                batch, outputs = started.popleft()
                yield batch, [wait() for wait in outputs]
        for batch, outputs in started:
            yield batch, [wait() for wait in outputs]

    def _forwards_for(self, n_images: int, progress: Progress) -> list[Forward]:
        """Return what runs the networks; more images than before may pay for compiling them."""
        for number, each in enumerate(self._passes if n_images > self._n_images else ()):
            if number not in self._forwards or not self._forwards[number].compiled:
                self._forwards[number] = Forward(
                    each.features,
                    each.preprocess,
                    device=self._device,
                    precision=each.precision,
                    batch_size=self._batch_size,
                    image_shape=each.image_shape,
                    n_images=n_images,
                    progress=progress,
                    forget=not any(forward.compiled for forward in self._forwards.values()),
                )
        self._n_images = max(n_images, self._n_images)
        return list(self._forwards.values())
