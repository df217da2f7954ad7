"""From a file, whatever it holds, to an upright RGB image, or to the reason why there is none.

Files are known by their content, not by their ending. Transparency and colour profiles are dropped, as torchvision's
`ImageFolder` does; of an animation the first frame is read; 16 bits become the upper 8; EXIF says which side is up.
Images that are too large for the memory (`featbench.data.room`) are refused before decoding, partial ones after.
"""

from __future__ import annotations

import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from featbench.data.notes import TWELVE_BITS
from featbench.data.room import LIMIT_BYTES, LIMIT_SIDE_PX, ROOM, bytes_to_decode
from featbench.data.whole import UnreadableImageError as UnreadableImageError  # for those who decode
from featbench.data.whole import load_whole

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
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_QUIET_LOCK = threading.Lock()
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES, _TIFF_SAMPLE_FORMAT = 258, 262, 277, 339
_TWELVE_BITS = 1 << 12
NOTE = "featbench"  # a key of `Image.info` that no file format has
_NO_MODE = "unknown pixel mode"  # what Pillow's TIFF plugin raises


def decode_file(path: Path) -> Image.Image:
    """Decode one file as RGB, upright.

    Raises:
        UnreadableImageError: There is no image in it, or only a part of one, or it is too large; the reason names no
            folder.
    """
    check_regular(path)
    with reading(), path.open("rb") as file:
        return _decode(file)


def decode_bytes(content: bytes) -> Image.Image:
    """Decode the bytes of a file, as `decode_file`.

    Raises:
        UnreadableImageError: There is no image in them, or only a part of one, or it is too large.
    """
    if not content:
        raise UnreadableImageError("it is empty")
    with reading(), io.BytesIO(content) as file:
        return _decode(file)


def _decode(file: IO[bytes]) -> Image.Image:
    try:
        opened = Image.open(file, formats=_FORMATS)  # which reads the header
    except UnidentifiedImageError as error:
        raise UnreadableImageError(_why_unknown(file)) from error
    with opened as image:
        n_bytes = bytes_to_decode(image)
        _check_size(image, n_bytes)
        with ROOM.taken(image, n_bytes):
            load_whole(image, file)
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
    except (UnreadableImageError, MemoryError):  # running out of memory is not the image's fault
        raise
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise UnreadableImageError(_reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Load an image and convert it to RGB, upright; nothing is copied where nothing changes.

    What is to be noted of it (a kind of `NOTES`) is in its `info`, under `NOTE`.

    Raises:
        UnreadableImageError: Its values have no known white.
    """
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        rgb = _from_16_bits(image).convert("RGB")
    elif image.mode in ("I", "F"):
        numbers = _numbers(image.tag_v2) if image.format == "TIFF" else "numbers of 32"  # type: ignore[attr-defined]
        raise UnreadableImageError(
            f"its grey values are {numbers} bits, of which none means white; save it as 8 or 16 bits without a sign"
        )
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


def _why_unknown(file: IO[bytes]) -> str:
    """Say what a file is that Pillow knows by its first bytes but cannot open: it keeps its own reasons to itself."""
    for kind in _FORMATS:
        make, accepts = Image.OPEN[kind]
        file.seek(0)
        if not accepts or accepts(file.read(16)) is not True:
            continue
        file.seek(0)
        try:
            make(file, "")
        except Exception as error:  # noqa: BLE001  # its text is what this function returns
            reason = _reason(error)
            return f"it is a {kind} file that cannot be read: {_bands(file) if reason == _NO_MODE else reason}"
    return f"it holds no image of a known kind ({', '.join(_FORMATS)})"


def _bands(file: IO[bytes]) -> str:
    """Describe the bands of a TIFF file that Pillow has no mode for."""
    file.seek(0)
    tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
    file.seek(tags.next)
    tags.load(file)
    n_bands = tags.get(_TIFF_SAMPLES, 1)
    bands = "1 band" if n_bands == 1 else f"{n_bands} bands"
    return f"it has {bands} of {_numbers(tags)} bits; save it as grey or RGB of 8 or 16 bits without a sign"


def _check_size(image: Image.Image, n_bytes: int) -> None:
    if max(image.size) > LIMIT_SIDE_PX:
        raise UnreadableImageError(f"it has {image.width} x {image.height} pixels, and a side may have {LIMIT_SIDE_PX}")
    if n_bytes > LIMIT_BYTES:
        raise UnreadableImageError(
            f"to decode its {image.width} x {image.height} pixels would take {n_bytes / 1e9:.1f} GB, and may take "
            f"{LIMIT_BYTES / 1e9:.0f}; make it smaller"
        )


def _numbers(tags: Mapping[int, Any]) -> str:
    kind = {2: "signed whole numbers", 3: "fractions"}.get(tags.get(_TIFF_SAMPLE_FORMAT, (1,))[0], "whole numbers")
    return f"{kind} of {max(tags.get(_TIFF_BITS, (1,)))}"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  # damaged EXIF data says nothing about the pixels
        return 1


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Keep the upper 8 bits, as Pillow does for colour; its own conversion of grey clips at 255."""
    tags = getattr(image, "tag_v2", {})
    shift = 4 if tags.get(_TIFF_BITS) == (12,) else 8
    values = np.asarray(image)
    grey = (values >> shift).astype(np.uint8)
    white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == 0  # which Pillow minds for 8 bits only
    found = Image.fromarray(255 - grey if white_is_zero else grey)
    if shift == 8 and values.max() < _TWELVE_BITS:
        found.info[NOTE] = TWELVE_BITS  # conversion and turning keep it
    return found


def _reason(error: Exception) -> str:
    system = error.strerror if isinstance(error, OSError) else None  # its text would name this machine's folders
    return system or str(error) or type(error).__name__
