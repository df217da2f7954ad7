"""How a folder of images is laid out: `train/ val/ test/` with one folder a class in each, or just one folder a class.

Splits have the names of `SPLIT_NAMES`, in any case. A folder of such a name is a split if it holds folders; if it holds
images, it is a class that happens to be called so.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featbench.data.names import plain_name
from featbench.data.shell_lines import flat_lines, listed, quoted, split_lines
from featbench.data.walk import is_folder, is_hidden, is_image, is_own, leads_back, list_folder
from featbench.errors import DataError
from featbench.terminal import one_line

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
}

Classes = Mapping[str, Sequence[Path]]  # class name -> its folders: names that differ only in Unicode form are one


@dataclass(frozen=True)
class Layout:
    """The folders of a data set.

    Attributes:
        folders: "train" and "test", and "val" where all three are there; or "all" alone.
        classes: The class folders of each of them.
        remarks: What was decided that the user may not expect.
    """

    folders: Mapping[str, Path]
    classes: Mapping[str, Classes]
    remarks: tuple[str, ...]


def read_layout(root: Path) -> Layout:
    """Find the splits and the classes of a folder.

    Raises:
        DataError: The layout is ambiguous, or a folder cannot be listed; the message says what would work.
    """
    children = _folders(root)
    splits = _splits(root, children)
    if "train" not in splits:
        _check_classes(root, children, splits)
        return Layout({"all": root}, {"all": class_folders(root)}, ())
    remarks = [*_drop_unlabelled(children, splits), *_unknown_splits(children, splits)]
    if len(splits) == 1:
        return Layout({"all": splits["train"]}, {"all": class_folders(splits["train"])}, tuple(remarks))
    if "test" not in splits:
        splits["test"] = splits.pop("val")
        name = splits["test"].name
        remarks.append(f"{name}/ is the test split, since there is no other, and is used once, for the final numbers")
    return Layout(splits, {name: class_folders(folder) for name, folder in splits.items()}, tuple(remarks))


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Find the class folders, in the order of their names."""
    found: dict[str, list[Path]] = {}
    for child in _folders(folder):
        found.setdefault(unicodedata.normalize("NFC", plain_name(Path(child.name))), []).append(child)
    return dict(sorted(found.items()))


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """List what lies directly in a folder.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        return list_folder(folder)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be listed: {error.strerror}; open it, or remove it") from error


def _folders(folder: Path) -> list[Path]:
    """List the folders in a folder that are the user's own; links count, but not those that lead back."""
    return [
        Path(entry.path)
        for entry in entries_of(folder)
        if is_folder(entry) and not is_hidden(entry.name) and not leads_back(entry) and not is_own(entry.path)
    ]


def _n_images(folder: Path) -> int:
    """Count the images that lie directly in a folder; one that cannot be listed has none that we know of."""
    try:
        return sum(map(is_image, list_folder(folder)))
    except OSError:
        return 0


def _named(children: Sequence[Path]) -> dict[str, list[Path]]:
    """Group the folders that are called as splits are."""
    named: dict[str, list[Path]] = {}
    for child in children:
        split = SPLIT_NAMES.get(child.name.lower())
        if split is not None:
            named.setdefault(split, []).append(child)
    return named


def _splits(root: Path, children: Sequence[Path]) -> dict[str, Path]:
    beside = any(child.name.lower() not in SPLIT_NAMES and _n_images(child) for child in children)
    splits: dict[str, Path] = {}
    for split, folders in _named(children).items():
        holding = [folder for folder in folders if _folders(folder) and not (beside and _n_images(folder))]
        if len(holding) > 1:
            names = listed(folder.name for folder in holding)
            raise DataError(f"{root}: {names} are both the {split} split; put their images together, or move one away")
        if holding:
            splits[split] = holding[0]
    return {name: splits[name] for name in ("train", "val", "test") if name in splits}


def _check_classes(root: Path, children: Sequence[Path], splits: Mapping[str, Path]) -> None:
    """Refuse folders that are no classes."""
    if splits and set(splits.values()) == set(children):
        names = listed(folder.name for folder in splits.values())
        raise DataError(f"{root} has {names}, but no train folder; add it")
    alike = {child: found for child in children if (found := _class_names(child))}
    counts = Counter(name for found in alike.values() for name in found)
    shared = sorted(name for name, count in counts.items() if count > 1)
    looking = [child for child, found in alike.items() if found & set(shared)]
    if len(shared) > 1 and len(looking) > 1:
        raise DataError(
            f"{one_line(str(root))}: {listed(child.name for child in looking)} each hold folders of images called "
            f"{listed(shared)}, so they look like splits, not like classes. Splits are called {known_names()}, in any "
            "case." + split_lines(root, looking, SPLIT_NAMES),
            with_lines=True,
        )
    flat = [child for child in children if _n_images(child)]
    if flat and flat == list(children) and all(child.name.lower() in SPLIT_NAMES for child in flat):
        raise DataError(
            f"{one_line(str(root))}: {listed(child.name for child in flat)} hold images, and no folders of classes."
            + flat_lines(flat),
            with_lines=True,
        )
    if not children and _n_images(root):
        raise DataError(
            f"{one_line(str(root))} holds {_n_images(root)} images, and no folders of classes." + flat_lines([root]),
            with_lines=True,
        )


def _class_names(folder: Path) -> set[str]:
    """Name the folders in a folder that directly hold images; none where it holds images itself."""
    if _n_images(folder):
        return set()
    try:
        return {child.name for child in _folders(folder) if _n_images(child)}
    except DataError:
        return set()


def known_names() -> str:
    """List the names of splits."""
    by_split = ("train", "val", "test")
    return "; ".join(", ".join(name for name, split in SPLIT_NAMES.items() if split == wanted) for wanted in by_split)


def _drop_unlabelled(children: Sequence[Path], splits: dict[str, Path]) -> list[str]:
    """Leave out test and val folders that have images but no classes, and say so."""
    classes = set(class_folders(splits["train"]))
    remarks = []
    for split in ("test", "val"):
        folder = splits.get(split)
        named = [child for child in _named(children).get(split, []) if _n_images(child)]
        if folder is None and not named:
            continue
        if folder is not None:
            found = class_folders(folder)
            if len(found) != 1 or set(found) <= classes or len(classes) < 2:
                continue
            del splits[split]
        place = folder or named[0]
        remarks.append(
            f"{place.name}/ has images, but none of the class folders of {splits['train'].name}/: without "
            f"labels it is not used here; `featbench predict RESULTS {quoted(place)}` predicts their classes"
        )
    return remarks


def _unknown_splits(children: Sequence[Path], splits: Mapping[str, Path]) -> list[str]:
    """Name the folders beside the splits that have the same classes."""
    classes = set(class_folders(splits["train"]))
    return [
        f"{child.name}/ has folders of the same names as {splits['train'].name}/, and is not read: splits are called "
        f"{known_names()}"
        for child in children
        if child.name.lower() not in SPLIT_NAMES and len(_class_names(child) & classes) > 1
    ]
