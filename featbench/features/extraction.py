"""The extraction loop: one forward pass over a split for all layers asked for, streamed to the cache.

Networks run in eval mode, so batch norm uses its stored statistics and nothing in the network changes; images pass in
the order of the split, and rows, labels and ids stay together. While the network computes, threads decode what comes
next and another writes what is done. `featbench extract digits` runs this stage.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from featbench.backbones.identity import Identity, Layers
from featbench.backbones.layers import FeatureNetwork
from featbench.backbones.load import Backbone
from featbench.config import BackboneConfig
from featbench.data.loader import Batch, bad_image, image_shape, read_batches
from featbench.data.notes import add_notes
from featbench.data.splits import Dataset, Split
from featbench.errors import DataError, UsageError
from featbench.features.cache import CacheInfo, CacheKey, as_stored, read_info, write_cache, writing_to
from featbench.features.forward import Forward, Outputs, Precision, best_precision
from featbench.features.parts import PART_S, Part, Parts, remove_finished
from featbench.locks import wait_for
from featbench.progress import Progress

_PARTS_AHEAD = 4  # batches that may wait for the writer
_PIXELS_PER_BATCH = 3_200_000  # 64 images of 224x224: keeps the cores busy, and fits any machine's memory


@dataclass(frozen=True)
class Extraction:
    """How features are computed.

    Attributes:
        layers: Layers to cache.
        pooling: How their outputs become rows; None for pixels.
        precision: Of the forward pass.
        store: Of the cached numbers.
        batch_size: Images in a forward pass; None chooses by image size.
        device: Where the network runs.
        on_bad_image: What to do with an image that cannot be decoded.
        own_poolings: Pooling of those layers that need another than `pooling`; None is no pooling.
        part_s: Seconds after which what was computed is written to disk, so that a killed process loses no more.
    """

    layers: tuple[str, ...]
    pooling: str | None
    precision: Precision
    store: Literal["float32", "float16"]
    batch_size: int | None
    device: torch.device
    on_bad_image: Literal["skip", "error"]
    own_poolings: Mapping[str, str | None] = field(default_factory=dict)
    part_s: float = PART_S

    def pooling_of(self, layer: str) -> str | None:
        """Return the pooling of a layer; None where its output is a row of features already."""
        return self.own_poolings.get(layer, self.pooling)


def plan_extraction(
    config: BackboneConfig, device: torch.device, on_bad_image: Literal["skip", "error"], layers: Layers | None = None
) -> Extraction:
    """Make the `Extraction` of a `[[backbones]]` entry, with a value for each setting that is "auto".

    `layers` are those of the entry once they were looked up in its network, and how each is pooled; None takes them as
    the entry names them.
    """
    pixels = config.name == "pixels"
    return Extraction(
        layers=layers.names if layers else ("pixels",) if pixels else config.layers,
        own_poolings=layers.own_poolings if layers else {},
        pooling=None if pixels else config.pooling,
        precision="float32" if pixels else best_precision(device) if config.precision == "auto" else config.precision,
        store=config.store,
        batch_size=config.batch_size,
        device=device,
        on_bad_image=on_bad_image,
    )


def default_batch_size(image_shape: tuple[int, int, int]) -> int:
    """Return how many images of (C, h, w) go through a network at once."""
    return max(1, min(256, _PIXELS_PER_BATCH // (image_shape[1] * image_shape[2])))


def cache_keys(dataset: Dataset, identity: Identity, extraction: Extraction, cache_dir: Path) -> dict[str, CacheKey]:
    """Name the cache file of each split, from the bytes of its images to the weights of the network."""
    network = {
        "backbone": identity.name,
        "weights": identity.weights_hash,
        "preprocess": identity.preprocess.content(),
        # `tokens` is another where a network has more or fewer of them than one before the patches
        "pooling": max(filter(None, extraction.own_poolings.values()), default=extraction.pooling),
        "precision": extraction.precision,
        "store": extraction.store,
    }
    return {
        name: CacheKey(
            cache_dir,
            dataset.name,
            identity.name,
            name,
            {"format": 1, "split": name, "rows": split.digest(), **network},
        )
        for name, split in dataset.splits.items()
    }


def check_layers(backbone: Backbone, extraction: Extraction, split: Split) -> FeatureNetwork:
    """Refuse layers that do not exist or cannot be pooled so, before any work is done; else return their network.

    Raises:
        UsageError: A layer does not exist, or cannot be pooled so, or the images are too small for the network.
        WeightsError: A layer needs weights that the network does not have.
    """
    features = _features(backbone, extraction, extraction.layers, image_shape(split, backbone.preprocess))
    if extraction.pooling is not None and not any(map(extraction.pooling_of, extraction.layers)):
        raise UsageError(
            f"pooling {extraction.pooling!r} has no effect on {backbone.name}: {', '.join(extraction.layers)} is a "
            "vector; remove it, or name layers before"
        )
    return features


def extract_split(
    split: Split, backbone: Backbone, extraction: Extraction, key: CacheKey, progress: Progress
) -> CacheInfo:
    """Make sure that the cache has every layer of a split; compute those that are missing in one pass.

    The work of an interrupted process is continued, and the file ends the same as without an interruption.

    Raises:
        UsageError: A layer does not exist, or cannot be pooled so.
        WeightsError: A layer needs weights that the network does not have.
        DataError: No image can be decoded, or one cannot and `on_bad_image` is "error".
        CacheError: The cache is damaged, or cannot be written.
    """
    info = reuse_split(extraction, key, progress)
    if info is None:
        with _alone(key, progress):  # a second process waits, then finds the work done
            info = reuse_split(extraction, key, progress)
            if info is None:
                _extract(split, backbone, extraction, _missing(read_info(key.path), extraction), key, progress)
                info = _checked(read_info(key.path), extraction)
                assert info is not None  # just written
    return info


def reuse_split(extraction: Extraction, key: CacheKey, progress: Progress) -> CacheInfo | None:
    """Return what the cache file of a split says where it has every layer; None where one is missing.

    The file never changes under its name, so that takes no lock, nor a disk that can be written.

    Raises:
        DataError: An image could not be decoded, and `on_bad_image` is "error".
        CacheError: The cache is damaged.
    """
    info = read_info(key.path)
    if info is None or _missing(info, extraction):
        return None
    progress.say(f"{key.backbone} {key.split}: reused {key.path}")
    remove_finished(key, info.widths)
    with suppress(OSError):  # a cache that others may only read is as good
        os.utime(key.path)  # `cache prune` goes by the last use
    return _checked(info, extraction)


def _checked(info: CacheInfo | None, extraction: Extraction) -> CacheInfo | None:
    if info is not None and info.skipped and extraction.on_bad_image == "error":
        raise bad_image(*info.skipped[0])
    return info


def _missing(info: CacheInfo | None, extraction: Extraction) -> list[str]:
    return [layer for layer in extraction.layers if info is None or layer not in info.widths]


@contextmanager
def _alone(key: CacheKey, progress: Progress) -> Iterator[None]:
    with writing_to(key.path):
        key.path.parent.mkdir(parents=True, exist_ok=True)
        lock = wait_for(key.path.with_suffix(".lock"), lambda why: progress.say(f"{key.backbone} {key.split}: {why}"))
    try:
        yield
    finally:
        lock.release()


def _extract(
    split: Split,
    backbone: Backbone,
    extraction: Extraction,
    layers: Sequence[str],
    key: CacheKey,
    progress: Progress,
) -> None:
    shape = image_shape(split, backbone.preprocess)
    features = _features(backbone, extraction, layers, shape)
    batch_size = extraction.batch_size or default_batch_size(shape)
    with Parts(key, layers, part_s=extraction.part_s) as parts:
        done = parts.next_row
        if done:
            progress.say(f"{backbone.name} {split.name}: goes on from image {done:,} of {len(split):,}")
        forward = Forward(
            features,
            backbone.preprocess,
            device=extraction.device,
            precision=extraction.precision,
            batch_size=batch_size,
            image_shape=shape,
            n_images=len(split),
            progress=progress,
        )
        with progress.bar(f"{backbone.name} {split.name}", len(split)) as advance:
            advance(done, "")
            with _writing(parts, extraction.store) as write:
                for batch in _batches(split, done, backbone, batch_size, extraction):
                    write(batch, forward.start(batch.images))
                    advance(len(batch.rows) + len(batch.skipped), "")
        _finish(parts, split, key, dict(zip(features.layers, features.widths, strict=True)), extraction.store)


def _batches(split: Split, start: int, backbone: Backbone, batch_size: int, extraction: Extraction) -> Iterator[Batch]:
    """Yield the batches from an image on, with the rows of the whole split."""
    rest = split.subset(np.arange(start, len(split))) if start else split
    for batch in read_batches(
        rest, backbone.preprocess, batch_size, on_bad_image=extraction.on_bad_image, device=extraction.device
    ):
        yield replace(batch, rows=batch.rows + start)


@contextmanager
def _writing(parts: Parts, store: str) -> Iterator[Callable[[Batch, Callable[[], Outputs]], None]]:
    """Yield a function that hands a batch and its coming features to the thread that writes."""
    began_s = time.perf_counter()
    ahead: deque[Future[None]] = deque()

    def add(batch: Batch, outputs: Callable[[], Outputs]) -> None:
        nonlocal began_s
        features = {layer: as_stored(layer, rows, store) for layer, rows in outputs().items()}
        now_s = time.perf_counter()
        stop = parts.next_row + len(batch.rows) + len(batch.skipped)
        skipped = [(image.id, image.reason) for image in batch.skipped]
        parts.add(Part(parts.next_row, stop, batch.rows, features, skipped, now_s - began_s, batch.notes))
        began_s = now_s

    def write(batch: Batch, outputs: Callable[[], Outputs]) -> None:
        ahead.append(thread.submit(add, batch, outputs))
        if len(ahead) > _PARTS_AHEAD:
            ahead.popleft().result()

    with ThreadPoolExecutor(1) as thread:
        try:
            yield write
            for part in ahead:
                part.result()
        finally:
            thread.shutdown(cancel_futures=True)


def _finish(parts: Parts, split: Split, key: CacheKey, widths: dict[str, int], store: str) -> None:
    skipped: list[tuple[str, str]] = []
    seconds, notes = 0.0, add_notes()
    with write_cache(key, widths, store) as file:
        for part in parts.read():
            file.append(part.features, split.labels[part.rows], [split.ids[row] for row in part.rows])
            skipped += part.skipped
            seconds += part.seconds
            notes = add_notes(notes, part.notes)
        if len(skipped) == len(split):
            raise DataError(f"none of the {len(split)} images of {split.name} can be read; first: {skipped[0][1]}")
        file.finish(key, skipped, seconds, notes)
    parts.remove()


def _features(
    backbone: Backbone, extraction: Extraction, layers: Sequence[str], image_shape: tuple[int, int, int]
) -> FeatureNetwork:
    return backbone.features(layers, extraction.pooling or "flatten", image_shape)
