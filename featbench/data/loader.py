"""Decoding ahead of the network: batches of uint8 images in the order of the split.

Images are decoded on threads, not on worker processes: Pillow releases the interpreter lock while it decodes and
resizes, so that threads use all cores as well, and nothing is copied between processes or forked under a running
network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from joblib import cpu_count
from torch import Tensor

from featbench.data.decode import NOTE, UnreadableImageError
from featbench.data.images import ArrayImages, Indices, LazyImages
from featbench.data.notes import CONSTANT, Notes, add_notes, count_notes
from featbench.data.preprocess import Preprocess
from featbench.data.room import ROOM
from featbench.data.splits import Skipped, Split
from featbench.errors import DataError

_BATCHES_AHEAD = 3
_CPU = torch.device("cpu")
_NEARLY_CONSTANT = 3  # of 255
_GRID_PX = 16  # side of a coarse grid; most images differ there already, and need no closer look
_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Outcome:
    """The outcome of decoding one image: why it was skipped, or a kind of `NOTES`, or neither."""

    reason: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Batch:
    """One batch: `rows` (B,) int64 of the split, ascending; `images` (B, C, h, w) uint8; skipped images; notes."""

    rows: Indices
    images: Tensor
    skipped: tuple[Skipped, ...] = ()
    notes: Notes = field(default_factory=dict)


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

    See `read_together` for where arrays are resized, and when the next images are decoded.

    Raises:
        DataError: An image cannot be decoded and `on_bad_image` is "error".
    """
    for (batch,) in read_together(
        split, (preprocess,), batch_size, on_bad_image=on_bad_image, threads=threads, device=device
    ):
        yield batch


def read_together(
    split: Split,
    preprocesses: Sequence[Preprocess],
    batch_size: int,
    *,
    on_bad_image: Literal["skip", "error"] = "skip",
    threads: int | None = None,
    device: torch.device = _CPU,
) -> Iterator[list[Batch]]:
    """Do as `read_batches` for several preprocessings, but decode each image once: a batch for each, of the same rows.

    Arrays are resized on the device, and their batches stay there; decoded images come on the CPU. Where the network
    runs on the CPU too, decoding and the network take turns: decoding threads would keep the network's threads waiting.

    Raises:
        DataError: An image cannot be decoded and `on_bad_image` is "error".
    """
    if isinstance(split.images, ArrayImages):
        each = [_array_batches(split, split.images, preprocess, batch_size, device) for preprocess in preprocesses]
        yield from map(list, zip(*each, strict=True))
        return
    ahead = 0 if device.type == "cpu" else _BATCHES_AHEAD
    for batches in _decoded_batches(split, split.images, preprocesses, batch_size, threads or cpu_count(), ahead):
        skipped = batches[0].skipped
        if skipped and on_bad_image == "error":
            raise bad_image(skipped[0].id, skipped[0].reason)
        yield batches


def bad_image(image: str, reason: str) -> DataError:
    """Make the error of an image that cannot be read."""
    return DataError(f'image {image} cannot be read: {reason} (on_bad_image = "skip" skips such images)')


def image_shape(split: Split, preprocess: Preprocess) -> tuple[int, int, int]:
    """Return (C, h, w) of the split's images after they are fitted."""
    if isinstance(split.images, ArrayImages):
        one = split.subset(np.arange(1))
        first = next(_array_batches(one, split.images.subset(np.arange(1)), preprocess, 1, _CPU)).images
        return first.shape[1], first.shape[2], first.shape[3]
    return preprocess.photo_shape


def read_all(split: Split, preprocess: Preprocess, *, on_bad_image: Literal["skip", "error"] = "skip") -> Batch:
    """Decode the whole split into memory."""
    batches = list(read_batches(split, preprocess, 256, on_bad_image=on_bad_image))
    return Batch(
        np.concatenate([batch.rows for batch in batches]),
        torch.cat([batch.images for batch in batches]),
        tuple(chain.from_iterable(batch.skipped for batch in batches)),
        add_notes(*(batch.notes for batch in batches)),
    )


