"""Decoding an image whole or not at all: Pillow takes some files though a part of the picture is missing."""

from __future__ import annotations

import io
import os
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile

_TIFF_COMPRESSION, _UNCOMPRESSED = 259, 1
_TIFF_PLACES = ((273, 279), (324, 325))  # offsets and byte counts of strips, and of tiles
_COLOUR, _OTHER = (203, 17, 91, 154), (0, 0, 0, 0)  # values a band; a side of the first is rare in a file
_MISSING_GREY = 128  # what libjpeg puts where data is missing
_CORNER_PX = 4  # farther away it may be blended with what is there
_END_OF_JPEG = b"\xff\xd9"
_ROWS_AT_ONCE = 256


class UnreadableImageError(Exception):
    """One image cannot be decoded; the message is the reason."""


def load_whole(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Decode an image that was opened from a file.

    Raises:
        UnreadableImageError: A part of it is missing. Pillow raises its own errors for most truncated files.
    """
    if image.format in ("PNG", "TIFF"):
        _load_over_a_colour(image, file)
        return
    image.load()
    if image.format == "JPEG" and _corner_is_missing(image) and _waits_for_more(image, file):
        raise UnreadableImageError("it is truncated: its data ends before its last row, and what follows is grey")


def _load_over_a_colour(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Decode an image over a plain colour, which rows that the file lacks keep; a second colour rules out chance.

    A PNG file may end its compressed data early, and a TIFF file list too few strips.
    """
    if image.format == "TIFF":
        _check_strips(image, file)
    if not _keeps(image, _COLOUR):
        return
    file.seek(0)
    with Image.open(file, formats=[str(image.format)]) as again:
        if _keeps(again, _OTHER):
            raise UnreadableImageError("it is truncated: its data ends before its last row")


def _keeps(image: ImageFile.ImageFile, colour: tuple[int, ...]) -> bool:
    """Decode over a plain colour; say whether a side of the image keeps it."""
    n_bands = len(image.getbands())
    ink = colour[:n_bands] if n_bands > 1 else colour[0]
    size = getattr(image, "_tile_size", image.size)  # of a TIFF file, before it is turned upright
    image.im = Image.new(image.mode, size, ink).im
    image.load()
    plain = _extrema(Image.new(image.mode, (1, 1), ink))
    width, height = image.size
    sides = [(0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height)]
    sides.append((0, max(0, height - 2), width, max(1, height - 1)))  # interlaced files end with the odd rows
    lines = (_extrema(image.crop(side)) for side in sides)
    return any(one == other for line in lines for one, other in zip(line, plain, strict=True))


def _extrema(image: Image.Image) -> list[Any]:
    found: Any = image.getextrema()
    return list(found) if isinstance(found[0], tuple) else [found]


def _check_strips(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Refuse a compressed TIFF file that is shorter than it says: libtiff fills some of what is missing with grey."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED:
        return
    here = file.tell()
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(here)
    for place in _TIFF_PLACES:
        starts, counts = (np.asarray(tags.get(tag, ()), np.int64).ravel() for tag in place)
        if (starts + counts > n_bytes).any():
            raise UnreadableImageError("it is truncated: it ends before its data does")


def _corner_is_missing(image: Image.Image) -> bool:
    """Say whether the corner where a JPEG file ends is as if it had never been there; it may be grey, too."""
    width, height = image.size
    corner = image.crop((max(0, width - _CORNER_PX), max(0, height - _CORNER_PX), width, height))
    return all(extrema == (_MISSING_GREY, _MISSING_GREY) for extrema in _extrema(corner))


def _waits_for_more(image: Image.Image, file: IO[bytes]) -> bool:
    """Put other bytes before the end of a JPEG file: they change the picture only if a part of it is missing."""
    file.seek(0)
    content = file.read()
    end = content.rfind(_END_OF_JPEG)
    nonsense = bytes(range(255)) * 4  # a zero first, which completes no marker that the truncated data may end with
    with Image.open(io.BytesIO(content[:end] + nonsense + content[end:]), formats=["JPEG"]) as again:
        again.load()
        return any(
            image.crop(rows).tobytes() != again.crop(rows).tobytes()
            for top in range(0, image.height, _ROWS_AT_ONCE)
            for rows in [(0, top, image.width, min(top + _ROWS_AT_ONCE, image.height))]
        )
