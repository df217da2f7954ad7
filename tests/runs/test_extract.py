from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from featbench.config import Experiment
from featbench.errors import CacheError, DataError, UsageError
from featbench.features.load import load_features
from featbench.progress import OnceOnly
from featbench.runs.extract import extract, find_cached
from featbench.runs.resolve import Run
from tests.tiny import Recorder, digits_content, image_folder

Make = Callable[..., Run]


@pytest.fixture
def make_job(tmp_path: Path) -> Make:
    """Make jobs on a folder of images, two of which are broken, with a text file beside them."""
    root = image_folder(tmp_path / "photos")
    (root / "blue" / "04.jpg").write_bytes(b"")
    (root / "red" / "09.jpg").write_bytes(b"GIF89a")
    (root / "green" / "notes.txt").touch()

    def make(layers: tuple[str, ...] = ("layer3",), on_bad_image: str = "skip", pooling: str = "avg") -> Run:
        content = digits_content(
            dataset={"name": "folder", "root": str(root), "on_bad_image": on_bad_image},
            backbones=[{"name": "resnet20", "layers": list(layers), "pooling": pooling}, {"name": "pixels"}],
        )
        places = (tmp_path / "results", tmp_path / "cache", tmp_path / "data")
        return Run(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())

    return make


def test_images_left_out_are_listed_once_with_their_split(make_job: Make) -> None:
    job = make_job()
    extract(job)
    with (job.results_dir / "skipped.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert sorted(line["id"] for line in lines) == ["blue/04.jpg", "green/notes.txt", "red/09.jpg"]
    where = {name: split for split, part in job.dataset.splits.items() for name in part.ids}
    assert all(line["split"] == where.get(line["id"], "all") and line["reason"] for line in lines)
    assert job.progress.warned == [f"3 files were left out; {job.results_dir / 'skipped.csv'} says which and why"]


def test_images_left_out_are_listed_again_when_the_cache_is_reused(make_job: Make) -> None:
    extract(make_job())
    job = make_job()
    before = (job.results_dir / "skipped.csv").read_text()
    (job.results_dir / "skipped.csv").unlink()
    extract(job)
    assert (job.results_dir / "skipped.csv").read_text() == before


def test_a_bad_image_can_be_an_error(make_job: Make) -> None:
    with pytest.raises(DataError, match=r"(blue/04|red/09)\.jpg cannot be read"):
        extract(make_job(on_bad_image="error"))


def test_what_extract_makes_is_found_again(make_job: Make) -> None:
    made, found = extract(make_job()), find_cached(make_job())
    assert [c.identity.name for c in found] == ["resnet20", "pixels"]
    assert [c.keys for c in found] == [c.keys for c in made]
    assert [c.infos for c in found] == [c.infos for c in made]
    assert sum(info.n_rows for info in found[0].infos.values()) == 34


def test_a_missing_layer_is_a_missing_cache(make_job: Make) -> None:
    extract(make_job())
    with pytest.raises(CacheError, match=r"features of resnet20 \((train|val|test)\).*featbench extract"):
        find_cached(make_job(layers=("layer2", "layer3")))


def test_a_missing_split_is_a_missing_cache(make_job: Make) -> None:
    made = extract(make_job())
    made[1].keys["test"].path.unlink()
    with pytest.raises(CacheError, match=r"features of pixels \(test\)"):
        find_cached(make_job())


def test_patterns_and_blocks_are_written_under_the_names_they_stand_for(make_job: Make) -> None:
    expanded, named = make_job(("blocks", "avg*")), make_job(("layer1", "layer2", "layer3", "avgpool"))
    cached, _ = extract(expanded)
    assert cached.extraction.layers == ("layer1", "layer2", "layer3", "avgpool")
    assert set(cached.infos["train"].widths) == set(cached.extraction.layers)
    found, _ = find_cached(named)  # the same cache serves both
    assert found.infos["test"].path == cached.infos["test"].path
    assert find_cached(expanded)[0].extraction == cached.extraction


def test_random_weights_that_nobody_asked_for_are_said_once(make_job: Make) -> None:
    recorder = Recorder()
    job = replace(make_job(), progress=OnceOnly(recorder))
    extract(job)
    extract(job)
    said = [line for line in recorder.said if "never trained" in line]
    assert said == [
        'resnet20 was never trained, and results call its weights random; set weights to a file, or to "random"'
    ]


def test_a_pooling_for_maps_leaves_a_penultimate_vector_as_it_is(make_job: Make) -> None:
    pooled, _ = extract(make_job(("layer1", "penultimate"), pooling="avg:4"))
    plain, _ = extract(make_job(("penultimate",)))
    assert pooled.infos["test"].widths == {"layer1": 16 * 4 * 4, "penultimate": 64}
    assert [pooled.extraction.pooling_of(layer) for layer in pooled.extraction.layers] == ["avg:4", None]
    for split, key in pooled.keys.items():
        vectors, expected = (load_features(path, "penultimate")[0] for path in (key.path, plain.keys[split].path))
        np.testing.assert_array_equal(vectors, expected)


def test_the_vector_may_be_added_to_a_cache_of_the_other_layers(make_job: Make) -> None:
    extract(make_job(("layer1",), pooling="avg:4"))
    cached, _ = extract(make_job(("layer1", "penultimate"), pooling="avg:4"))
    assert cached.infos["test"].widths["penultimate"] == 64


def test_a_pooling_that_no_layer_has_a_use_for_is_refused(make_job: Make) -> None:
    with pytest.raises(UsageError, match=r"pooling 'avg:4' has no effect on resnet20: penultimate is a vector; remove"):
        extract(make_job(("penultimate",), pooling="avg:4"))
    with pytest.raises(UsageError, match=r"pooling 'avg:4' makes no sense for layer 'fc'"):  # any other layer's vector
        extract(make_job(("layer1", "fc"), pooling="avg:4"))


def unreadable(folder: Path, *splits: str) -> Path:
    """Make train, val and test, in which no photo of a lamb can be read: they are HEIC files, called .jpg."""
    for split in ("train", "val", "test"):
        image_folder(folder / split, classes=("blue", "green", "red"), per_class=6)
        (folder / split / "red").rename(folder / split / "a lamb")
        for path in (folder / split / "a lamb").iterdir() if split in splits else ():
            path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(80))
    return folder


