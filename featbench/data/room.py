"""Memory for decoding: what an image needs is estimated from its header, and all threads share a fixed amount.

A file of a few bytes can declare an image of gigabytes. One that needs more than the whole amount is refused; one that
needs more than is free at the moment waits.
"""

from __future__ import annotations

import ctypes
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import Image, JpegImagePlugin, TiffImagePlugin

LIMIT_BYTES = 1_000_000_000
LIMIT_SIDE_PX = 65_535  # JPEG's limit; Pillow keeps a pointer for each row, besides the pixels

# bytes a pixel that Pillow's codecs need besides the image, as measured; they free it before conversions
_CODEC_BYTES = {"WEBP": 12, "AVIF": 16, "PPM": 8, "JPEG2000": 21}
_PROGRESSIVE_BYTES = 8  # of JPEG: all coefficients are kept
_IMAGE_BYTES, _COPY_BYTES = 4, 4
_LARGE_BYTES = 64_000_000
_TIFF_BITS, _TIFF_SAMPLES, _TIFF_ROWS, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 258, 277, 278, 322, 323
_SMALL_BLOCK_BYTES, _USUAL_BLOCK_PX = 1800, 32  # JPEG 2000 keeps books of every block; encoders take 32 or 64 px
_JPEG2000_BLOCKS = re.compile(  # markers COD and COC: precincts or not, levels, width and height of a block, precincts
    rb"\xff(?:\x52\x00.([\x00-\x07])[\x00-\x04]..[\x00\x01]|\x53\x00..([\x00\x01]))"
    rb"([\x00-\x20])([\x00-\x08])([\x00-\x08]).[\x00\x01](.{0,33})",
    re.DOTALL,
)


def bytes_to_decode(image: Image.Image) -> int:
    """Estimate what decoding an opened image takes at its peak, with conversion to RGB and turning upright."""
    copies = _COPY_BYTES if image.mode == "RGB" else 2 * _COPY_BYTES
    codec = _CODEC_BYTES.get(image.format or "", 0)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.info.get("progressive"):
        codec = _PROGRESSIVE_BYTES
    if image.format == "JPEG2000" and _smallest_block_px(image) < _USUAL_BLOCK_PX:
        codec = _SMALL_BLOCK_BYTES
    n_pixels = image.width * image.height
    strip = _tiff_strip_bytes(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0
    return n_pixels * _IMAGE_BYTES + max(n_pixels * max(copies, codec), strip)


def _tiff_strip_bytes(image: TiffImagePlugin.TiffImageFile) -> int:
    """Return the size of one strip or tile, which libtiff decodes at once."""
    tags = image.tag_v2
    width = int(tags.get(_TIFF_TILE_WIDTH, image.width))
    height = int(tags.get(_TIFF_TILE_LENGTH, min(tags.get(_TIFF_ROWS, image.height), image.height)))
    bits = int(max(tags.get(_TIFF_BITS, (1,))))
    return width * height * max(4, math.ceil(int(tags.get(_TIFF_SAMPLES, 1)) * bits / 8))


def _smallest_block_px(image: Image.Image) -> int:
    """Return the shortest side of the blocks and precincts that a JPEG 2000 file declares, for any of its tiles."""
    file = image.fp  # type: ignore[attr-defined]
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    smallest = _USUAL_BLOCK_PX
    for found in _JPEG2000_BLOCKS.finditer(content):
        style, of_component, levels, width, height, precincts = found.groups()
        smallest = min(smallest, 4 << width[0], 4 << height[0])
        if (style or of_component)[0] & 1:
            sides = (1 << side for both in precincts[: levels[0] + 1] for side in (both & 15, both >> 4))
            smallest = min([smallest, *sides])
    return smallest


class Room:
    """An amount of memory that threads share."""

    def __init__(self, n_bytes: int) -> None:
        self._free = n_bytes
        self._changed = threading.Condition()
        self._of_thread = threading.local()

    @property
    def free_bytes(self) -> int:
        """Bytes that no image holds."""
        return self._free

    @contextmanager
    def taken(self, image: Image.Image, n_bytes: int) -> Iterator[None]:
        """Wait until there are `n_bytes` to decode an image, and hold them meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= n_bytes)
            self._free -= n_bytes
        stays = 0
        try:
            yield
            if hasattr(self._of_thread, "stays"):
                self._of_thread.stays = stays = image.width * image.height * _IMAGE_BYTES
        finally:
            self._give_back(n_bytes - stays)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the image that this thread decodes within count until the end: what is decoded takes memory, too."""
        self._of_thread.stays = 0
        try:
            yield
        finally:
            n_bytes = self._of_thread.stays
            del self._of_thread.stays
            if n_bytes > _LARGE_BYTES:
                _return_memory()
            self._give_back(n_bytes)

    def _give_back(self, n_bytes: int) -> None:
        with self._changed:
            self._free += n_bytes
            self._changed.notify_all()


ROOM = Room(LIMIT_BYTES)


def _return_memory() -> None:
    """Give freed memory back to the system: glibc keeps that of every thread, which is gigabytes for large images."""
    with suppress(AttributeError, OSError, TypeError):  # there is no such function elsewhere
        ctypes.CDLL(None).malloc_trim(0)
