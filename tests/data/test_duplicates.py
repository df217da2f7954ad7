from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featbench.data.duplicates import describe_duplicates
from featbench.data.folder import scan_folder
from featbench.data.images import gather_array
from featbench.data.splits import Split

MakeTree = Callable[..., Path]


def arrays(name: str, values: list[int], labels: list[int]) -> Split:
    pixels = np.asarray(values, np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    ids = tuple(f"{name}/{row}" for row in range(len(values)))
    return Split(name, gather_array(pixels), np.asarray(labels, np.int64), ids)


def test_no_duplicates_no_words(make_tree: MakeTree) -> None:
    tree = {f"{split}/{name}": 2 for split in ("train", "val", "test") for name in ("ants", "bees")}
    _, splits, _, _ = scan_folder(make_tree(tree))
    for number, path in enumerate(path for split in splits.values() for path in map(Path, split.images.items)):  # type: ignore[union-attr]
        path.write_bytes(bytes([number]))
    assert describe_duplicates(splits) == []


def test_leaks_are_counted_with_an_example() -> None:
    splits = {
        "train": arrays("train", [1, 2, 3, 4], [0, 0, 1, 1]),
        "val": arrays("val", [5, 2], [1, 0]),
        "test": arrays("test", [3, 6, 3, 5], [1, 0, 1, 1]),
    }
    assert describe_duplicates(splits) == [
        "1 image of val is in train too, a leak that makes val accuracy look better than it is: val/1 is train/1",
        "2 images of test are in train too, a leak that makes test accuracy look better than it is: test/0 is train/2",
        "1 image of test is in val too, a leak that makes test accuracy look better than it is: test/3 is val/0",
    ]


def test_images_under_two_classes_are_counted() -> None:
    splits = {"train": arrays("train", [1, 2, 1, 1, 9, 2], [0, 0, 1, 1, 0, 1]), "test": arrays("test", [7, 8], [0, 1])}
    assert describe_duplicates(splits) == [
        "2 images are under two classes, so that one label must be wrong: train/0 is train/2"
    ]


def test_files_that_hold_no_image_do_not_count(make_tree: MakeTree) -> None:
    root = make_tree({f"{split}/{name}": 3 for split in ("train", "test") for name in ("ants", "bees")})
    for path in root.rglob("*.png"):
        path.write_bytes(b"" if path.stem == "0" else b"<html>" if path.stem == "1" else path.as_posix().encode())
    (root / "train/ants/3.png").symlink_to("nowhere")
    (root / "test/bees/3.png").symlink_to("nowhere")
    _, splits, _, _ = scan_folder(root)
    pages = {name for split in splits.values() for name in split.ids if name.endswith("1.png")}
    assert describe_duplicates(splits, pages) == []
    assert len(describe_duplicates(splits)) == 2


def test_sixty_thousand_digits_take_a_moment() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), dtype=np.uint8)
    pixels[[7, 59_000]] = 0
    ids = tuple(map(str, range(60_000)))
    split = Split("train", gather_array(pixels), np.zeros(60_000, np.int64), ids)
    started_s = time.process_time()
    found = describe_duplicates(
        {"train": split.subset(np.arange(50_000)), "test": split.subset(np.arange(50_000, 60_000))}
    )
    assert time.process_time() - started_s < 3  # half a second, on a machine with nothing else to do
    assert [sentence.split(":")[1] for sentence in found] == [" 59000 is 7"]
