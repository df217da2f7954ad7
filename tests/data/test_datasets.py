from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featbench.config import DatasetConfig
from featbench.data.datasets import DATASETS, check_dataset, load_dataset
from featbench.data.images import ArrayImages
from featbench.data.splits import Dataset
from featbench.errors import UsageError

MakeTree = Callable[..., Path]

NOWHERE = Path("/nowhere")


def digits(seed: int = 0, **settings: float) -> Dataset:
    return load_dataset(DatasetConfig(name="digits", **settings), NOWHERE, seed=seed, offline=True)


def test_digits_are_those_of_scikit_learn() -> None:
    dataset = digits()
    bunch = load_digits()
    assert dataset.classes == tuple("0123456789")
    for split in dataset.splits.values():
        rows = [int(id_.removeprefix("digits/")) for id_ in split.ids]
        assert isinstance(split.images, ArrayImages)
        assert split.images.pixels.shape[1:] == (8, 8, 1)
        np.testing.assert_array_equal(split.labels, bunch.target[rows])
        # 0 to 16 became 0 to 255, rounded
        np.testing.assert_allclose(split.images.pixels[..., 0], bunch.images[rows] * 255 / 16, atol=0.5)


def test_digits_are_split_70_15_15_and_stratified() -> None:
    splits = digits().splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 1257, "val": 270, "test": 270}
    whole = np.bincount(load_digits().target) / 1797
    for split in splits.values():
        np.testing.assert_allclose(np.bincount(split.labels), whole * len(split), atol=1.5)


def test_splits_are_disjoint_and_cover_all() -> None:
    ids = [id_ for split in digits().splits.values() for id_ in split.ids]
    assert len(ids) == len(set(ids)) == 1797


def test_the_seed_alone_decides_the_split() -> None:
    one, again, other = (digits(seed).splits["train"] for seed in (1, 1, 2))
    assert one.ids == again.ids
    assert one.digest() == again.digest()
    assert set(one.ids) != set(other.ids)
    assert one.digest() != other.digest()


def test_rows_keep_the_order_of_the_data_set() -> None:
    for split in digits().splits.values():
        assert list(split.ids) == sorted(split.ids)


def test_fractions_set_the_sizes() -> None:
    splits = digits(val_fraction=0.1, test_fraction=0.4).splits
    np.testing.assert_allclose([len(splits[name]) for name in ("train", "val", "test")], [898.5, 179.7, 718.8], atol=1)


def test_limits_are_stratified_seeded_and_ordered() -> None:
    whole = digits().splits
    limited = digits(limit_train=200, limit_test=50).splits
    assert {name: len(split) for name, split in limited.items()} == {"train": 200, "val": 270, "test": 50}
    train = limited["train"]
    assert set(train.ids) < set(whole["train"].ids)
    assert list(train.ids) == sorted(train.ids)
    np.testing.assert_allclose(np.bincount(train.labels), np.bincount(whole["train"].labels) * 200 / 1257, atol=1)
    assert train.ids == digits(limit_train=200).splits["train"].ids


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown data set 'fashon_mnist'; did you mean 'fashion_mnist'"):
        check_dataset(DatasetConfig(name="fashon_mnist"))


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_what_it_is(name: str) -> None:
    assert DATASETS[name]


@pytest.mark.parametrize(
    ("name", "key"), [("mnist", "test_fraction"), ("dtd", "val_fraction"), ("oxford_pets", "test_fraction")]
)
def test_fractions_of_splits_that_a_set_has_itself_are_refused(name: str, key: str) -> None:
    with pytest.raises(UsageError, match=f"dataset.{key} has no effect: {name} has a"):
        check_dataset(DatasetConfig(name=name, **{key: 0.2}))


@pytest.mark.parametrize("name", ["eurosat", "digits"])
def test_fractions_of_sets_without_splits_are_taken(name: str) -> None:
    check_dataset(DatasetConfig(name=name, val_fraction=0.2, test_fraction=0.2))


def test_a_folder_without_splits_is_split_70_15_15(make_tree: MakeTree) -> None:
    root = make_tree({"ants": 20, "bees": 20})
    dataset = load_dataset(DatasetConfig(name="folder", root=root), NOWHERE, seed=0)
    assert dataset.name == "photos"
    assert dataset.classes == ("ants", "bees")
    counts = {name: np.bincount(split.labels).tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [14, 14], "val": [3, 3], "test": [3, 3]}
    for split in dataset.splits.values():
        assert [id_.split("/")[0] for id_ in split.ids] == [dataset.classes[label] for label in split.labels]


def test_a_folder_with_val_alone_has_no_val_split_of_its_own(make_tree: MakeTree) -> None:
    root = make_tree({f"{split}/{name}": 3 for split in ("train", "val") for name in ("ants", "bees")})
    config = DatasetConfig(name="folder", root=root)
    assert set(load_dataset(config, NOWHERE, seed=0).splits) == {"train", "test"}
    with pytest.raises(UsageError, match="test_fraction has no effect: folder has a test split of its own"):
        load_dataset(config.model_copy(update={"test_fraction": 0.2}), NOWHERE, seed=0)


def test_hashes_of_files_are_remembered_and_a_changed_file_is_seen(make_tree: MakeTree, tmp_path: Path) -> None:
    root, memo_dir = make_tree({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1}), tmp_path / "memo"

    def digests(**settings: int) -> dict[str, str]:
        config = DatasetConfig(name="folder", root=root, **settings)
        splits = load_dataset(config, NOWHERE, seed=0, memo_dir=memo_dir).splits
        return {name: split.digest() for name, split in splits.items()}

    files = sorted(root.rglob("*.png"))
    for file in files:
        os.utime(file, (1_600_000_000, 1_600_000_000))
    first = digests()
    time.sleep(2.1)  # until then none is remembered
    assert digests() == first
    assert len(list(memo_dir.iterdir())) == 2
    files[-1].write_bytes(files[-1].read_bytes()[:-1] + b"x")
    os.utime(files[-1], (1_600_000_000, 1_600_000_000))
    changed = digests()
    assert changed["train"] != first["train"]
    assert changed["test"] == first["test"]