def _array_batches(
    split: Split, images: ArrayImages, preprocess: Preprocess, batch_size: int, device: torch.device
) -> Iterator[Batch]:
    parts = torch.get_num_threads() if device.type == "cpu" else 1  # torch resizes bytes on one core
    with ThreadPoolExecutor(parts) as pool:
        for start in range(0, len(images), batch_size):
            pixels = torch.from_numpy(images.pixels[start : start + batch_size]).permute(0, 3, 1, 2).to(device)
            fitted = torch.cat(list(pool.map(preprocess.fit_batch, pixels.chunk(parts))))
            rows = np.arange(start, start + len(pixels))
            yield Batch(rows, fitted, notes=_notes(split, rows, fitted, {}))


def _decoded_batches(
    split: Split,
    images: LazyImages,
    preprocesses: Sequence[Preprocess],
    batch_size: int,
    threads: int,
    ahead: int,
) -> Iterator[list[Batch]]:
    def fit(row: int, places: Sequence[_Pixels]) -> _Outcome:
        image = images.read(row)
        for preprocess, place in zip(preprocesses, places, strict=True):
            place[:] = preprocess.fit_image(image).permute(1, 2, 0).numpy()
        return _Outcome(note=image.info.get(NOTE))

    def decode(row: int, places: Sequence[_Pixels]) -> _Outcome:
        try:
            with ROOM.in_use():
                return fit(row, places)  # a function of its own, so that the image is gone when it ends
        except UnreadableImageError as error:
            return _Outcome(reason=str(error))

    shapes = [preprocess.photo_shape for preprocess in preprocesses]
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Indices, list[_Pixels], list[Future[_Outcome]]]] = deque()
        try:
            for start in range(0, len(split), batch_size):
                rows = np.arange(start, min(start + batch_size, len(split)))
                pixels = [np.empty((len(rows), *size, channels), np.uint8) for channels, *size in shapes]
                decoding = [pool.submit(decode, int(row), [of[i] for of in pixels]) for i, row in enumerate(rows)]
                waiting.append((rows, pixels, decoding))
                if len(waiting) > ahead:
                    yield _assemble(split, *waiting.popleft())
            while waiting:
                yield _assemble(split, *waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _assemble(split: Split, rows: Indices, pixels: list[_Pixels], waiting: list[Future[_Outcome]]) -> list[Batch]:
    """Wait for a batch; its pixels keep their channels last in memory, as networks want them."""
    outcomes = {int(row): each.result() for row, each in zip(rows, waiting, strict=True)}
    failed = {row: each.reason for row, each in outcomes.items() if each.reason is not None}
    if failed:
        good = np.isin(rows, list(failed), invert=True)
        rows, pixels = rows[good], [of[good] for of in pixels]
    skipped = tuple(Skipped(split.name, split.ids[row], why) for row, why in failed.items())
    images = [torch.from_numpy(of).permute(0, 3, 1, 2) for of in pixels]
    notes = _notes(split, rows, images[0], {row: each.note for row, each in outcomes.items() if each.note})
    return [Batch(rows, of, skipped, notes) for of in images]


def _notes(split: Split, rows: Indices, images: Tensor, decoded: Mapping[int, str]) -> Notes:
    """Count the notes of a batch; `decoded` has those of decoding. An image of one colour has that note alone."""
    plain = {int(rows[number]): CONSTANT for number in nearly_constant(images)}
    return count_notes((kind, split.ids[row]) for row, kind in sorted(({**decoded, **plain}).items()))


def nearly_constant(images: Tensor) -> list[int]:
    """Find images of (nearly) one colour among (B, C, h, w) uint8, and return their numbers.

    A wrong bit depth, a covered lens or a damaged disk makes such images.
    """
    if not images.numel():
        return []
    steps = [max(1, side // _GRID_PX) for side in images.shape[2:]]
    doubtful = torch.nonzero(_plain(images[:, :, :: steps[0], :: steps[1]])).flatten()
    return [int(number) for number in doubtful if _plain(images[number : number + 1]).item()]


def _plain(images: Tensor) -> Tensor:
    difference = images.amax((2, 3)) - images.amin((2, 3))
    return (difference <= _NEARLY_CONSTANT).all(1)
