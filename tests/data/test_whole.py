"""No part of an image is taken for the whole: each test has a file that Pillow alone takes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featbench.data.decode import UnreadableImageError, decode_file
from tests.data.files import grey_tiff, header, png

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 256, (120, 80, 3), dtype=np.uint8)
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
    "tiff": ("TIFF", {}),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff jpeg": ("TIFF", {"compression": "jpeg"}),
    "tiff deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "avif": ("AVIF", {}),
    "jpeg2000": ("JPEG2000", {}),
    "jpeg2000 lossy": ("JPEG2000", {"quality_mode": "rates", "quality_layers": [20, 10]}),
}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def pillow_takes(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
    return True


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut(tmp_path: Path, name: str, share: float) -> None:
    kind, options = FILES[name]
    content = encoded(kind, **options)
    assert decode_file(written(tmp_path / "whole", content)).size == (80, 120)
    with pytest.raises(UnreadableImageError):
        decode_file(written(tmp_path / "cut", content[: int(share * len(content))]))


def png_rows(n_rows: int, colour: int, pixels: np.ndarray, interlace: int = 0) -> bytes:
    kind, content = header(80, 120, colour=colour)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels[:n_rows])
    return png((kind, content[:-1] + bytes([interlace])), (b"IDAT", zlib.compress(rows)))


@pytest.mark.parametrize(("colour", "bands"), [(2, 3), (0, 1), (6, 4)])
@pytest.mark.parametrize("n_rows", [1, 50, 119])
def test_a_png_file_whose_data_ends_early(tmp_path: Path, n_rows: int, colour: int, bands: int) -> None:
    pixels = RNG.integers(0, 256, (120, 80, bands), dtype=np.uint8)
    assert decode_file(written(tmp_path / "whole", png_rows(120, colour, pixels)))
    path = written(tmp_path / "x.png", png_rows(n_rows, colour, pixels))
    assert pillow_takes(path)
    with pytest.raises(UnreadableImageError, match="it is truncated: its data ends before its last row"):
        decode_file(path)


def test_an_interlaced_png_file_that_lacks_its_last_pass(tmp_path: Path) -> None:
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [b"\0" + row.tobytes() for x, y, dx, dy in passes for row in PIXELS[y::dy, x::dx]]
    kind, content = header(80, 120)
    interlaced = (kind, content[:-1] + b"\1")
    whole = written(tmp_path / "whole", png(interlaced, (b"IDAT", zlib.compress(b"".join(rows)))))
    np.testing.assert_array_equal(decode_file(whole), PIXELS)
    path = written(tmp_path / "x.png", png(interlaced, (b"IDAT", zlib.compress(b"".join(rows[:-60])))))
    assert pillow_takes(path)
    with pytest.raises(UnreadableImageError, match="it is truncated"):
        decode_file(path)


@pytest.mark.parametrize("colour", [(203, 17, 91), (0, 0, 0), (255, 255, 255), (128, 128, 128)])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_plain_colours_are_no_missing_rows(tmp_path: Path, kind: str, mode: str, colour: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (20, 30), colour).convert(mode)
    image.save(tmp_path / "x", kind)
    np.testing.assert_array_equal(decode_file(tmp_path / "x"), image.convert("RGB"))


@pytest.mark.parametrize("value", [0, 203, 65535])
def test_plain_grey_of_16_bits_is_no_missing_row(tmp_path: Path, value: int) -> None:
    Image.fromarray(np.full((20, 30), value, np.uint16)).save(tmp_path / "x.png")
    assert np.asarray(decode_file(tmp_path / "x.png"))[0, 0].tolist() == [value >> 8] * 3


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_jpeg_file_that_was_cut_and_given_an_end(tmp_path: Path, share: float) -> None:
    content = encoded("JPEG")
    path = written(tmp_path / "x.jpg", content[: int(share * len(content))] + b"\xff\xd9")
    assert pillow_takes(path)
    with pytest.raises(UnreadableImageError, match=r"it is truncated: .* what follows is grey"):
        decode_file(path)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_file_with_a_grey_corner_is_whole(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PIXELS)
    image.paste((128, 128, 128), (40, 60, 80, 120))
    image.convert(mode).save(tmp_path / "x.jpg", quality=95)
    assert np.asarray(decode_file(tmp_path / "x.jpg"))[-1, -1].tolist() == [128] * 3


def test_a_compressed_tiff_file_whose_header_comes_first(tmp_path: Path) -> None:
    content = zlib.compress(PIXELS[..., 0].tobytes())
    uncompressed = grey_tiff(PIXELS[..., 0].astype(np.uint16), 16)
    tags = uncompressed[:-19200].replace(struct.pack("<HHII", 258, 4, 1, 16), struct.pack("<HHII", 258, 4, 1, 8))
    tags = tags.replace(struct.pack("<HHII", 259, 4, 1, 1), struct.pack("<HHII", 259, 4, 1, 8))
    tags = tags.replace(struct.pack("<HHII", 279, 4, 1, 19200), struct.pack("<HHII", 279, 4, 1, len(content)))
    whole = decode_file(written(tmp_path / "whole", tags + content))
    np.testing.assert_array_equal(np.asarray(whole)[..., 0], PIXELS[..., 0])
    with pytest.raises(UnreadableImageError, match="it is truncated: it ends before its data does"):
        decode_file(written(tmp_path / "cut", tags + content[:-1]))


def test_a_tiff_file_that_lists_too_few_strips(tmp_path: Path) -> None:
    content = grey_tiff(RNG.integers(1, 65536, (6, 8), dtype=np.uint16), 16)
    fewer = content.replace(struct.pack("<HHII", 278, 4, 1, 6), struct.pack("<HHII", 278, 4, 1, 2))
    path = written(tmp_path / "x.tif", fewer)
    assert pillow_takes(path)
    with pytest.raises(UnreadableImageError, match="it is truncated: its data ends before its last row"):
        decode_file(path)
