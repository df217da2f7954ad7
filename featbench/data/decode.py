"""From a file, whatever it holds, to an upright RGB image, or to the reason why there is none.

Files are known by their content, not by their ending. Transparency and colour profiles are dropped, as torchvision's
`ImageFolder` does; of an animation the first frame is read; 16 bits become the upper 8; EXIF says which side is up. A
file of more pixels than twice Pillow's limit (178,956,970) is left out before it is decoded.
"""

from __future__ import annotations

import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

# Pillow knows more: for some of them it starts other programs
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LARGE_PIXELS = 32_000_000
_ONE_LARGE = threading.Lock()  # a gigabyte for each thread would be too much
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_QUIET_LOCK = threading.Lock()
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262


class UnreadableImageError(Exception):
    """One image cannot be decoded; the message is the reason."""


def decode_file(path: Path) -> Image.Image:
    """Decode one file as RGB, upright.

    Raises:
        UnreadableImageError: There is no image in it, or only a part of one; the reason names no folder.
    """
    check_regular(path)
    with reading(), path.open("rb") as file, Image.open(file, formats=_FORMATS) as image, _room_for(image):
        return to_rgb(image)


@contextmanager
def reading() -> Iterator[None]:
    """Keep Pillow quiet, and turn whatever it raises into the reason why an image cannot be read.

    Raises:
        UnreadableImageError: Something was raised within.
    """
    _silence_pillow()
    try:
        yield
    except (UnreadableImageError, MemoryError):  # too little memory is no fault of the image
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"it holds no image of a known kind ({', '.join(_FORMATS)})") from error
    except Exception as error:  # it depends on where in a damaged file Pillow stumbles
        raise UnreadableImageError(_reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Load an image and convert it to RGB, upright; nothing is copied where nothing changes.

    Raises:
        UnreadableImageError: Its values have no known white.
    """
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        rgb = _from_16_bits(image).convert("RGB")
    elif image.mode in ("I", "F"):
        kind = "whole numbers" if image.mode == "I" else "fractions"
        raise UnreadableImageError(f"its grey values are {kind} of 32 bits, of which none is white; save it as 8 or 16")
    else:
        image.info.pop("transparency", None)  # dropped anyway, and Pillow warns of some kinds
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    turn = _TURNS.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def check_regular(path: Path) -> None:
    """Refuse what is no file with content: opening a pipe would wait for ever.

    Raises:
        UnreadableImageError: It is a broken link, a loop of links, a folder, a pipe, a socket, a device, or empty.
    """
    try:
        status = path.stat()
    except OSError as error:
        link = "the link leads nowhere: " if path.is_symlink() else ""
        raise UnreadableImageError(link + _reason(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError("it is no regular file")
    if not status.st_size:
        raise UnreadableImageError("it is empty")


def _silence_pillow() -> None:
    """Keep Pillow's warnings about odd files to itself: what matters is read, or is the reason for leaving it out.

    `warnings.catch_warnings` is no way, since it changes what all threads see, in an order of its own.
    """
    if _QUIET not in warnings.filters:
        with _QUIET_LOCK:
            warnings.filterwarnings("ignore", module=r"PIL\.")


def _room_for(image: Image.Image) -> AbstractContextManager[object]:
    return _ONE_LARGE if image.width * image.height > _LARGE_PIXELS else nullcontext()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  # damaged EXIF data says nothing about the pixels
        return 1


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Keep the upper 8 bits, as Pillow does for colour; its own conversion of grey clips at 255."""
    tags = getattr(image, "tag_v2", {})
    shift = 4 if tags.get(_TIFF_BITS) == (12,) else 8
    grey = (np.asarray(image) >> shift).astype(np.uint8)
    white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == 0  # which Pillow minds for 8 bits only
    return Image.fromarray(255 - grey if white_is_zero else grey)


def _reason(error: Exception) -> str:
    system = error.strerror if isinstance(error, OSError) else None  # its text would name this machine's folders
    return system or str(error) or type(error).__name__
