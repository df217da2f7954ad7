from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featbench.data.images import file_images, gather_array
from featbench.data.loader import nearly_constant, read_all
from featbench.data.notes import add_notes
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split
from tests.data.files import grey_tiff

RNG = np.random.default_rng(0)
SMALL = Preprocess(resize_px=8, crop_px=8)


def notes_of(tmp_path: Path, **arrays: np.ndarray) -> dict[str, tuple[int, str]]:
    for name, values in arrays.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    files = file_images([tmp_path / f"{name}.png" for name in arrays])
    split = Split("train", files, np.zeros(len(arrays), np.int64), tuple(arrays))
    return dict(read_all(split, SMALL).notes)


def grey(low: int, high: int) -> np.ndarray:
    return RNG.integers(low, high, (8, 8), dtype=np.uint16)


def test_twelve_bits_in_sixteen_are_noted_with_the_first_of_them(tmp_path: Path) -> None:
    lowest = np.where(np.eye(8, dtype=bool), 4095, 0).astype(np.uint16)
    highest = np.where(np.eye(8, dtype=bool), 4096, 0).astype(np.uint16)
    assert notes_of(tmp_path, a=highest, b=lowest, c=grey(0, 4096), d=grey(0, 65536)) == {"twelve_bits": (2, "b")}


def test_twelve_bits_that_a_file_declares_are_all_used(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(grey_tiff(grey(0, 4096), 12))
    split = Split("train", file_images([tmp_path / "x.tif"]), np.zeros(1, np.int64), ("x",))
    assert read_all(split, SMALL).notes == {}


def test_eight_bits_in_sixteen_are_black_and_noted_as_plain(tmp_path: Path) -> None:
    assert notes_of(tmp_path, a=grey(0, 256), b=grey(0, 65536)) == {"constant": (1, "a")}


def test_plain_images_are_noted_whatever_their_colour(tmp_path: Path) -> None:
    red = np.full((8, 8, 3), (200, 10, 10), np.uint8)
    nearly = red + RNG.integers(0, 4, red.shape, dtype=np.uint8)
    dot = red.copy()
    dot[3, 4] = 255
    assert notes_of(tmp_path, dot=dot, nearly=nearly, red=red) == {"constant": (2, "nearly")}


def test_plain_arrays_are_noted(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (600, 8, 8), dtype=np.uint8)
    pixels[[7, 300, 599]] = 9
    split = Split("train", gather_array(pixels), np.zeros(600, np.int64), tuple(map(str, range(600))))
    assert read_all(split, SMALL).notes == {"constant": (3, "7")}


@pytest.mark.parametrize("place", [(0, 0), (100, 57), (223, 223)])
def test_one_spot_in_a_large_image_is_no_plain_image(place: tuple[int, int]) -> None:
    images = torch.full((2, 3, 224, 224), 50, dtype=torch.uint8)
    images[1, 2, *place] = 54
    assert nearly_constant(images) == [0]
    assert nearly_constant(images[:0]) == []


def test_parts_add_up() -> None:
    assert add_notes({"a": (1, "x")}, {}, {"a": (2, "y"), "b": (1, "z")}) == {"a": (3, "x"), "b": (1, "z")}
    assert add_notes() == {}