def job_on(folder: Path, home: Path, **changes: Any) -> Run:
    content = digits_content(dataset={"name": "folder", "root": str(folder)}, backbones=[{"name": "pixels"}], **changes)
    places = (home / "results", home / "cache", home / "data")
    return Run(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_class_that_cannot_be_read_is_named(tmp_path: Path, split: str) -> None:
    root = unreadable(tmp_path / "photos", split)
    message = rf"no image of class 'a lamb' in {split} can be read, of 6 \({split}/a lamb/00\.jpg: it holds no image"
    with pytest.raises(DataError, match=message):
        extract(job_on(root, tmp_path))
    assert f"{split}/a lamb/05.jpg" in (tmp_path / "results" / "skipped.csv").read_text()
    with pytest.raises(DataError, match=message):  # the features are there by now
        find_cached(job_on(root, tmp_path))


def test_too_few_that_can_be_read_are_told_by_name(tmp_path: Path) -> None:
    root = unreadable(tmp_path / "photos", "train")
    shutil.rmtree(root / "val")
    for number in range(3):
        shutil.copy(root / "test" / "a lamb" / f"{number:02d}.jpg", root / "train" / "a lamb" / f"{number:02d}.jpg")
    with pytest.raises(DataError, match=r"class 'a lamb' has 3 images to train on, too few for evaluate\.folds = 5"):
        extract(job_on(root, tmp_path))


def test_notes_are_written_and_said_once_and_again_from_the_cache(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            values = rng.integers(0, 4096, (40, 40), dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / "photos" / name / f"{number:02d}.png")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photos" / "dogs" / "19.png")
    tables = []
    for _ in range(2):
        job = job_on(tmp_path / "photos", tmp_path)
        extract(job)
        bits, plain = job.progress.warned  # type: ignore[attr-defined]
        assert bits.startswith(
            "39 images are 16-bit grey with no value above 4,095, as 12-bit cameras save it: at most"
        )
        assert plain.startswith(
            "1 image is of one colour, or nearly, once decoded; look at one of them (the first: dogs/"
        )
        tables.append(pd.read_csv(tmp_path / "results" / "notes.csv"))
        (tmp_path / "results" / "notes.csv").unlink()
    assert tables[0].equals(tables[1])
    assert tables[0]["images"].sum() == 40
    assert list(tables[0].columns) == ["split", "note", "images", "example"]
    assert set(tables[0]["split"]) == {"train", "val", "test"}


def test_what_featbench_wrote_among_the_images_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = image_folder(tmp_path / "photos")
    monkeypatch.chdir(root)
    ids = []
    for results in ("results/photos", "results/photos", "results/deeper/again", "red/mine"):
        experiment = job_on(root, tmp_path).experiment
        places = (Path(results), Path("cache"), tmp_path / "data")
        job = Run(experiment, *places, torch.device("cpu"), progress=Recorder())
        job.prepare()
        extract(job)
        assert job.dataset.classes == ("blue", "green", "red")
        assert job.dataset.skipped == ()
        ids.append({name for split in job.dataset.splits.values() for name in split.ids})
    assert all(each == ids[0] for each in ids)
    assert len(ids[0]) == 36
