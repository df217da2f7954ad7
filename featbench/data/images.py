"""Where the images of a split come from: an array in memory, files, or the items of a torchvision data set."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from featbench.fingerprint import fingerprint, hash_array, hash_file

Indices = npt.NDArray[np.int64]

# what Pillow raises depends on where in a damaged file it stumbles
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
_ITEM_LOCK = threading.Lock()  # FakeData draws every image from torch's one global generator


class UnreadableImageError(Exception):
    """One image cannot be decoded; the message is the reason."""


class LazyImages(Protocol):
    """Images that are decoded one by one."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, index: int) -> Image.Image:
        """Decode one image, in mode RGB.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        ...

    def subset(self, indices: Indices) -> LazyImages:
        """Return the images with these numbers, in this order."""
        ...

    def digest(self) -> str:
        """Hash the content of every image, in order."""
        ...


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

    def digest(self) -> str:
        """Hash every pixel."""
        return hash_array(self.pixels)


@dataclass(frozen=True)
class FileImages:
    """Image files."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Image.Image:
        """Decode one file as RGB, turned upright where its EXIF data says so."""
        try:
            with Image.open(self.paths[index]) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
        except _DAMAGE as error:
            # a path in the message would name this machine's folders in skipped.csv
            reason = str(error).replace(str(self.paths[index]), self.paths[index].name)
            raise UnreadableImageError(reason or type(error).__name__) from error

    def subset(self, indices: Indices) -> FileImages:
        """Return the files with these numbers, in this order."""
        return FileImages(tuple(self.paths[index] for index in indices))

    def digest(self) -> str:
        """Hash the bytes of every file."""
        with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
            return fingerprint(list(pool.map(_hash_or_reason, self.paths)))


@dataclass(frozen=True)
class ItemImages:
    """Items of a torchvision data set that is neither an array nor a list of files."""

    dataset: Any
    items: Indices

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> Image.Image:
        """Decode one item as RGB."""
        try:
            with _ITEM_LOCK:
                image: Image.Image = self.dataset[int(self.items[index])][0]
            return image.convert("RGB")
        except _DAMAGE as error:
            raise UnreadableImageError(str(error) or type(error).__name__) from error

    def subset(self, indices: Indices) -> ItemImages:
        """Return the items with these numbers, in this order."""
        return ItemImages(self.dataset, self.items[indices])

    def digest(self) -> str:
        """Hash the pixels of every item; there are no files to read instead."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            try:
                image = self.read(index)
            except UnreadableImageError:
                digest.update(b"unreadable")
                continue
            digest.update(f"{image.size}".encode() + image.tobytes())
        return digest.hexdigest()


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
    return FileImages(tuple(Path(path) for path in paths))


def _hash_or_reason(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"
