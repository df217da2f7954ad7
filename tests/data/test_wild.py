"""One folder with everything that is found in the wild, through extraction: rows, ids and labels stay aligned."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from featbench.config import Experiment
from featbench.errors import DataError
from featbench.features.load import load_features
from featbench.runs.extract import extract
from featbench.runs.resolve import Run
from tests.tiny import Recorder, digits_content

CLASSES = ("ants", "bees")
RNG = np.random.default_rng(0)


def photo(side_px: int = 40) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (side_px, side_px + 6, 3), dtype=np.uint8))


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def deep() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 65536, (40, 40), dtype=np.uint16))


# file name: what Image.save is given; all of these are to be read
GOOD: dict[bytes, Callable[[Path], None]] = {
    b"plain.jpg": lambda path: photo().save(path),
    b"cmyk.jpg": lambda path: photo().convert("CMYK").save(path),
    b"palette.png": lambda path: photo().convert("P").save(path, transparency=bytes(range(256))),
    b"alpha.png": lambda path: photo().convert("RGBA").save(path),
    b"deep.png": lambda path: deep().save(path),
    b"deep.tif": lambda path: deep().save(path),
    b"animated.webp": lambda path: photo().save(path, save_all=True, append_images=[photo()]),
    b"animated.gif": lambda path: photo().save(path, save_all=True, append_images=[photo()]),
    b"whatsapp.jfif": lambda path: photo().save(path, "JPEG"),
    b"turned.jpg": lambda path: photo().save(path, exif=turned()),
    b"really a png.jpg": lambda path: photo().save(path, "PNG"),
    b"one pixel.png": lambda path: Image.new("RGB", (1, 1), (9, 8, 7)).save(path),
    b"line.png": lambda path: Image.new("RGB", (1, 5000), (9, 8, 7)).save(path),
    b"not utf-8 \xe9\xff.jpg": lambda path: photo().save(path),
    b"l" * 251 + b".jpg": lambda path: photo().save(path),
    b'comma, "quote"\nline.jpg': lambda path: photo().save(path),
    b"link.jpg": lambda path: path.symlink_to("plain.jpg"),
    b"SHOUT.JPG": lambda path: photo().save(path, "JPEG"),
    b"shout.jpg": lambda path: photo().save(path, "JPEG"),
}


def truncated(path: Path) -> None:
    buffer = io.BytesIO()
    photo().save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:900])


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def loop(path: Path) -> None:
    path.symlink_to(path.with_suffix(".png"))
    path.with_suffix(".png").symlink_to(path)


# file name: how it is made, and the reason
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated.jpg": (truncated, "truncated"),
    "empty.jpg": (Path.touch, "it is empty"),
    "text.jpg": (lambda path: path.write_text("<html>404</html>"), "no image of a known kind"),
    "bomb.png": (bomb, "400000000 pixels"),
    "broken link.jpg": (lambda path: path.symlink_to("nothing"), "the link leads nowhere"),
    "loop.jpg": (loop, "symbolic links"),
    "loop.png": (lambda path: None, "symbolic links"),
    "pipe.jpg": (os.mkfifo, "no regular file"),
    ".hidden.jpg": (Path.touch, "it is hidden"),
    "._plain.jpg": (Path.touch, "it is hidden"),
    ".DS_Store": (Path.touch, "it is hidden"),
    "Thumbs.db": (Path.touch, "its ending"),
    "vector.svg": (lambda path: path.write_text("<svg/>"), "its ending"),
    "up": (lambda path: path.symlink_to(".."), "the link leads to a folder"),
}


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train, val and test with each odd file in each class."""
    root = tmp_path_factory.mktemp("wild") / "photos"
    for split in ("train", "val", "test"):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for file, make in GOOD.items():
                make(folder / os.fsdecode(file))
            for bad_file, (make_bad, _) in BAD.items():
                make_bad(folder / bad_file)
    (root / "train" / "__MACOSX").mkdir()
    shutil.copy(root / "train/ants/plain.jpg", root / "train/__MACOSX/._x.jpg")
    shutil.copy(root / "train/ants/plain.jpg", root / "train/bees/copy.jpg")
    shutil.copy(root / "val/ants/turned.jpg", root / "test/ants/copy.jpg")
    shutil.copy(root / "train/bees/cmyk.jpg", root / "test/bees/copy.jpg")
    return root


