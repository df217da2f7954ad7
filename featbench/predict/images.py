"""Images from outside: files, PIL images, arrays and tensors, brought to what a model was trained on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from featbench.data.decode import decode_bytes, decode_file, reading, to_rgb
from featbench.data.images import Hashes, Indices
from featbench.data.names import plain_name, url_of
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split
from featbench.data.walk import ENDINGS, walk
from featbench.errors import UsageError

ImageLike = str | os.PathLike[str] | bytes | bytearray | IO[bytes] | Image.Image | npt.NDArray[Any] | Tensor
_LONGEST = 200  # characters of a path in a message
_ALLOWED = (
    "an image is a path, the bytes of a file, a file open in binary mode, a PIL image, an array (H, W), (H, W, 1) or "
    "(H, W, 3), or a tensor (1, H, W) or (3, H, W); many are a sequence of these, an array of paths (N,), an array "
    "(N, H, W, 1 or 3) or a tensor (N, 1 or 3, H, W)"
)


@dataclass(frozen=True)
class GivenImages:
    """Images of a call: paths, PIL images, and the bytes of files."""

    items: tuple[Path | Image.Image | bytes, ...]

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> Image.Image:
        """Decode one image as RGB, upright.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        item = self.items[index]
        if isinstance(item, Path):
            return decode_file(item)
        if isinstance(item, bytes):
            return decode_bytes(item)
        with reading():
            return to_rgb(item.copy())  # the caller's stays as it is

    def subset(self, indices: Indices) -> GivenImages:
        """Return the images with these numbers, in this order."""
        return GivenImages(tuple(self.items[index] for index in indices))

    def hashes(self) -> Hashes:
        """Return no hashes: nobody asks whether new images are the same."""
        return (None,) * len(self)

    def digest(self) -> str:
        """Refuse: features of these images are not cached."""
        raise NotImplementedError


@dataclass(frozen=True)
class ArrayPreprocess(Preprocess):
    """The preprocessing of a model whose training images were arrays of one shape (height, width, channels).

    An image is first brought to that shape: to grey where it has one channel, then, where its size is another,
    resized and cut to the centre. From there on it is what a training image was.
    """

    array_shape: tuple[int, int, int] = (1, 1, 3)

    @property
    def photo_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of every image after it is fitted."""
        channels, height, width = self.fit_image(Image.new("RGB", (8, 8))).shape
        return channels, height, width

    def fit_image(self, image: Image.Image) -> Tensor:
        """Fit one RGB image; see `Preprocess.fit_batch`. Returns (C, h, w) uint8."""
        height, width, channels = self.array_shape
        image = image.convert("L") if channels == 1 else image
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image).reshape(self.array_shape))
        return self.fit_batch(pixels.permute(2, 0, 1)[None])[0]


def find_images(places: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """List image files: a folder stands for all images below it, sorted by path.

    Returns:
        The files, of which those that were named need not exist or be images; and folders of no use and what cannot be
        the path of a file, with the reason.
    """
    files: list[Path] = []
    wrong: list[tuple[Path, str]] = []
    for place in places:
        if not os.path.isdir(place):  # noqa: PTH112  # where a path is too long or has a NUL, Path's own raises
            reason = _no_path(place)
            files += [] if reason else [place]
            wrong += [(Path(_cut(str(place))), reason)] if reason else []
            continue
        found = list(walk(place))
        images = [Path(each.path) for each in found if not each.reason]
        wrong += [(Path(each.path), each.reason) for each in found if each.lost]
        if not images:
            wrong.append((place, f"no file in this folder ends in {' '.join(ENDINGS)}"))
        files += images
    return files, wrong


def _no_path(place: Path) -> str:
    """Say why no file can have this path; "" where one can."""
    url = url_of(place)
    if url:
        return f"{url} is a URL, and URLs are not fetched; download it"
    try:
        place.stat()
    except OSError as error:
        return "its path is longer than this system allows" if error.errno == errno.ENAMETOOLONG else ""
    except ValueError:
        return "no path has a NUL character; give a path a line, as find -print does, not -print0"
    return ""


def _cut(path: str) -> str:
    return path if len(path) <= _LONGEST else f"{path[:_LONGEST]}..."


def as_split(images: ImageLike | Iterable[ImageLike]) -> Split:
    """Take the images of a call; what they may be says `Model`.

    Raises:
        UsageError: The shape, dtype, range or type of one is wrong.
    """
    items = tuple(_item(image, number) for number, image in enumerate(_each(images)))
    ids = tuple(plain_name(i) if isinstance(i, Path) else f"image {number}" for number, i in enumerate(items))
    return Split("images", GivenImages(items), np.zeros(len(items), np.int64), ids)


def _each(images: Any) -> Sequence[Any]:
    if isinstance(images, str | os.PathLike | bytes | bytearray | Image.Image) or hasattr(images, "read"):
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
        array = image.detach().cpu().float().numpy() if image.is_floating_point() else image.detach().cpu().numpy()
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
    if np.issubdtype(pixels.dtype, np.floating):
        # the way back from what torchvision's ToTensor gives; NaN fails the comparison, too
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise UsageError(
                f"image {number} has fractions from {pixels.min():.3g} to {pixels.max():.3g}; give uint8, or fractions "
                "from 0 (black) to 1 (white) that are not standardised: the model does that itself"
            )
        pixels = np.rint(pixels * 255).astype(np.uint8)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        pixels = (pixels >> 8).astype(np.uint8)  # as files of 16 bits
    if pixels.dtype != np.uint8:
        raise UsageError(
            f"image {number} is of {pixels.dtype}; give uint8 (0 to 255), uint16 (0 to 65535) or fractions from 0 to 1"
        )
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
