from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from featbench.config import DatasetConfig
from featbench.data.datasets import load_dataset
from featbench.data.folder import ENDINGS, scan_folder
from featbench.errors import DataError, UsageError

MakeTree = Callable[..., Path]
WriteImage = Callable[..., Path]

ANTS_AND_BEES = {"ants": 2, "bees": 3}


def tree_of(*splits: str) -> dict[str, int]:
    return {f"{split}/{name}": count for split in splits for name, count in ANTS_AND_BEES.items()}


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (("train", "val", "test"), {"train": "train", "val": "val", "test": "test"}),
        (("train", "test"), {"train": "train", "test": "test"}),
        (("train", "val"), {"train": "train", "test": "val"}),  # what is only called val is the test split
        (("train",), {"all": "train"}),
    ],
)
def test_layouts(make_tree: MakeTree, folders: tuple[str, ...], found: dict[str, str]) -> None:
    classes, splits, skipped, _ = scan_folder(make_tree(tree_of(*folders)))
    assert classes == ("ants", "bees")
    assert skipped == []
    assert set(splits) == set(found)
    for name, folder in found.items():
        assert splits[name].name == name
        assert splits[name].labels.tolist() == [0, 0, 1, 1, 1]
        assert splits[name].ids == tuple(f"{folder}/{file}" for file in _FILES)


_FILES = ("ants/0.png", "ants/1.png", "bees/0.png", "bees/1.png", "bees/2.png")


def test_one_folder_a_class_is_one_pile(make_tree: MakeTree) -> None:
    root = make_tree(ANTS_AND_BEES)
    _, splits, _, _ = scan_folder(root)
    assert set(splits) == {"all"}
    assert splits["all"].ids == _FILES
    assert splits["all"].images.items == tuple(str(root / file) for file in _FILES)  # type: ignore[union-attr]


def test_ids_do_not_depend_on_where_the_folder_is(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree(ANTS_AND_BEES)
    here = scan_folder(root)[1]["all"]
    digest = here.digest()
    there = scan_folder(root.rename(tmp_path / "moved"))[1]["all"]
    assert there.ids == here.ids
    assert there.digest() == digest


def test_folders_in_a_class_belong_to_it(make_tree: MakeTree, write_image: WriteImage) -> None:
    root = make_tree(ANTS_AND_BEES)
    write_image(root / "ants" / "red" / "9.png")
    split = scan_folder(root)[1]["all"]
    assert dict(zip(split.ids, split.labels.tolist(), strict=True))["ants/red/9.png"] == 0


@pytest.mark.parametrize("ending", [*ENDINGS, ".JPG", ".Png"])
def test_endings_of_images(make_tree: MakeTree, ending: str) -> None:
    root = make_tree(ANTS_AND_BEES)
    (root / "ants" / f"x{ending}").touch()
    _, splits, skipped, _ = scan_folder(root)
    assert f"ants/x{ending}" in splits["all"].ids
    assert skipped == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("train/ants/notes.txt", "its ending is not one of .jpg"),
        ("train/bees/Thumbs.db", "its ending is not one of .jpg"),
        ("test/ants/._0.png", "it is hidden"),
        ("test/ants/.ipynb_checkpoints/0.png", "it is hidden"),
        ("train/stray.png", "it lies outside the class folders"),
    ],
)
def test_files_that_are_left_out_are_listed(make_tree: MakeTree, file: str, reason: str) -> None:
    root = make_tree(tree_of("train", "test"))
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).touch()
    _, splits, skipped, _ = scan_folder(root)
    assert [(entry.split, entry.id) for entry in skipped] == [(file.split("/")[0], file)]
    assert skipped[0].reason.startswith(reason)
    assert sum(len(split) for split in splits.values()) == 10


def test_hidden_folders_are_no_classes(make_tree: MakeTree) -> None:
    assert scan_folder(make_tree(ANTS_AND_BEES | {".git": 1}))[0] == ("ants", "bees")


def test_there_is_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder '.*/nowhere'"):
        scan_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "there are no images in"),
        ({"ants": 3}, "only one class, 'ants'"),
        ({"ants": 3, "bees": 0}, "class 'bees' has no image in .*bees"),
        (tree_of("train") | {"test/ants": 1}, "the splits have different classes: test lacks bees"),
        (tree_of("train", "val") | {"val/wasps": 1}, "the splits have different classes: train lacks wasps"),
        (tree_of("val", "test"), "has val and test, but no train folder"),
    ],
)
def test_folders_that_make_no_data_set(make_tree: MakeTree, tmp_path: Path, tree: dict[str, int], message: str) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=message):
        scan_folder(make_tree(tree) if tree else tmp_path / "photos")


def test_a_class_with_two_images_cannot_be_split(make_tree: MakeTree) -> None:
    config = DatasetConfig(name="folder", root=make_tree({"ants": 2, "bees": 9}))
    with pytest.raises(DataError, match=r"too few images to be split into train, val and test: 'ants' has 2"):
        load_dataset(config, Path("/nowhere"), seed=0)


def test_ants_and_bees_as_found_in_the_wild(shared_dir: Path) -> None:
    classes, splits, skipped, _ = scan_folder(shared_dir / "data" / "hymenoptera")
    assert classes == ("ants", "bees")
    assert {name: len(split) for name, split in splits.items()} == {"train": 245, "test": 153}
    assert skipped == []
    assert "train/ants/imageNotFound.gif" in splits["train"].ids  # a picture, of words
