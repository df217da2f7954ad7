"""What decoding takes is known before, and bounded: measured in child processes, by the system's own count."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featbench.data.decode import UnreadableImageError, decode_file
from featbench.data.images import file_images
from featbench.data.loader import read_batches
from featbench.data.preprocess import Preprocess
from featbench.data.room import LIMIT_BYTES, ROOM, Room, bytes_to_decode
from featbench.data.splits import Split
from tests.data.files import bmp_header, grey_tiff, header, png

SIDE = 1600
SIZE = (SIDE, SIDE)
MEASURE = """
import pathlib, resource, sys
from PIL import Image
from featbench.data.decode import decode_file, UnreadableImageError

def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

Image.init()
before = used()
for name in sys.argv[1:]:
    try:
        decode_file(pathlib.Path(name))
    except UnreadableImageError as error:
        print(error, file=sys.stderr)
print(used() - before)
"""


def bytes_used(*paths: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout), done.stderr


def plain(mode: str) -> Image.Image:
    return (
        Image.new("RGBA", SIZE, (200, 100, 50, 77)).convert("RGB" if mode not in ("RGBA", "LA") else mode).convert(mode)
    )


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def deep(path: Path, kind: str) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 50_000, np.uint16)).save(path, kind)


KINDS: dict[str, Callable[[Path], Any]] = {
    "jpeg": lambda path: plain("RGB").save(path, "JPEG", exif=turned()),
    "jpeg cmyk": lambda path: plain("CMYK").save(path, "JPEG", exif=turned()),
    "jpeg progressive": lambda path: plain("RGB").save(path, "JPEG", progressive=True, subsampling=0),
    "jpeg progressive cmyk": lambda path: plain("CMYK").save(path, "JPEG", progressive=True, subsampling=0),
    "png": lambda path: plain("RGBA").save(path, "PNG", exif=turned()),
    "png palette": lambda path: plain("P").save(path, "PNG"),
    "png 16 bits": lambda path: deep(path, "PNG"),
    "png rgb 16 bits": lambda path: path.write_bytes(
        png(header(*SIZE, bits=16), (b"IDAT", zlib.compress((b"\0" + b"\x99\x11" * 3 * SIDE) * SIDE, 1)))
    ),
    "webp": lambda path: plain("RGBA").save(path, "WEBP", method=0, exif=turned()),
    "gif": lambda path: plain("P").save(path, "GIF", save_all=True, append_images=[plain("L")] * 3),
    "bmp": lambda path: plain("P").save(path, "BMP"),
    "ppm 16 bits": lambda path: deep(path, "PPM"),
    "tiff": lambda path: plain("RGB").save(path, "TIFF", exif=turned()),
    "tiff in one strip": lambda path: plain("RGBA").save(
        path, "TIFF", compression="tiff_adobe_deflate", strip_size=4 * SIDE * SIDE
    ),
    "tiff jpeg": lambda path: plain("RGB").save(path, "TIFF", compression="jpeg"),
    "avif": lambda path: plain("RGBA").save(path, "AVIF", speed=10, subsampling="4:4:4"),
    "jpeg2000": lambda path: plain("RGBA").save(path, "JPEG2000"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_used_than_was_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    KINDS[kind](path)
    with Image.open(path) as image:
        told = bytes_to_decode(image)
    used, problems = bytes_used(path)
    assert problems == ""
    assert used < 1.05 * told + 4_000_000  # of which libraries load some


def tile_of(side_px: int) -> bytes:
    """Make a TIFF file of 8x6 pixels that says it has one compressed tile, of a large size."""
    content = grey_tiff(np.ones((6, 8), np.uint16), 16).replace(
        struct.pack("<HHII", 259, 4, 1, 1), struct.pack("<HHII", 259, 4, 1, 8)
    )
    for old, new in (((273, 4, 1), 324), ((279, 4, 1), 325)):
        content = content.replace(struct.pack("<HHI", *old), struct.pack("<HHI", new, 4, 1))
    content = content.replace(struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 322, 4, 1, side_px))
    return content.replace(struct.pack("<HHII", 278, 4, 1, 6), struct.pack("<HHII", 323, 4, 1, side_px))


def small_blocks() -> bytes:
    """Make a JPEG 2000 header that declares 30 million precincts."""
    size = struct.pack(">HHIIIIIIIIH", 41, 0, 6000, 5000, 0, 0, 6000, 5000, 0, 0, 1) + b"\7\1\1"
    blocks = struct.pack(">H", 18) + b"\1\0\0\1\0\5\4\4\0\1" + b"\x11" * 6
    quantities = struct.pack(">H", 19) + b"\x40" + b"\x40" * 16
    tile = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1) + b"\xff\x93" + bytes(100)
    return b"\xff\x4f\xff\x51" + size + b"\xff\x52" + blocks + b"\xff\x5c" + quantities + tile + b"\xff\xd9"


SQUARE, LINE = (13_377, 13_377), (1, 178_956_970)  # each of nearly twice Pillow's limit
ROWS = zlib.compress(bytes(100_000))
BOMBS: dict[str, tuple[bytes, str]] = {
    "png line": (png(header(*LINE), (b"IDAT", ROWS)), "it has 1 x 178956970 pixels, and a side may have 65535"),
    "png line of bits": (png(header(*LINE, bits=1, colour=0), (b"IDAT", ROWS)), "a side may have 65535"),
    "png": (png(header(*SQUARE), (b"IDAT", ROWS)), r"13377 x 13377 pixels would take 1\.4 GB, and may take 1; make"),
    "png rgb 16 bits": (png(header(*SQUARE, bits=16), (b"IDAT", ROWS)), r"would take 1\.4 GB"),
    "png palette": (
        png(header(*SQUARE, colour=3), (b"PLTE", bytes(30)), (b"IDAT", ROWS)),
        r"would take 2\.1 GB",
    ),
    "ppm": (b"P6 13377 13377 255\n" + bytes(1000), r"would take 2\.1 GB"),
    "ppm text": (b"P3 9 170000000 255\n" + b"1 " * 1000, "exceeds limit of 178956970 pixels|a side may have"),
    "bmp": (bmp_header(*SQUARE), r"would take 1\.4 GB"),
    "gif": (
        b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, *SQUARE, 0) + b"\x08\0;",
        r"would take 2\.1 GB",
    ),
    "tiff": (
        grey_tiff(np.ones((6, 8), np.uint16), 16)
        .replace(struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 256, 4, 1, 13_377))
        .replace(struct.pack("<HHII", 257, 4, 1, 6), struct.pack("<HHII", 257, 4, 1, 13_377)),
        r"would take 2\.1 GB",
    ),
    "tiff tile": (tile_of(40_000), r"8 x 6 pixels would take 6\.4 GB"),
    "jpeg2000 precincts": (small_blocks(), r"6000 x 5000 pixels would take 54\.1 GB"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_too_large_is_left_out_by_its_header(tmp_path: Path, name: str) -> None:
    content, reason = BOMBS[name]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason):
        decode_file(tmp_path / "x")


def test_a_file_that_only_says_it_is_large_takes_no_memory(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in BOMBS]
    for path, (content, _) in zip(paths, BOMBS.values(), strict=True):
        path.write_bytes(content)
    used, problems = bytes_used(*paths)
    assert len(problems.splitlines()) == len(BOMBS)
    assert used < 20_000_000


def test_large_photos_of_phones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.new("RGB", (12_000, 9_000)).save(path, exif=turned())
    used, problems = bytes_used(path)
    assert problems == ""
    assert used < LIMIT_BYTES


def test_who_needs_more_than_is_left_waits() -> None:
    room, image = Room(100), Image.new("RGB", (5, 2))  # 40 bytes
    entered, leave, second = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with room.in_use():
            with room.taken(image, 90):
                entered.set()
            leave.wait(10)  # decoded, and still in use

    def other(n_bytes: int) -> None:
        with room.taken(image, n_bytes):
            second.set()

    threads = [threading.Thread(target=first)]
    threads[0].start()
    entered.wait(10)
    threads.append(threading.Thread(target=other, args=(61,)))
    threads[1].start()
    assert not second.wait(0.2)
    assert room.free_bytes == 60
    leave.set()
    assert second.wait(10)
    for thread in threads:
        thread.join()
    assert room.free_bytes == 100


def test_the_room_is_given_back_after_an_error() -> None:
    room = Room(100)
    with pytest.raises(ValueError, match="mine"), room.in_use(), room.taken(Image.new("RGB", (5, 2)), 90):
        raise ValueError("mine")
    assert room.free_bytes == 100


class Watching(Preprocess):
    """Preprocessing that keeps how much room was left while an image was fitted."""

    def fit_image(self, image: Image.Image) -> torch.Tensor:
        LEFT.append(ROOM.free_bytes)
        return super().fit_image(image)


LEFT: list[int] = []
TOGETHER = """
import resource, sys
import numpy as np
from featbench.data.images import file_images
from featbench.data.loader import read_batches
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split

def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

paths = tuple(sys.argv[1:])
split = Split("train", file_images(paths), np.zeros(len(paths), np.int64), paths)
before = used()
(batch,) = read_batches(split, Preprocess(8, 8), len(paths), threads=len(paths))
print(len(batch.rows), used() - before)
"""


@pytest.mark.slow
def test_threads_with_large_images_keep_to_the_room_together(tmp_path: Path) -> None:
    row = b"\0" + b"\x11\x99\x33" * 10_000
    (tmp_path / "x").write_bytes(png(header(10_000, 10_000), (b"IDAT", zlib.compress(row * 10_000, 1))))
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, *[str(tmp_path / "x")] * 6], check=True, capture_output=True, text=True
    )
    n_read, used = map(int, done.stdout.split())
    assert n_read == 6
    assert used < 1.1 * LIMIT_BYTES


def test_a_decoded_image_counts_until_it_is_fitted(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "x.png")
    LEFT.clear()
    images = file_images([tmp_path / "x.png"])
    list(read_batches(Split("train", images, np.zeros(1, np.int64), ("x",)), Watching(8, 8), 1))
    assert LEFT == [LIMIT_BYTES - 300 * 200 * 4]
    assert ROOM.free_bytes == LIMIT_BYTES
