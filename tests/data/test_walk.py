from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from featbench.data.folder import scan_folder
from featbench.data.walk import HIDDEN, Found, walk
from featbench.errors import DataError, UsageError

Anybody = Callable[[], AbstractContextManager[None]]
MakeTree = Callable[..., Path]


def images(folder: Path) -> list[str]:
    return [Path(found.path).relative_to(folder).as_posix() for found in walk(folder) if not found.reason]


def left_out(folder: Path) -> dict[str, str]:
    return {Path(found.path).relative_to(folder).as_posix(): found.reason for found in walk(folder) if found.reason}


def fill(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def test_files_come_in_the_order_of_the_parts_of_their_paths(tmp_path: Path) -> None:
    files = ["a/z.png", "a-b/y.png", "a.png", "B/x.png", "a/b/c.png"]
    fill(tmp_path, *files)
    assert images(tmp_path) == sorted(files, key=lambda file: Path(file).parts)


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    disk = fill(tmp_path / "disk", "more/1.png", "0.png")
    ants = fill(tmp_path / "ants", "9.png")
    (ants / "8.png").symlink_to(disk / "0.png")
    (ants / "more").symlink_to(disk / "more")
    assert images(ants) == ["8.png", "9.png", "more/1.png"]
    assert left_out(ants) == {}


@pytest.mark.parametrize("target", [".", "..", "../..", "real", "real/..", "/"])
def test_links_that_lead_back_end(tmp_path: Path, target: str) -> None:
    ants = fill(tmp_path / "photos" / "ants", "0.png", "real/1.png")
    fill(tmp_path / "photos" / "bees", "2.png")
    for place in ("a", "real/b", "z"):
        (ants / place).symlink_to(ants / target)
    assert images(ants) == ["0.png", "real/1.png"]
    assert list(left_out(ants)) == ["a", "real/b", "z"]
    assert all(reason.startswith("the link leads to a folder that") for reason in left_out(ants).values())


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    one, other = fill(tmp_path / "one", "0.png"), fill(tmp_path / "other", "1.png")
    (one / "other").symlink_to(other)
    (other / "one").symlink_to(one)
    (one / "twice").symlink_to(other)
    assert images(one) == ["0.png", "other/1.png"]
    assert list(left_out(one)) == ["other/one", "twice"]


def test_many_ways_to_one_folder_do_not_multiply(tmp_path: Path) -> None:
    for level in range(40):
        fill(tmp_path / f"disk{level}", f"{level}.png")
    for level in range(39):
        for link in ("left", "right"):
            (tmp_path / f"disk{level}" / link).symlink_to(tmp_path / f"disk{level + 1}")
    assert len(images(tmp_path / "disk0")) == 40


def test_deep_folders_are_no_problem(tmp_path: Path) -> None:
    folders = [tmp_path]
    for _ in range(1100):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    (folders[-1] / "0.png").touch()
    found = images(tmp_path)
    (folders[-1] / "0.png").unlink()
    for folder in folders[:0:-1]:  # pytest could not clean up: it goes down by recursion
        folder.rmdir()
    assert len(found) == 1


def test_hidden_and_system_files(tmp_path: Path) -> None:
    fill(tmp_path, "0.png", ".1.png", "._0.png", ".DS_Store", "__MACOSX/._0.png", ".git/HEAD", ".git/objects/1")
    fill(tmp_path, ".ipynb_checkpoints/0.png", ".ipynb_checkpoints/notes.txt", "@eaDir/0.png/SYNO.jpg", "Thumbs.db")
    fill(tmp_path, "desktop.ini")
    (tmp_path / ".link").symlink_to(tmp_path)
    assert images(tmp_path) == ["0.png"]
    reasons = left_out(tmp_path)
    assert {name for name, reason in reasons.items() if reason == HIDDEN} == {
        ".1.png",
        "._0.png",
        ".DS_Store",
        ".git",
        ".ipynb_checkpoints/0.png",
        ".link",
        "@eaDir/0.png/SYNO.jpg",
        "__MACOSX/._0.png",
    }
    assert {name for name, reason in reasons.items() if reason.startswith("its ending")} == {"Thumbs.db", "desktop.ini"}


def test_a_folder_that_cannot_be_listed_is_left_out(open_dir: Path, anybody: Anybody) -> None:
    fill(open_dir, "ants/0.png", "ants/closed/1.png", "bees/0.png")
    (open_dir / "ants" / "closed").chmod(0)
    with anybody():
        _, splits, skipped, _ = scan_folder(open_dir)
        with pytest.raises(DataError, match=r'closed: the folder cannot be listed: .* \(on_bad_image = "skip" skips'):
            scan_folder(open_dir, on_bad_image="error")
    assert splits["all"].ids == ("ants/0.png", "bees/0.png")
    assert [(entry.id, entry.reason) for entry in skipped] == [
        ("ants/closed", "the folder cannot be listed: Permission denied")
    ]


def test_a_data_set_that_cannot_be_listed_is_an_error(open_dir: Path, anybody: Anybody) -> None:
    fill(open_dir, "photos/ants/0.png")
    (open_dir / "photos").chmod(0)
    with anybody(), pytest.raises(DataError, match=r"the folder .*photos cannot be listed: Permission denied; open it"):
        scan_folder(open_dir / "photos")


def test_classes_may_be_links(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree({"ants": 2})
    fill(tmp_path / "disk", "0.png")
    (root / "bees").symlink_to(tmp_path / "disk")
    for name, target in {"up": "..", "here": ".", "nowhere": "nothing", "loop": "loop"}.items():
        (root / name).symlink_to(target)
    classes, splits, skipped, _ = scan_folder(root)
    assert classes == ("ants", "bees")
    assert splits["all"].ids == ("ants/0.png", "ants/1.png", "bees/0.png")
    assert {entry.id for entry in skipped} == {"up", "here", "nowhere", "loop"}


def test_system_folders_are_no_classes(make_tree: MakeTree) -> None:
    root = make_tree({"ants": 1, "bees": 1, "__MACOSX": 1, ".git": 1, "lost+found": 1})
    classes, _, skipped, _ = scan_folder(root)
    assert classes == ("ants", "bees")
    assert {(entry.id, entry.reason) for entry in skipped} == {
        (name, HIDDEN) for name in ("__MACOSX", ".git", "lost+found")
    }


def test_what_lies_beside_the_splits_is_listed(make_tree: MakeTree) -> None:
    root = make_tree({f"{split}/{name}": 1 for split in ("train", "test", "extra") for name in ("ants", "bees")})
    _, splits, skipped, _ = scan_folder(root)
    assert set(splits) == {"train", "test"}
    assert [(entry.split, entry.id) for entry in skipped] == [("", "extra")]


def test_odd_names_are_ids_and_classes(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    plain = ["a,b", 'say "x"', " x ", "NA", composed, decomposed, "A", "a"]
    classes = [b"\xff", b"\\xff", b"new\nline", *(name.encode() for name in plain)]
    files = [b"\xe9.jpg", b"X.jpg", b"x.jpg", b"x" * 251 + b".jpg", b"1\n2.jpg", b'a,"b".jpg', b" .jpg"]
    for name in classes:
        os.mkdir(root + b"/" + name)  # noqa: PTH102  # pathlib takes no bytes
        for file in files:
            with open(root + b"/" + name + b"/" + file, "wb"):  # noqa: PTH123
                pass
    found, splits, skipped, _ = scan_folder(tmp_path)
    assert skipped == []
    assert set(found) == {r"\xff", r"\\xff", r"new\x0aline", *plain} - {decomposed}  # one class, of two folders
    ids = splits["all"].ids
    assert len(set(ids)) == len(ids) == len(classes) * len(files)
    assert all(name.encode("utf-8").decode() == name and "\n" not in name for name in ids)
    folders = [unicodedata.normalize("NFC", name.rsplit("/", 1)[0]) for name in ids]
    assert folders == [found[label] for label in splits["all"].labels]


def test_a_data_set_must_have_a_path_in_utf8(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    with pytest.raises(UsageError, match=r"caf\\xe9 is not UTF-8, so experiment\.toml cannot name it; rename"):
        scan_folder(root)


def test_a_folder_that_is_removed_meanwhile_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    found = walk(tmp_path)
    assert next(found) == Found(str(tmp_path / "a" / "1.jpg"))
    shutil.rmtree(tmp_path / "b")
    (gone,) = found
    assert gone == Found(str(tmp_path / "b"), "the folder cannot be listed: No such file or directory", lost=True)
