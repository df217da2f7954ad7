"""Layouts of folders: what each is taken for, and that the lines of messages go on when pasted."""

from __future__ import annotations

import re
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from featbench.config import DatasetConfig, load_experiment
from featbench.data.datasets import load_dataset
from featbench.data.folder import scan_folder
from featbench.data.layout import SPLIT_NAMES
from featbench.data.splits import Dataset
from featbench.errors import DataError, UsageError

MakeTree = Callable[..., Path]
WriteImage = Callable[..., Path]


def tree_of(*places: str, classes: tuple[str, ...] = ("ants", "bees"), count: int = 4) -> dict[str, int]:
    return {f"{place}/{name}".strip("/"): count for place in places for name in classes}


def load(root: Path) -> Dataset:
    return load_dataset(DatasetConfig(name="folder", root=root), Path("/nowhere"), seed=0)


def sizes(root: Path) -> dict[str, int]:
    return {name: len(split) for name, split in load(root).splits.items()}


def pasted(message: object, block: int = 0) -> str:
    """Paste one block of a message's lines into a shell."""
    lines = str(message).split("\n\n")[1::2][block]
    done = subprocess.run(["/bin/sh", "-ec", lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SPLIT_NAMES)
@pytest.mark.parametrize("change", [str.lower, str.capitalize, str.upper])
def test_every_name_of_a_split_in_any_case(make_tree: MakeTree, name: str, change: Callable[[str], str]) -> None:
    others = {"train": "Train", "val": "VALID", "test": "testing"}
    named = others | {SPLIT_NAMES[name]: change(name)}
    root = make_tree(tree_of(*named.values()))
    assert sizes(root) == {"train": 8, "val": 8, "test": 8}
    assert load(root).classes == ("ants", "bees")
    assert load(root).splits[SPLIT_NAMES[name]].ids[0] == f"{change(name)}/ants/0.png"
    assert load(root).remarks == ()


@pytest.mark.parametrize("name", ["val", "valid", "Dev"])
def test_val_beside_train_alone_is_the_test_split_and_said_so(make_tree: MakeTree, name: str) -> None:
    root = make_tree(tree_of("train", name))
    assert sizes(root) == {"train": 8, "test": 8}
    (remark,) = load(root).remarks
    assert remark.startswith(f"{name}/ is the test split, since there is no other")


def test_two_folders_for_one_split(make_tree: MakeTree) -> None:
    with pytest.raises(DataError, match=r"photos: val and valid are both the val split; put their images together"):
        scan_folder(make_tree(tree_of("train", "val", "valid")))


def test_a_class_that_is_called_train(make_tree: MakeTree) -> None:
    root = make_tree({"train": 4, "bus": 4, "test": 4, "train/at night": 1, "test/at night": 1})
    classes, splits, skipped, _ = scan_folder(root)
    assert classes == ("bus", "test", "train")
    assert len(splits["all"]) == 14
    assert skipped == []


@pytest.mark.parametrize(
    "folders",
    [
        ["north/2024", "south/2025"],  # folders in folders of a class
        ["images"],  # one folder in each class
    ],
)
def test_folders_in_classes_belong_to_them(make_tree: MakeTree, folders: list[str]) -> None:
    root = make_tree({f"{name}/{folder}": 4 for name in ("ants", "bees") for folder in folders})
    classes, splits, _, _ = scan_folder(root)
    assert classes == ("ants", "bees")
    assert len(splits["all"]) == 8 * len(folders)


def test_what_looks_like_splits_is_not_taken_for_classes(make_tree: MakeTree) -> None:
    root = make_tree(tree_of("fold_a", "fold b"))
    with pytest.raises(DataError) as caught:
        scan_folder(root)
    message = str(caught.value)
    assert "fold b and fold_a each hold folders of images called ants and bees, so they look like splits" in message
    assert "train, training; val, valid, validation, dev; test, testing, eval, in any case" in message
    pasted(message)
    assert sizes(root) == {"train": 8, "test": 8}


def test_what_looks_like_splits_may_be_classes_after_all(make_tree: MakeTree) -> None:
    root = make_tree(tree_of("ants", "bees", classes=("left", "right")))
    with pytest.raises(DataError, match="ants and bees each hold folders of images called left and right") as caught:
        scan_folder(root)
    pasted(caught.value, block=1)
    classes, splits, _, _ = scan_folder(root)
    assert classes == ("ants", "bees")
    assert "ants/left_0.png" in splits["all"].ids
    assert len(splits["all"]) == 16


def test_names_that_nearly_say_it_are_guessed(make_tree: MakeTree) -> None:
    root = make_tree(tree_of("my_test_set", "a_train_set"))
    with pytest.raises(DataError) as caught:
        scan_folder(root)
    pasted(caught.value)
    assert load(root).splits["train"].ids == tuple(f"train/{n}/{i}.png" for n in ("ants", "bees") for i in range(4))
    assert {path.name for path in root.iterdir()} == {"train", "test"}


def test_a_folder_beside_the_splits_that_has_their_classes_is_named(make_tree: MakeTree) -> None:
    root = make_tree(tree_of("train", "test", "holdout") | {"docs/figures": 2})
    (remark,) = load(root).remarks
    assert remark.startswith(
        "holdout/ has folders of the same names as train/, and is not read: splits are called train"
    )


@pytest.mark.parametrize("test_folder", ["test", "test/unknown"])
def test_a_test_folder_without_classes_is_unlabelled(make_tree: MakeTree, test_folder: str) -> None:
    root = make_tree(tree_of("train", count=10) | {test_folder: 5})
    assert sizes(root) == {"train": 14, "val": 3, "test": 3}
    (remark,) = load(root).remarks
    assert re.match(r"test/ has images, but none of the class folders of train/.*predict RESULTS \S+/test`", remark)


def test_an_unlabelled_test_folder_leaves_val_to_test_with(make_tree: MakeTree) -> None:
    root = make_tree(tree_of("train", "val") | {"test": 5})
    assert sizes(root) == {"train": 8, "test": 8}
    assert [remark.split(" ")[0] for remark in load(root).remarks] == ["test/", "val/"]


def test_classes_that_some_split_lacks(make_tree: MakeTree) -> None:
    root = make_tree(tree_of("train", "test") | {"train/wasps": 3, "test/flies": 2, "test/gnats": 2})
    with pytest.raises(DataError, match=r"train lacks flies and gnats; test lacks wasps. Add images there") as caught:
        scan_folder(root)
    pasted(caught.value)
    assert load(root).classes == ("ants", "bees")


def test_names_that_differ_only_in_unicode_form_are_one_class(make_tree: MakeTree) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert unicodedata.normalize("NFC", decomposed) == composed
    root = make_tree(tree_of("train", classes=(decomposed, "ants")) | tree_of("test", classes=(composed, "ants")))
    dataset = load(root)
    assert dataset.classes == ("ants", composed)
    assert dataset.splits["train"].labels.tolist() == dataset.splits["test"].labels.tolist() == [0] * 4 + [1] * 4


def test_a_class_of_too_few_images(make_tree: MakeTree) -> None:
    root = make_tree({"ants": 4, "bees": 4, "a wasp": 1})
    with pytest.raises(DataError, match=r"too few images to be split .*: 'a wasp' has 1\. A class needs") as caught:
        load(root)
    pasted(caught.value)
    assert load(root).classes == ("ants", "bees")


@pytest.mark.parametrize("names", ["ant.{}.png", "ant {}.png", "ant_{}.PNG"])
def test_a_flat_folder_whose_files_tell_their_classes(tmp_path: Path, write_image: WriteImage, names: str) -> None:
    root = tmp_path / "my photos"
    for number in range(4):
        write_image(root / names.format(number))
        write_image(root / names.format(number).replace("ant", "bee"))
    with pytest.raises(
        DataError, match=r"my photos holds 8 images, and no folders .*, here ant and bee, these"
    ) as caught:
        scan_folder(root)
    pasted(caught.value)
    assert load(root).classes == ("ant", "bee")
    assert len(scan_folder(root)[1]["all"]) == 8


def test_a_flat_folder_of_camera_names(tmp_path: Path, write_image: WriteImage) -> None:
    for number in range(4):
        write_image(tmp_path / f"IMG_{number}.png")
    with pytest.raises(DataError, match="the file names do not seem to contain it") as caught:
        scan_folder(tmp_path)
    pasted(caught.value)
    assert (tmp_path / "cat").is_dir()


def test_flat_splits(tmp_path: Path, write_image: WriteImage) -> None:
    for split in ("train", "test"):
        for number in range(4):
            write_image(tmp_path / split / f"cat.{number}.png")
            write_image(tmp_path / split / f"dog.{number}.png")
    with pytest.raises(DataError, match=r"test and train hold images, and no folders of classes\.") as caught:
        scan_folder(tmp_path)
    pasted(caught.value)
    assert sizes(tmp_path) == {"train": 8, "test": 8}


def test_one_folder_too_many_above_the_classes(make_tree: MakeTree) -> None:
    root = make_tree(tree_of("photos"))
    with pytest.raises(
        DataError, match=r"only one class, 'photos', .*; where ants and bees are the classes, run \S+/photos$"
    ):
        scan_folder(root)


def test_files_of_endings_that_are_not_read_are_counted(make_tree: MakeTree) -> None:
    root = make_tree({"ants": 4, "bees": 0})
    for name in ("0.npy", "1.NPY", "2.heic", "3"):
        (root / "bees" / name).touch()
    with pytest.raises(
        DataError, match=r"'bees' has no image in \S+ \(\.npy: 2 files, \.heic: 1 file, no ending: 1 file\)"
    ):
        scan_folder(root)


@pytest.mark.parametrize("ending", [".jfif", ".gif"])
def test_what_predict_reads_training_reads(make_tree: MakeTree, write_image: WriteImage, ending: str) -> None:
    root = make_tree({"ants": 4, "bees": 4})
    write_image(root / "ants" / "9.png").rename(root / "ants" / f"9{ending}")
    assert f"ants/9{ending}" in scan_folder(root)[1]["all"].ids


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("path,label,group", "{path},{label},1"),
        ("\ufefffilename;species", "{path};{label}"),
        ("class\timage", "{label}\t{path}"),
    ],
)
def test_a_table_is_not_read_yet_but_becomes_a_folder(
    tmp_path: Path, write_image: WriteImage, head: str, line: str
) -> None:
    lines = [head]
    for number in range(8):
        path = write_image(tmp_path / "img" / f"{number}.png").relative_to(tmp_path)
        lines.append(line.format(path=path, label="an ant" if number % 2 else "bee/wasp"))
    table = tmp_path / ("labels.tsv" if "\t" in head else "my labels.csv")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"labels.* is a table, and tables of images are not read yet") as caught:
        load_experiment(str(table))
    script, _, command = str(caught.value).split("\n\n")[1].rpartition("\n")
    subprocess.run(["/bin/sh", "-ec", script], check=True)
    folder = tmp_path / f"{table.stem}_by_class"
    assert load(folder).classes == ("an ant", "bee_wasp")
    assert len(scan_folder(folder)[1]["all"]) == 8
    assert command.startswith("featbench run ")
