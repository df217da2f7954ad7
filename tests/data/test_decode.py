from __future__ import annotations

import io
import itertools
import os
import stat
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from featbench.data.decode import UnreadableImageError, decode_file
from featbench.data.images import file_images
from tests.data.files import bmp_header, grey_tiff, header, png

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8))
DEEP = RNG.integers(0, 65536, (9, 14), dtype=np.uint16)


def saved(path: Path, image: Image.Image = NOISE, **options: Any) -> Path:
    image.save(path, **options)
    return path


def by_pillow(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def assert_reads_as(path: Path, expected: Any) -> None:
    read = decode_file(path)
    assert read.mode == "RGB"
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000"])
def test_the_content_counts_and_not_the_ending(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "x.jpg", format=kind)
    assert_reads_as(path, by_pillow(path))


def test_no_program_is_started_for_a_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", format="EPS")
    with Image.open(path) as image:
        assert image.format == "EPS"  # which Pillow would hand to Ghostscript
    with pytest.raises(UnreadableImageError, match=r"it holds no image of a known kind \(JPEG, PNG, .*\)"):
        decode_file(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_of_every_kind_are_turned_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "x", format=kind, exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
    assert_reads_as(path, upright)
    assert decode_file(path).size == ((9, 14) if orientation >= 5 else (14, 9))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"])
def test_damaged_exif_data_costs_no_pixels(tmp_path: Path, exif: bytes) -> None:
    path = saved(tmp_path / "x.jpg", exif=exif)
    assert_reads_as(path, by_pillow(saved(tmp_path / "plain.jpg")))


def test_cmyk_as_printers_and_photoshop_save_it(tmp_path: Path) -> None:
    blocks = NOISE.resize((140, 90), Image.Resampling.NEAREST)
    for name in ("x.jpg", "x.tif"):
        path = saved(tmp_path / name, blocks.convert("CMYK"))
        assert_reads_as(path, by_pillow(path))
        assert np.abs(np.asarray(decode_file(path)).astype(int) - np.asarray(blocks)).mean() < 12  # not inverted


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_dropped(tmp_path: Path, mode: str) -> None:
    image = NOISE.convert("L" if mode == "LA" else "RGB").convert(mode)
    image.putalpha(Image.fromarray(RNG.integers(0, 256, (9, 14), dtype=np.uint8)))
    path = saved(tmp_path / "x.png", image.convert("RGBA"))
    assert_reads_as(path, image.convert("RGBA").convert("RGB"))


@pytest.mark.parametrize("transparency", [3, bytes(range(256)), None])
def test_palettes_give_their_colours_without_a_warning(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = NOISE.convert("P", palette=Image.Palette.ADAPTIVE)
    path = saved(tmp_path / "x.png", image, **({} if transparency is None else {"transparency": transparency}))
    assert_reads_as(path, image.convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bits_of_grey_become_the_upper_8(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "x", Image.fromarray(DEEP), format=kind)
    assert_reads_as(path, (DEEP // 256)[..., np.newaxis].repeat(3, 2))


def test_16_bits_of_colour_become_the_upper_8_too(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "x.png").write_bytes(png(header(5, 4, bits=16), (b"IDAT", zlib.compress(rows))))
    assert_reads_as(tmp_path / "x.png", values // 256)


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 1), (16, 0)])
def test_tiffs_of_12_and_16_bits(tmp_path: Path, bits: int, photometric: int) -> None:
    values = RNG.integers(0, 2**bits, (6, 8), dtype=np.uint16)
    (tmp_path / "x.tif").write_bytes(grey_tiff(values, bits, photometric=photometric))
    grey = values >> (bits - 8)
    expected = 255 - grey if photometric == 0 else grey  # 0: the least value is white
    assert_reads_as(tmp_path / "x.tif", expected[..., np.newaxis].repeat(3, 2))


@pytest.mark.parametrize(("kind", "name"), [(np.int32, "signed whole numbers"), (np.float32, "fractions")])
def test_32_bits_of_grey_are_left_out(tmp_path: Path, kind: Any, name: str) -> None:
    path = saved(tmp_path / "x.tif", Image.fromarray(DEEP.astype(kind)))
    with pytest.raises(UnreadableImageError, match=f"its grey values are {name} of 32 bits"):
        decode_file(path)


def test_16_bits_with_a_sign_are_called_so(tmp_path: Path) -> None:
    content = grey_tiff(DEEP[:, :8], 16).replace(struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 339, 4, 1, 2))
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(
        UnreadableImageError, match=r"its grey values are signed whole numbers of 16 bits, of which none"
    ):
        decode_file(tmp_path / "x.tif")


def test_bands_that_are_no_image_are_named(tmp_path: Path) -> None:
    content = grey_tiff(DEEP, 16).replace(struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 277, 4, 1, 5))
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(
        UnreadableImageError, match=r"^it is a TIFF file that .*: it has 5 bands of whole numbers of 16"
    ):
        decode_file(tmp_path / "x.tif")


def test_a_header_that_is_cut_is_blamed_and_not_the_kind(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tif", compression="tiff_lzw")  # its header follows its pixels
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableImageError, match=r"^it is a TIFF file that cannot be read"):
        decode_file(path)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_is_read(tmp_path: Path, kind: str) -> None:
    frames = [ImageOps.invert(NOISE), NOISE.rotate(90), NOISE]
    options = {"lossless": True} if kind == "WEBP" else {}
    path = saved(tmp_path / "x.jpg", NOISE, format=kind, save_all=True, append_images=frames, **options)
    with Image.open(path) as image:
        assert image.n_frames > 1  # type: ignore[attr-defined]
    assert_reads_as(path, by_pillow(path))


def test_one_pixel(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", Image.new("RGB", (1, 1), (1, 2, 3)))
    assert_reads_as(path, [[[1, 2, 3]]])


@pytest.mark.parametrize(
    "content",
    [
        png(header(20_000, 20_000), (b"IDAT", zlib.compress(bytes(100_000)))),
        b"P6 20000 20000 255\n" + bytes(1000),
        bmp_header(20_000, 20_000),
        b"GIF89a"
        + struct.pack("<HHBBB", 20_000, 20_000, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 20_000, 20_000, 0)
        + b"\x08",
    ],
    ids=["png", "ppm", "bmp", "gif"],
)
def test_a_bomb_is_left_out_before_it_is_decoded(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    tracemalloc.start()
    started_s = time.perf_counter()
    with pytest.raises(UnreadableImageError, match=r"400000000 pixels.* exceeds limit of 178956970 pixels"):
        decode_file(tmp_path / "x.png")
    assert time.perf_counter() - started_s < 2
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_large_images_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns from 100, and refuses from 200
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(saved(tmp_path / "x.png")).load()
    assert_reads_as(tmp_path / "x.png", NOISE)


def test_warnings_of_others_are_left_alone(tmp_path: Path) -> None:
    decode_file(saved(tmp_path / "x.png"))
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def make_loop(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_pipe, "it is no regular file"),
        (make_socket, "it is no regular file"),
        (Path.mkdir, "it is no regular file"),
        (Path.touch, "it is empty"),
        (lambda path: path.symlink_to("/dev/zero"), "it is no regular file"),
        (lambda path: path.symlink_to("nothing"), "the link leads nowhere: No such file or directory"),
        (make_loop, "the link leads nowhere: Too many levels of symbolic links"),
    ],
    ids=["pipe", "socket", "folder", "empty", "device", "broken", "loop"],
)
def test_what_is_no_file_with_content_is_unreadable(tmp_path: Path, make: Callable[[Path], Any], reason: str) -> None:
    path = tmp_path / "x.jpg"
    make(path)
    with pytest.raises(UnreadableImageError, match=f"^{reason}$"):
        decode_file(path)
    images = file_images([path])
    assert images.digest() == file_images([path]).digest()  # and it did not wait for the pipe
    assert images.hashes() in ((None,), (None,))


def test_a_file_that_is_closed_to_us_is_unreadable(
    open_dir: Path, anybody: Callable[[], AbstractContextManager[None]]
) -> None:
    path = saved(open_dir / "x.png")
    path.chmod(0)
    with anybody():
        assert file_images([path]).hashes() == (None,)
        with pytest.raises(UnreadableImageError, match=r"^Permission denied$"):
            decode_file(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "GIF", "AVIF", "JPEG2000"])
def test_no_part_of_a_file_is_taken_for_the_whole(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    NOISE.save(buffer, kind)
    whole = buffer.getvalue()
    (tmp_path / "x").write_bytes(whole)
    expected = np.asarray(decode_file(tmp_path / "x"))
    unreadable = 0
    for length in itertools.chain(range(0, len(whole), 7), range(len(whole) - 12, len(whole))):
        (tmp_path / "x").write_bytes(whole[:length])
        try:
            read = decode_file(tmp_path / "x")
        except UnreadableImageError:
            unreadable += 1
        else:  # only what follows the pixels is missing
            np.testing.assert_array_equal(read, expected)
    assert unreadable > len(whole) // 7 // 2
