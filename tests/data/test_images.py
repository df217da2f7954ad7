from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.datasets import FakeData

from featbench.data.decode import UnreadableImageError
from featbench.data.images import ArrayImages, FileImages, ItemImages, file_images, gather_array

WriteImage = Callable[..., Path]

NOISE = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def test_files_are_decoded_as_pillow_does(tmp_path: Path, write_image: WriteImage) -> None:
    path = write_image(tmp_path / "x.jpg")
    np.testing.assert_array_equal(FileImages((path,)).read(0), Image.open(path))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(tmp_path / "x.jpg", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "x.jpg"))
    read = FileImages((tmp_path / "x.jpg",)).read(0)
    assert read.size == ((9, 14) if orientation >= 5 else (14, 9))
    np.testing.assert_array_equal(read, upright)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(NOISE).convert(mode)
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image.save(path)
    read = FileImages((path,)).read(0)
    assert read.mode == "RGB"
    np.testing.assert_array_equal(read, Image.open(path).convert("RGB"))
    if mode in ("L", "1", "LA"):
        red, green, blue = np.moveaxis(np.asarray(read), -1, 0)
        assert (red == green).all()
        assert (red == blue).all()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "it is empty"),
        ("text.png", b"<html>404</html>", r"it holds no image of a known kind \(JPEG, "),
        ("missing.png", None, "No such file"),
    ],
)
def test_what_is_no_image_is_unreadable(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason) as error:
        FileImages((tmp_path / name,)).read(0)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_files_are_unreadable(tmp_path: Path, kind: str) -> None:
    whole = io.BytesIO()
    Image.fromarray(NOISE).save(whole, kind)
    (tmp_path / "half").write_bytes(whole.getvalue()[: len(whole.getvalue()) * 2 // 3])
    with pytest.raises(UnreadableImageError, match=r"(?i)truncated"):
        FileImages((tmp_path / "half",)).read(0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM"])
def test_damaged_files_are_read_or_unreadable_and_nothing_else(tmp_path: Path, kind: str) -> None:
    whole = io.BytesIO()
    Image.fromarray(NOISE).save(whole, kind)
    rng = random.Random(0)
    unreadable = 0
    for _ in range(150):
        damaged = bytearray(whole.getvalue())
        for _ in range(rng.randrange(1, 8)):
            damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
        (tmp_path / "x").write_bytes(damaged)
        try:
            FileImages((tmp_path / "x",)).read(0)
        except UnreadableImageError:
            unreadable += 1
    assert unreadable > 0


@pytest.mark.parametrize("kind", [5, 7, 11])  # RATIONAL, UNDEFINED and FLOAT, where a LONG must be
def test_a_tiff_whose_offset_is_no_integer_is_unreadable(tmp_path: Path, kind: int) -> None:
    whole = io.BytesIO()
    Image.fromarray(NOISE).save(whole, "TIFF")
    damaged = bytearray(whole.getvalue())
    strip_offsets = (273).to_bytes(2, "little")
    damaged[damaged.index(strip_offsets + (4).to_bytes(2, "little")) + 2] = kind
    (tmp_path / "x.tif").write_bytes(damaged)
    with pytest.raises(UnreadableImageError):  # of Pillow's TypeError
        FileImages((tmp_path / "x.tif",)).read(0)


def test_a_decompression_bomb_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        FileImages((tmp_path / "x.png",)).read(0)


def test_the_digest_of_files_covers_their_bytes_and_order_but_not_their_names(tmp_path: Path) -> None:
    for name, content in {"a": b"1", "b": b"2", "c": b"1"}.items():
        (tmp_path / name).write_bytes(content)
    a, b, c = (tmp_path / name for name in "abc")
    assert file_images([a, b]).digest() == file_images([c, b]).digest()
    assert file_images([a, b]).digest() != file_images([b, a]).digest()
    before = file_images([a]).digest()
    a.write_bytes(b"3")
    assert file_images([a]).digest() != before


def test_subsets_are_in_the_order_asked_for(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abcd"]
    assert file_images(paths).subset(np.array([2, 0])).items == (str(paths[2]), str(paths[0]))
    array = ArrayImages(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1))
    assert array.subset(np.array([2, 0])).pixels.ravel().tolist() == [2, 0]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 4, 6), None), ((5, 4, 6, 3), None), ((5, 3, 4, 6), (0, 2, 3, 1)), ((5, 3, 32, 32), (0, 2, 3, 1))],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_gather_array_puts_channels_last(shape: tuple[int, ...], axes: tuple[int, ...] | None, kind: object) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = array.transpose(axes) if axes else array.reshape(*shape[:3], -1)
    np.testing.assert_array_equal(gather_array(kind(array)).pixels, expected)  # type: ignore[operator]


def test_items_are_those_of_the_data_set() -> None:
    fake = FakeData(size=6, image_size=(3, 7, 5))
    images = ItemImages(fake, np.array([4, 1]))
    np.testing.assert_array_equal(images.read(0), fake[4][0])
    np.testing.assert_array_equal(images.subset(np.array([1])).read(0), fake[1][0])


def test_the_digest_of_items_covers_their_pixels() -> None:
    fake, other = FakeData(size=3, image_size=(3, 4, 4)), FakeData(size=3, image_size=(3, 4, 4), random_offset=9)
    rows = np.arange(3)
    assert ItemImages(fake, rows).digest() == ItemImages(fake, rows).digest()
    assert ItemImages(fake, rows).digest() != ItemImages(fake, rows[::-1]).digest()
    assert ItemImages(fake, rows).digest() != ItemImages(other, rows).digest()
