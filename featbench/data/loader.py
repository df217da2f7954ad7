"""Decoding ahead of the network: batches of uint8 images in the order of the split.

Images are decoded on threads, not on worker processes: Pillow releases the interpreter lock while it decodes and
resizes, so that threads use all cores as well, and nothing is copied between processes or forked under a running
network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from featbench.data.decode import UnreadableImageError
from featbench.data.images import ArrayImages, Indices, LazyImages
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Skipped, Split
from featbench.errors import DataError

_BATCHES_AHEAD = 3
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """One batch: `rows` (B,) int64 of the split, ascending; `images` (B, C, h, w) uint8; and what was left out."""

    rows: Indices
    images: Tensor
    skipped: tuple[Skipped, ...] = ()


def read_batches(
    split: Split,
    preprocess: Preprocess,
    batch_size: int,
    *,
    on_bad_image: Literal["skip", "error"] = "skip",
    threads: int | None = None,
    device: torch.device = _CPU,
) -> Iterator[Batch]:
    """Yield the split's images in batches, in order; a batch is short by the images that cannot be decoded.

    Arrays are resized on the device, and their batches stay there; decoded images come on the CPU.

    Raises:
        DataError: An image cannot be decoded and `on_bad_image` is "error".
    """
    if isinstance(split.images, ArrayImages):
        yield from _array_batches(split.images, preprocess, batch_size, device)
        return
    for batch in _decoded_batches(split, split.images, preprocess, batch_size, threads):
        if batch.skipped and on_bad_image == "error":
            raise bad_image(batch.skipped[0].id, batch.skipped[0].reason)
        yield batch


def bad_image(image: str, reason: str) -> DataError:
    """Make the error of an image that cannot be read."""
    return DataError(f'image {image} cannot be read: {reason} (on_bad_image = "skip" leaves such out)')


def image_shape(split: Split, preprocess: Preprocess) -> tuple[int, int, int]:
    """Return (C, h, w) of the split's images after they are fitted."""
    if isinstance(split.images, ArrayImages):
        first = next(_array_batches(split.images.subset(np.arange(1)), preprocess, 1, _CPU)).images
        return first.shape[1], first.shape[2], first.shape[3]
    return preprocess.channels, preprocess.crop_px, preprocess.crop_px


def read_all(split: Split, preprocess: Preprocess, *, on_bad_image: Literal["skip", "error"] = "skip") -> Batch:
    """Decode the whole split into memory."""
    batches = list(read_batches(split, preprocess, 256, on_bad_image=on_bad_image))
    return Batch(
        np.concatenate([batch.rows for batch in batches]),
        torch.cat([batch.images for batch in batches]),
        tuple(chain.from_iterable(batch.skipped for batch in batches)),
    )


def _array_batches(
    images: ArrayImages, preprocess: Preprocess, batch_size: int, device: torch.device
) -> Iterator[Batch]:
    parts = torch.get_num_threads() if device.type == "cpu" else 1  # torch resizes bytes on one core
    with ThreadPoolExecutor(parts) as pool:
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(images.pixels[start : start + batch_size]).permute(0, 3, 1, 2).to(device)
            fitted = torch.cat(list(pool.map(preprocess.fit_batch, pixels.chunk(parts))))
            yield Batch(np.arange(start, start + len(pixels)), fitted)


def _decoded_batches(
    split: Split, images: LazyImages, preprocess: Preprocess, batch_size: int, threads: int | None
) -> Iterator[Batch]:
    def decode(row: int) -> Tensor | str:
        try:
            return preprocess.fit_image(images.read(row))
        except UnreadableImageError as error:
            return str(error)

    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[tuple[int, ...], list[Future[Tensor | str]]]] = deque()
        try:
            for rows in _chunks(len(split), batch_size):
                ahead.append((rows, [pool.submit(decode, row) for row in rows]))
                if len(ahead) > _BATCHES_AHEAD:
                    yield _assemble(split, preprocess, *ahead.popleft())
            while ahead:
                yield _assemble(split, preprocess, *ahead.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _assemble(
    split: Split, preprocess: Preprocess, rows: tuple[int, ...], decoded: list[Future[Tensor | str]]
) -> Batch:
    kept: list[int] = []
    images: list[Tensor] = []
    skipped: list[Skipped] = []
    for row, future in zip(rows, decoded, strict=True):
        image = future.result()
        if isinstance(image, str):
            skipped.append(Skipped(split.name, split.ids[row], image))
        else:
            kept.append(row)
            images.append(image)
    blank = torch.empty((0, preprocess.channels, preprocess.crop_px, preprocess.crop_px), dtype=torch.uint8)
    # decoded images have their channels last; in a batch that has them last, too, no byte changes its place
    batch = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2) if images else blank
    return Batch(np.asarray(kept, np.int64), batch, tuple(skipped))


def _chunks(count: int, size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, count, size):
        yield tuple(range(start, min(start + size, count)))
