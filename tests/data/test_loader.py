from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import FakeData

from featbench.data.images import ItemImages, file_images, gather_array
from featbench.data.loader import image_shape, read_all, read_batches, read_together
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split
from featbench.errors import DataError

WriteImage = Callable[..., Path]

SIDE_PX = 10
AS_IS = Preprocess(SIDE_PX, SIDE_PX)


def files_split(paths: list[Path]) -> Split:
    return Split("train", file_images(paths), np.arange(len(paths)), tuple(path.name for path in paths))


@pytest.fixture
def photos(tmp_path: Path, write_image: WriteImage) -> list[Path]:
    """11 photos of which 2, 3, 4 and 7 cannot be decoded."""
    paths = [write_image(tmp_path / f"{row:02d}.png", size=(SIDE_PX + row, SIDE_PX)) for row in range(11)]
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    paths[3].write_bytes(b"garbage")
    paths[4].write_bytes(b"")
    paths[7].unlink()
    return paths


GOOD_ROWS = [0, 1, 5, 6, 8, 9, 10]


@pytest.mark.parametrize("arrays", [False, True])
def test_read_together_gives_each_preprocessing_its_own_batches(photos: list[Path], *, arrays: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 9, 9, 3)).astype(np.uint8)
    split = Split("train", gather_array(pixels), np.zeros(11, np.int64), ("",) * 11) if arrays else files_split(photos)
    several = [AS_IS, Preprocess(6, 4), Preprocess(8, 8, mean=(0.5,), std=(0.5,))]
    together = list(zip(*read_together(split, several, 4), strict=True))
    assert len(together) == 3
    for preprocess, batches in zip(several, together, strict=True):
        for got, alone in zip(batches, read_batches(split, preprocess, 4), strict=True):
            assert got.rows.tolist() == alone.rows.tolist()
            assert got.skipped == alone.skipped
            assert got.images.shape[1:] == preprocess.photo_shape
            assert torch.equal(got.images, alone.images)


def pillow_crop(path: Path) -> np.ndarray:
    """The middle square of a photo that is as high as the crop."""
    image = np.asarray(Image.open(path))
    left = round((image.shape[1] - SIDE_PX) / 2)
    return image[:, left : left + SIDE_PX].transpose(2, 0, 1)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("threads", [1, 4])
def test_rows_stay_with_their_images(photos: list[Path], batch_size: int, threads: int) -> None:
    batches = list(read_batches(files_split(photos), AS_IS, batch_size, threads=threads))
    rows = np.concatenate([batch.rows for batch in batches])
    assert rows.tolist() == GOOD_ROWS
    for batch in batches:
        assert batch.images.shape == (len(batch.rows), 3, SIDE_PX, SIDE_PX)
        assert batch.images.dtype == torch.uint8
        assert len(batch.rows) + len(batch.skipped) <= batch_size
        for row, image in zip(batch.rows, batch.images, strict=True):
            np.testing.assert_array_equal(image, pillow_crop(photos[row]))


def test_bad_images_are_named_with_the_reason(photos: list[Path]) -> None:
    skipped = [entry for batch in read_batches(files_split(photos), AS_IS, 4) for entry in batch.skipped]
    assert [(entry.split, entry.id) for entry in skipped] == [
        ("train", name) for name in ("02.png", "03.png", "04.png", "07.png")
    ]
    for entry, reason in zip(skipped, ("truncated", "no image", "empty", "No such file"), strict=True):
        assert reason in entry.reason


def test_bad_images_stop_where_they_must(photos: list[Path]) -> None:
    with pytest.raises(DataError, match=r'image 02\.png cannot be read: .*on_bad_image = "skip"'):
        list(read_batches(files_split(photos), AS_IS, 4, on_bad_image="error"))


def test_good_images_do_not_stop(photos: list[Path]) -> None:
    good = files_split([photos[row] for row in GOOD_ROWS])
    assert len(read_all(good, AS_IS, on_bad_image="error").rows) == len(GOOD_ROWS)


def test_read_all_is_every_batch(photos: list[Path]) -> None:
    batch = read_all(files_split(photos), AS_IS)
    assert batch.rows.tolist() == GOOD_ROWS
    assert len(batch.images) == len(GOOD_ROWS)
    assert len(batch.skipped) == 4
    np.testing.assert_array_equal(batch.images[2], pillow_crop(photos[5]))


def test_a_reader_that_stops_early_leaves_no_thread_waiting(photos: list[Path]) -> None:
    batches = read_batches(files_split(photos), AS_IS, 2)
    assert next(batches).rows.tolist() == [0, 1]
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_arrays_come_in_order(batch_size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    split = Split("test", gather_array(pixels), np.arange(7), tuple("abcdefg"))
    batches = list(read_batches(split, AS_IS, batch_size))
    assert [len(batch.rows) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert np.concatenate([batch.rows for batch in batches]).tolist() == list(range(7))
    np.testing.assert_array_equal(torch.cat([batch.images for batch in batches]), pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_resized_arrays_do_not_depend_on_the_batch(batch_size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8)
    split = Split("test", gather_array(pixels), np.zeros(9, np.int64), tuple("abcdefghi"))
    preprocess = Preprocess(32, 28, interpolation="bicubic")
    batches = torch.cat([batch.images for batch in read_batches(split, preprocess, batch_size)])
    assert torch.equal(batches, read_all(split, preprocess).images)


@pytest.fixture
def threads_that_switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_that_switch_often")
def test_items_that_share_a_generator_are_the_same_on_every_thread() -> None:
    fake = FakeData(size=200, image_size=(3, 64, 64))
    split = Split("train", ItemImages(fake, np.arange(200)), np.zeros(200, np.int64), tuple(map(str, range(200))))
    read = torch.cat([batch.images for batch in read_batches(split, Preprocess(64, 64), 100, threads=8)])
    expected = np.stack([np.asarray(image) for image, _ in fake]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(
    ("pixels_shape", "preprocess", "shape"),
    [
        ((2, 8, 8), Preprocess(32, 28), (3, 28, 28)),
        ((2, 8, 8), Preprocess(32, 32, native_arrays=True), (1, 8, 8)),
        ((2, 8, 12, 3), Preprocess(32, 32, native_arrays=True), (3, 8, 8)),
        ((2, 8, 8), Preprocess(32, 28, mean=(0.5,), std=(0.5,)), (1, 28, 28)),
    ],
)
def test_image_shape_of_arrays(
    pixels_shape: tuple[int, ...], preprocess: Preprocess, shape: tuple[int, int, int]
) -> None:
    split = Split("test", gather_array(np.zeros(pixels_shape, np.uint8)), np.zeros(2, np.int64), ("a", "b"))
    assert image_shape(split, preprocess) == shape


def test_image_shape_of_files_opens_none() -> None:
    assert image_shape(files_split([Path("/nowhere.png")]), Preprocess(32, 28)) == (3, 28, 28)
