"""Where the images of a split come from: an array in memory, files, or the items of a torchvision data set."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.datasets import FakeData

from featbench.data.decode import UnreadableImageError, decode_file, reading, to_rgb
from featbench.data.hashes import NO_BYTES, hash_files
from featbench.fingerprint import fingerprint, hash_array

Indices = npt.NDArray[np.int64]
Hashes = tuple[str | None, ...]
"""A hash of each image's content; None where there is none to compare."""

_DECODING = "decoding 3"  # another number whenever the same file gives other pixels, resized ones included
_ITEM_LOCK = threading.Lock()  # FakeData draws every image from torch's one global generator


class LazyImages(ABC):
    """Images that are decoded one by one from `items`; the rest of a subclass's fields are the same for a subset."""

    items: Any

    def __len__(self) -> int:
        return len(self.items)

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Decode one image as RGB, turned upright where its EXIF data says so.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """

    def subset(self, indices: Indices) -> Self:
        """Return the images with these numbers, in this order."""
        return replace(self, items=tuple(self.items[index] for index in indices))  # type: ignore[type-var]

    @abstractmethod
    def hashes(self) -> Hashes:
        """Hash the content of each image: equal hashes are equal images."""

    @abstractmethod
    def digest(self) -> str:
        """Hash the content of every image, in order."""


@dataclass(frozen=True)
class ArrayImages:
    """Images of one size in memory: `pixels` (N, H, W, C) uint8, where C is 1 (grey) or 3 (RGB)."""

    pixels: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 4, self.pixels.shape
        assert self.pixels.shape[3] in (1, 3), self.pixels.shape
        assert self.pixels.dtype == np.uint8, self.pixels.dtype

    def __len__(self) -> int:
        return len(self.pixels)

    def subset(self, indices: Indices) -> ArrayImages:
        """Return the images with these numbers, in this order."""
        return ArrayImages(self.pixels[indices])

    def hashes(self) -> Hashes:
        """Hash the pixels of each image."""
        return tuple(hashlib.sha256(image).hexdigest() for image in np.ascontiguousarray(self.pixels))

    def digest(self) -> str:
        """Hash every pixel."""
        return hash_array(self.pixels)


@dataclass(frozen=True)
class FileImages(LazyImages):
    """Image files: `items` are their paths; `memo` is where their hashes are remembered, if anywhere."""

    items: tuple[str, ...]
    memo: Path | None = None

    def read(self, index: int) -> Image.Image:
        """Decode one file."""
        return decode_file(Path(self.items[index]))

    def hashes(self) -> Hashes:
        """Hash the bytes of each file; those that cannot be opened have no hash."""
        return tuple(None if hashed.startswith(NO_BYTES) else hashed for hashed in self._hashes)

    def digest(self) -> str:
        """Hash the bytes of every file."""
        return fingerprint([_DECODING, *self._hashes])

    @cached_property
    def _hashes(self) -> tuple[str, ...]:
        return hash_files(self.items, self.memo)


@dataclass(frozen=True)
class ItemImages(LazyImages):
    """A torchvision data set that is neither an array nor a list of files: `items` are numbers of images in it."""

    dataset: Any
    items: Sequence[int]

    def read(self, index: int) -> Image.Image:
        """Decode one item."""
        with reading(), _ITEM_LOCK if isinstance(self.dataset, FakeData) else nullcontext():
            return to_rgb(self.dataset[int(self.items[index])][0])

    def hashes(self) -> Hashes:
        """Hash the pixels of each item; those that cannot be decoded have no hash."""
        return self._hashes

    def digest(self) -> str:
        """Hash the pixels of every item; there are no files to read instead."""
        return fingerprint([_DECODING, *self._hashes])

    @cached_property
    def _hashes(self) -> Hashes:
        return tuple(map(self._hash, range(len(self))))

    def _hash(self, index: int) -> str | None:
        try:
            return hash_array(np.asarray(self.read(index)))
        except UnreadableImageError:
            return None


def gather_array(pixels: Any) -> ArrayImages:
    """Wrap a uint8 array or tensor of shape (N, H, W), (N, H, W, 3) or (N, 3, H, W)."""
    array = np.asarray(pixels)
    if array.ndim == 3:
        array = array[..., np.newaxis]
    elif array.shape[1] == 3 and array.shape[3] != 3:
        array = array.transpose(0, 2, 3, 1)
    return ArrayImages(np.ascontiguousarray(array))


def file_images(paths: Sequence[str | Path]) -> FileImages:
    """Wrap paths."""
    return FileImages(tuple(map(str, paths)))
