"""Images given to a call from Python: files, PIL images, arrays and tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from featbench.data.decode import decode_bytes, decode_file, reading, to_rgb
from featbench.data.images import ArrayImages, Hashes, LazyImages
from featbench.data.names import plain_name, url_of
from featbench.data.splits import Split
from featbench.errors import UsageError

ImageLike = str | os.PathLike[str] | bytes | bytearray | IO[bytes] | Image.Image | npt.NDArray[Any] | Tensor
_ONE = (str, os.PathLike, bytes, bytearray, Image.Image)
_ALLOWED = (
    "an image is a path, the bytes of a file, a file open in binary mode, a PIL image, an array (H, W), (H, W, 1) or "
    "(H, W, 3), or a tensor (1, H, W) or (3, H, W); many are a sequence of these, an array of paths (N,), an array "
    "(N, H, W, 1 or 3) or a tensor (N, 1 or 3, H, W)"
)


@dataclass(frozen=True)
class GivenImages(LazyImages):
    """Images of a call: paths, PIL images, and the bytes of files."""

    items: tuple[Path | Image.Image | bytes, ...]

    def read(self, index: int) -> Image.Image:
        """Decode one image."""
        item = self.items[index]
        if isinstance(item, Path):
            return decode_file(item)
        if isinstance(item, bytes):
            return decode_bytes(item)
        with reading():
            return to_rgb(item.copy())  # the caller's stays as it is

    def hashes(self) -> Hashes:
        """Return no hashes: new images are not searched for duplicates."""
        return (None,) * len(self)

    def digest(self) -> str:
        """Refuse: features of these images are not cached."""
        raise NotImplementedError


def as_split(images: ImageLike | Iterable[ImageLike]) -> Split:
    """Take one image or many, in any of the forms that `Model` documents.

    Raises:
        UsageError: The shape, dtype, range or type of one is wrong.
    """
    return _split_of_items(_each(images))


def as_rows(images: Any) -> Split:
    """Take the images of a call of scikit-learn's, a row each.

    An array (N, H, W), (N, H, W, 1) or (N, H, W, 3) or a tensor (N, H, W), (N, 1, H, W) or (N, 3, H, W) stays one, as
    the images of a data set of arrays; the other images of `as_split` come in a sequence, which is read more than once.

    Raises:
        UsageError: They are no sequence of images, or the shape, dtype, range or type of one is wrong.
    """
    if isinstance(images, np.ndarray | Tensor) and getattr(images.dtype, "kind", "") not in tuple("OSU"):
        return _split(_stacked(images), [f"image {number}" for number in range(len(images))])
    if isinstance(images, _ONE) or hasattr(images, "read"):
        raise UsageError(f"one {type(images).__name__} is given where many images are read; put it in a list")
    if hasattr(images, "columns"):
        raise UsageError("a table is no images; give one column of it, of paths, as in table['path']")
    if not hasattr(images, "__len__"):
        raise UsageError(f"{type(images).__name__} can be read once only, and images are read again; give a list")
    items = _each(images)
    for number, item in enumerate(items):
        if hasattr(item, "read"):
            raise UsageError(f"image {number} is an open file, which can be read once only; give its path or its bytes")
    return _split_of_items(items)


def _split_of_items(given: Sequence[Any]) -> Split:
    items = tuple(_item(image, number) for number, image in enumerate(given))
    ids = [plain_name(i) if isinstance(i, Path) else f"image {number}" for number, i in enumerate(items)]
    return _split(GivenImages(items), ids)


def _split(images: ArrayImages | LazyImages, ids: Sequence[str]) -> Split:
    return Split("images", images, np.zeros(len(ids), np.int64), tuple(ids))


def _stacked(images: npt.NDArray[Any] | Tensor) -> ArrayImages:
    shape = tuple(images.shape)
    pixels = _numbers(images)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    elif isinstance(images, Tensor) and pixels.ndim == 4:
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or not all(shape[1:]):
        raise UsageError(f"{shape} is not the shape of images; {_ALLOWED}")
    return ArrayImages(np.ascontiguousarray(_bytes(pixels, "the array")))


def _each(images: Any) -> Sequence[Any]:
    if isinstance(images, _ONE) or hasattr(images, "read"):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind in "OSU":
        if images.ndim != 1 or images.dtype.kind == "S":
            raise UsageError(
                f"an array of {images.dtype} and shape {images.shape} is no image, nor images; an array of paths is of "
                f"str and has one axis, (N,); {_ALLOWED}"
            )
        return list(images)
    if isinstance(images, np.ndarray | Tensor):
        return [images] if images.ndim < 4 else list(images)
    if isinstance(images, Iterable):
        return list(images)
    raise UsageError(f"{type(images).__name__} is no image; {_ALLOWED}")


def _item(image: Any, number: int) -> Path | Image.Image | bytes:
    if isinstance(image, str | os.PathLike):
        return _path(image)
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, Image.Image):
        return image
    if hasattr(image, "read"):
        return _content(image, number)
    if isinstance(image, Tensor):
        array = _numbers(image)
        return _from_array(array, array.transpose(1, 2, 0) if array.ndim == 3 else array[..., None], number)
    if isinstance(image, np.ndarray):
        return _from_array(image, image if image.ndim == 3 else image[..., None], number)
    raise UsageError(f"image {number} is a {type(image).__name__}; {_ALLOWED}")


def _path(image: str | os.PathLike[str]) -> Path:
    url = url_of(image)
    if url:
        raise UsageError(f"{url} is a URL, and URLs are not fetched; download it, and give the file or its bytes")
    path = Path(image)
    if os.path.isdir(path):  # noqa: PTH112  # where a path is too long, Path.is_dir raises
        raise UsageError(
            f"{plain_name(path)} is a folder, and an image has a row of its own; give the files in it, as in "
            f"sorted(Path({plain_name(path)!r}).rglob('*.jpg')), or the folder to `featbench predict`"
        )
    return path


def _content(file: Any, number: int) -> bytes:
    content = file.read()  # from where it stands
    if not isinstance(content, bytes | bytearray):
        raise UsageError(f"image {number} is a file that gives {type(content).__name__}; open it in binary mode, 'rb'")
    return bytes(content)


def _from_array(given: npt.NDArray[Any], pixels: npt.NDArray[Any], number: int) -> Image.Image:
    """Turn (H, W, C) into a PIL image; `given` is what the error shows."""
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise UsageError(f"image {number} has the shape {given.shape}; {_ALLOWED}")
    pixels = _bytes(pixels, f"image {number}")
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _numbers(images: npt.NDArray[Any] | Tensor) -> npt.NDArray[Any]:
    if isinstance(images, np.ndarray):
        return images
    on_cpu = images.detach().cpu()
    return (on_cpu.float() if on_cpu.is_floating_point() else on_cpu).numpy()


def _bytes(pixels: npt.NDArray[Any], what: str) -> npt.NDArray[np.uint8]:
    """Bring pixel values to uint8; `what` is named in the error."""
    if not pixels.size:
        return pixels.astype(np.uint8)
    if np.issubdtype(pixels.dtype, np.floating):
        # the way back from what torchvision's ToTensor gives; NaN fails the comparison, too
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise UsageError(
                f"{what} has fractions from {pixels.min():.3g} to {pixels.max():.3g}; give uint8, or fractions from 0 "
                "(black) to 1 (white) that are not standardised: featbench does that itself"
            )
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        pixels = (pixels >> 8).astype(np.uint8)  # as files of 16 bits
    if pixels.dtype != np.uint8:
        raise UsageError(
            f"{what} is of {pixels.dtype}; give uint8 (0 to 255), uint16 (0 to 65535) or fractions from 0 to 1"
        )
    return pixels
