from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from featbench.config import Experiment
from featbench.errors import CacheError, DataError, UsageError
from featbench.features.cache import load_features
from featbench.stages.extract import extract, find_cached
from featbench.stages.job import Job
from tests.tiny import Recorder, digits_content, image_folder

Make = Callable[..., Job]


@pytest.fixture
def make_job(tmp_path: Path) -> Make:
    """Make jobs on a folder of images, two of which are broken, with a text file beside them."""
    root = image_folder(tmp_path / "photos")
    (root / "blue" / "04.jpg").write_bytes(b"")
    (root / "red" / "09.jpg").write_bytes(b"GIF89a")
    (root / "green" / "notes.txt").touch()

    def make(layers: tuple[str, ...] = ("layer3",), on_bad_image: str = "skip", pooling: str = "avg") -> Job:
        content = digits_content(
            dataset={"name": "folder", "root": str(root), "on_bad_image": on_bad_image},
            backbones=[{"name": "resnet20", "layers": list(layers), "pooling": pooling}, {"name": "pixels"}],
        )
        places = (tmp_path / "results", tmp_path / "cache", tmp_path / "data")
        return Job(Experiment.model_validate(content), *places, torch.device("cpu"), progress=Recorder())

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
    assert [c.backbone.name for c in found] == ["resnet20", "pixels"]
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
    job = make_job()
    extract(job)
    extract(job)
    said = [line for line in job.progress.said if "never trained" in line]
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
