from __future__ import annotations

import numpy as np
import pytest

from featbench.config import DatasetConfig
from featbench.data.images import ArrayImages
from featbench.data.splits import Split, held_out_rows, limit, split_whole
from featbench.errors import DataError


def pile(*counts: int) -> Split:
    """Images whose one pixel is their own row number, `counts[c]` of class c, in mixed order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Split("train", ArrayImages(pixels), labels, tuple(f"{row:03d}" for row in range(len(labels))))


def rows_of(split: Split) -> list[int]:
    assert isinstance(split.images, ArrayImages)
    return split.images.pixels.ravel().tolist()


def test_a_subset_keeps_images_labels_and_ids_together() -> None:
    split = pile(5, 5)
    subset = split.subset(np.array([7, 0, 3]), "test")
    assert subset.name == "test"
    assert rows_of(subset) == [7, 0, 3]
    assert subset.ids == ("007", "000", "003")
    assert subset.labels.tolist() == [split.labels[7], split.labels[0], split.labels[3]]


@pytest.mark.parametrize("what", ["images", "labels", "ids", "order"])
def test_the_digest_covers_images_labels_ids_and_order(what: str) -> None:
    split = pile(5, 5)
    assert isinstance(split.images, ArrayImages)
    changed = {
        "images": lambda: Split("train", ArrayImages(split.images.pixels + 1), split.labels, split.ids),
        "labels": lambda: Split("train", split.images, 1 - split.labels, split.ids),
        "ids": lambda: Split("train", split.images, split.labels, ("x", *split.ids[1:])),
        "order": lambda: split.subset(np.arange(10)[::-1]),
    }[what]()
    assert changed.digest() != split.digest()
    assert split.subset(np.arange(10)).digest() == split.digest()


def test_split_whole_shares_out_every_row_once_in_order() -> None:
    splits = split_whole(pile(40, 20), DatasetConfig(name="digits"), ("a", "b"), seed=0)
    assert {name: np.bincount(split.labels).tolist() for name, split in splits.items()} == {
        "train": [28, 14],
        "val": [6, 3],
        "test": [6, 3],
    }
    for split in splits.values():
        assert rows_of(split) == sorted(rows_of(split)) == [int(id_) for id_ in split.ids]
    assert sorted(row for split in splits.values() for row in rows_of(split)) == list(range(60))


def test_a_class_with_two_images_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"class 'b' has too few images \(2\)"):
        split_whole(pile(20, 2), DatasetConfig(name="digits"), ("a", "b"), seed=0)


def test_fractions_too_small_for_one_image_a_class_are_refused() -> None:
    config = DatasetConfig(name="digits", test_fraction=0.1)
    with pytest.raises(DataError, match=r"0\.1 of 9 images cannot be held out so that each of 3 classes"):
        split_whole(pile(3, 3, 3), config, ("a", "b", "c"), seed=0)


def test_held_out_rows_are_stratified_and_ascending() -> None:
    labels = np.array([0, 1] * 20)
    kept, held = held_out_rows(labels, 10, seed=3)
    assert np.bincount(labels[held]).tolist() == [5, 5]
    assert kept.tolist() == sorted(set(range(40)) - set(held.tolist()))
    assert held.tolist() == sorted(held.tolist())


@pytest.mark.parametrize("count", [None, 30, 99])
def test_a_limit_that_limits_nothing_leaves_the_split_alone(count: int | None) -> None:
    split = pile(15, 15)
    assert limit(split, count, seed=0) is split


def test_a_limit_below_the_number_of_classes_is_refused() -> None:
    with pytest.raises(DataError, match="limit_train = 2 is fewer than one image for each of 3 classes"):
        limit(pile(5, 5, 5), 2, seed=0)


@pytest.mark.parametrize("count", range(10, 20))
@pytest.mark.parametrize("seed", range(3))
def test_no_limit_loses_a_class(count: int, seed: int) -> None:
    limited = limit(pile(*[2] * 10), count, seed)
    assert len(limited) == count
    assert np.bincount(limited.labels, minlength=10).min() >= 1
    assert rows_of(limited) == sorted(rows_of(limited))


def test_the_seed_decides_which_rows_a_limit_keeps() -> None:
    for count in (20, 59):
        one, again, other = (rows_of(limit(pile(30, 30), count, seed)) for seed in (1, 1, 2))
        assert one == again
        assert one != other
