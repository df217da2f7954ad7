"""The extraction loop: one forward pass over a split for all layers asked for, streamed to the cache.

Networks run in eval mode, so batch norm uses its stored statistics and nothing in the network changes; images pass in
the order of the split, and rows, labels and ids stay together. `featbench extract digits` runs this stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock

from featbench.backbones.layers import FeatureNetwork
from featbench.backbones.load import Backbone
from featbench.config import BackboneConfig
from featbench.data.loader import Batch, image_shape, read_batches
from featbench.data.splits import Dataset, Split
from featbench.errors import CacheError, DataError
from featbench.features.cache import CacheInfo, CacheKey, CacheWriter, read_info, write_cache
from featbench.progress import Progress

_PIXELS_PER_BATCH = 3_200_000  # 64 images of 224x224: enough to keep the cores busy, small enough for any machine


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
    """

    layers: tuple[str, ...]
    pooling: str | None
    precision: Literal["float32", "bfloat16"]
    store: Literal["float32", "float16"]
    batch_size: int | None
    device: torch.device
    on_bad_image: Literal["skip", "error"]


def plan_extraction(config: BackboneConfig, device: torch.device, on_bad_image: Literal["skip", "error"]) -> Extraction:
    """Settle what a `[[backbones]]` entry leaves open."""
    pixels = config.name == "pixels"
    return Extraction(
        layers=("pixels",) if pixels else config.layers,
        pooling=None if pixels else config.pooling,
        precision="bfloat16" if config.precision == "bfloat16" else "float32",
        store=config.store,
        batch_size=config.batch_size,
        device=device,
        on_bad_image=on_bad_image,
    )


def cache_keys(dataset: Dataset, backbone: Backbone, extraction: Extraction, cache_dir: Path) -> dict[str, CacheKey]:
    """Name the cache file of each split, from the bytes of its images to the weights of the network."""
    network = {
        "backbone": backbone.name,
        "weights": backbone.weights_hash(),
        "preprocess": backbone.preprocess.content(),
        "pooling": extraction.pooling,
        "precision": extraction.precision,
        "store": extraction.store,
    }
    return {
        name: CacheKey(
            cache_dir,
            dataset.name,
            backbone.name,
            name,
            {"format": 1, "split": name, "rows": split.digest(), **network},
        )
        for name, split in dataset.splits.items()
    }


def check_layers(backbone: Backbone, extraction: Extraction, split: Split) -> None:
    """Refuse layers that do not exist or cannot be pooled so, before any work is done.

    Raises:
        UsageError: A layer does not exist, or cannot be pooled so, or the images are too small for the network.
        WeightsError: A layer needs weights that the network does not have.
    """
    _features(backbone, extraction, extraction.layers, image_shape(split, backbone.preprocess))


def extract_split(
    split: Split, backbone: Backbone, extraction: Extraction, key: CacheKey, progress: Progress
) -> CacheInfo:
    """Make sure that the cache has every layer of a split; compute those that are missing in one pass.

    Raises:
        UsageError: A layer does not exist, or cannot be pooled so.
        WeightsError: A layer needs weights that the network does not have.
        DataError: No image can be decoded, or one cannot and `on_bad_image` is "error".
        CacheError: The cache is damaged, or cannot be written.
    """
    with _locked(key):  # a second process waits, then finds the work done
        info = read_info(key.path)
        missing = [layer for layer in extraction.layers if info is None or layer not in info.widths]
        if info is not None and not missing:
            progress.say(f"{backbone.name} {split.name}: reused {key.path}")
            return info
        _extract(split, backbone, extraction, missing, key, progress)
    info = read_info(key.path)
    assert info is not None  # just written
    return info


def _locked(key: CacheKey) -> AbstractContextManager[object]:
    try:
        key.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(key.path.with_suffix(".lock")).acquire()
    except OSError as error:
        raise CacheError(f"the cache {key.path.parent} cannot be written: {error}; use another --cache") from error


def _extract(
    split: Split,
    backbone: Backbone,
    extraction: Extraction,
    layers: Sequence[str],
    key: CacheKey,
    progress: Progress,
) -> None:
    started_s = time.perf_counter()
    shape = image_shape(split, backbone.preprocess)
    features = _features(backbone, extraction, layers, shape)
    network = features.module.to(extraction.device).to(memory_format=torch.channels_last)
    batch_size = extraction.batch_size or max(1, min(256, _PIXELS_PER_BATCH // (shape[1] * shape[2])))
    widths = dict(zip(features.layers, features.widths, strict=True))
    skipped: list[tuple[str, str]] = []
    with (
        write_cache(key, widths, extraction.store) as writer,
        progress.bar(f"{backbone.name} {split.name}", len(split)) as advance,
    ):
        for batch in read_batches(split, backbone.preprocess, batch_size, on_bad_image=extraction.on_bad_image):
            skipped += [(image.id, image.reason) for image in batch.skipped]
            if len(batch.rows):
                _append(writer, network, split, batch, backbone, extraction, features.layers)
            advance(len(batch.rows) + len(batch.skipped), "")
        if len(skipped) == len(split):
            raise DataError(f"none of the {len(split)} images of {split.name} can be read; first: {skipped[0][1]}")
        writer.finish(key, skipped, time.perf_counter() - started_s)


def _features(
    backbone: Backbone, extraction: Extraction, layers: Sequence[str], image_shape: tuple[int, int, int]
) -> FeatureNetwork:
    return backbone.features(layers, extraction.pooling or "flatten", image_shape)


def _append(
    writer: CacheWriter,
    network: torch.nn.Module,
    split: Split,
    batch: Batch,
    backbone: Backbone,
    extraction: Extraction,
    layers: tuple[str, ...],
) -> None:
    device = extraction.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=extraction.precision == "bfloat16")
    with torch.inference_mode(), autocast:
        images = backbone.preprocess.normalise(batch.images.to(device))
        outputs = network(images.contiguous(memory_format=torch.channels_last))
    rows = {layer: output.float().cpu().numpy() for layer, output in zip(layers, outputs, strict=True)}
    writer.append(rows, split.labels[batch.rows], [split.ids[row] for row in batch.rows])