def make_job(root: Path, home: Path, on_bad_image: str = "skip") -> Run:
    content = digits_content(
        dataset={"name": "folder", "root": str(root), "on_bad_image": on_bad_image}, backbones=[{"name": "pixels"}]
    )
    places = (home / "results", home / "cache", home / "data")
    return Run(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())


@pytest.fixture(scope="module")
def job(wild: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    job = make_job(wild, tmp_path_factory.mktemp("home"))
    extract(job)
    return job


def test_every_file_is_a_row_or_listed_with_the_reason(job: Run) -> None:
    with (job.results_dir / "skipped.csv").open(encoding="utf-8", newline="") as file:
        listed = {line["id"]: (line["split"], line["reason"]) for line in csv.DictReader(file)}
    expected = {
        f"{split}/{name}/{file}": (split, reason)
        for split in ("train", "val", "test")
        for name in CLASSES
        for file, (_, reason) in BAD.items()
    } | {"train/__MACOSX": ("train", "it is hidden")}
    assert listed.keys() == expected.keys()
    for name, (split, reason) in expected.items():
        assert listed[name][0] == split
        assert reason in listed[name][1]
        assert str(job.experiment.dataset.root) not in listed[name][1]


def test_what_was_left_out_is_counted_and_what_is_twice_there_is_named(job: Run) -> None:
    count = 6 * len(BAD) + 1
    warned = job.progress.warned  # type: ignore[attr-defined]
    assert warned[0] == f"{count} files were left out; {job.results_dir / 'skipped.csv'} says which and why"
    # the 1x1 and the 1x5000 image are the same everywhere
    about = [(sentence.split(",")[0], sentence.rsplit(": ")[-1]) for sentence in warned[1:]]
    assert about[0] == ("12 images are of one colour", "train/ants/line.png; notes.csv counts them)")
    assert about[1:] == [
        ("4 images of val are in train too", "val/ants/line.png is train/ants/line.png"),
        ("5 images of test are in train too", "test/ants/line.png is train/ants/line.png"),
        ("5 images of test are in val too", "test/ants/copy.jpg is val/ants/turned.jpg"),
        ("3 images are under two classes", "train/ants/line.png is train/bees/line.png"),
    ]


def test_features_are_those_of_a_clean_folder(job: Run, wild: Path, tmp_path: Path) -> None:
    clean = tmp_path / wild.name
    names: dict[str, str] = {}
    for split, part in job.dataset.splits.items():
        for number, (name, path) in enumerate(zip(part.ids, map(Path, part.images.items), strict=True)):  # type: ignore[union-attr]
            if name.rsplit("/", 1)[-1] not in BAD:
                names[name] = f"{split}/{name.split('/')[1]}/{number:04d}.png"
                (clean / names[name]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, clean / names[name])
    tidy = make_job(clean, tmp_path)
    odd_infos, clean_infos = extract(job)[0], extract(tidy)[0]
    for split, key in odd_infos.keys.items():
        X, y, ids = load_features(key.path, "pixels")
        expected_X, expected_y, expected_ids = load_features(clean_infos.keys[split].path, "pixels")
        assert [names[name] for name in ids] == list(expected_ids)
        assert [CLASSES[label] for label in y] == [name.split("/")[1] for name in ids]
        np.testing.assert_array_equal(y, expected_y)
        np.testing.assert_array_equal(X, expected_X)
    assert not [sentence for sentence in tidy.progress.warned if "left out" in sentence]  # type: ignore[attr-defined]


def test_on_bad_image_error_stops_at_the_first(wild: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image train/ants/bomb\.png cannot be read: .*400000000 pixels"):
        extract(make_job(wild, tmp_path, "error"))
