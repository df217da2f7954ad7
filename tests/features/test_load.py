from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import featbench
from featbench.errors import CacheError, FeatbenchError, ResultsError, UsageError
from tests.tiny import digits_content


@dataclass(frozen=True)
class Extracted:
    folder: Path
    cache: Path

    def load(self, layer: str | None = None, **wanted: Any) -> Any:
        return featbench.load_features(self.folder, layer, cache=self.cache, **wanted)


BACKBONES = [
    {"name": "resnet20", "layers": ["layer1", "layer3"]},
    {"name": "resnet20", "layers": ["layer3"], "pooling": "max"},
    {"name": "pixels"},
]


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    home = tmp_path_factory.mktemp("digits")
    content = digits_content(backbones=BACKBONES)
    featbench.run(content, results=home / "r", cache=home / "c", device="cpu", stages=["extract"])
    return Extracted(home / "r", home / "c")


def test_the_table_lists_every_layer_of_every_split(extracted: Extracted) -> None:
    table = pd.read_csv(extracted.folder / "features.csv", keep_default_na=False)
    assert [*table.columns] == (
        ["backbone", "weights", "layer", "pooling", "split", "fingerprint", "path", "width", "rows", "seconds"]
    )
    kinds = [("resnet20", "layer1", "avg", 16), ("resnet20", "layer3", "avg", 64), ("resnet20", "layer3", "max", 64)]
    found = set(table[["backbone", "layer", "pooling", "width", "split"]].itertuples(index=False, name=None))
    assert found == {(*kind, split) for kind in [*kinds, ("pixels", "pixels", "", 64)] for split in SIZES}
    assert {split: set(table.rows[table.split == split]) for split in SIZES} == {k: {v} for k, v in SIZES.items()}
    assert all((extracted.cache / path).is_file() for path in table.path)
    assert (table.seconds > 0).all()


SIZES = {"train": 120, "val": 72, "test": 50}


@pytest.mark.parametrize("split", SIZES)
def test_features_labels_and_ids_of_a_split(extracted: Extracted, split: str) -> None:
    X, y, ids = extracted.load(backbone="resnet20", layer="layer1", split=split)
    assert X.shape == (SIZES[split], 16)
    assert (y.shape, len(ids)) == ((SIZES[split],), SIZES[split])
    table = pd.read_csv(extracted.folder / "features.csv")
    row = table[(table.layer == "layer1") & (table.split == split)].iloc[0]
    from_file = featbench.load_features(extracted.cache / row.path, "layer1")
    assert np.array_equal(X, from_file.X)
    assert np.array_equal(y, from_file.y)
    assert ids == from_file.ids


def test_what_is_the_only_one_need_not_be_said(extracted: Extracted) -> None:
    assert extracted.load(backbone="pixels", split="test").X.shape == (50, 64)
    assert extracted.load("layer3", pooling="max", split="test").X.shape == (50, 64)
    table = pd.read_csv(extracted.folder / "features.csv").set_index("layer")
    only = table.path[(table.split == "test") & (table.index == "pixels")].iloc[0]
    assert featbench.load_features(extracted.cache / only).X.shape == (50, 64)


def test_the_cache_is_looked_for_where_the_environment_says(
    extracted: Extracted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(extracted.cache, tmp_path / "features")
    monkeypatch.setenv("FEATBENCH_HOME", str(tmp_path))
    assert featbench.load_features(extracted.folder, "layer1", split="test").X.shape == (50, 16)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"backbone": "resnet2"},
            r"unknown backbone .*did you mean 'resnet20'\? Valid: resnet20, pixels",
        ),
        ({"layer": "layer2"}, "unknown layer .* 'layer2'; did you mean 'layer[13]'"),
        ({"split": "tests"}, r"did you mean 'test'\? Valid: train, val, test"),
        ({"backbone": "pixels", "layer": "layer1"}, "unknown layer .*Valid: pixels"),
        ({"layer": "layer3", "split": "test"}, r"more than one kind; say which \(pooling: avg, max\)"),
        ({"layer": "layer1"}, r"say which \(split: train, val, test\)"),
    ],
)
def test_a_wrong_or_missing_name_is_told_with_the_right_ones(
    extracted: Extracted, wanted: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        extracted.load(**wanted)


def test_a_cache_that_is_gone_is_told_with_the_ways_out(extracted: Extracted, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"resnet20 layer1 \(val\) are not .*gone any more.*cache=.*featbench extract"):
        featbench.load_features(extracted.folder, "layer1", split="val", cache=tmp_path / "gone")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x-{}.h5", "digits/resnet20/test-0000000000000000.h5"])
def test_a_path_that_no_run_writes_is_not_opened(extracted: Extracted, tmp_path: Path, path: str) -> None:
    table = pd.read_csv(extracted.folder / "features.csv", dtype=str)
    table["path"] = [path.format(fingerprint) for fingerprint in table.fingerprint]
    table.to_csv(tmp_path / "features.csv", index=False)
    with pytest.raises(ResultsError, match="which is no path of a cache file"):
        featbench.load_features(tmp_path, "layer1", split="test", cache=extracted.cache)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("r", {}, ResultsError, r"no features\.csv in .*run `featbench extract`"),
        ("results/pets", {"layer": "x"}, ResultsError, "no results folder .*pets, and no cache file"),
        ("gone.h5", {"layer": "x"}, CacheError, r"no cache file .*gone\.h5"),
        ("gone.h5", {"layer": "x", "split": "test"}, UsageError, "split has no effect on the cache file"),
    ],
)
def test_neither_a_folder_of_results_nor_a_cache_file(
    tmp_path: Path, source: str, options: dict[str, str], error: type[FeatbenchError], message: str
) -> None:
    (tmp_path / "r").mkdir()
    with pytest.raises(error, match=message):
        featbench.load_features(tmp_path / source, **options)  # type: ignore[arg-type]


def test_a_file_of_several_layers_asks_for_one(extracted: Extracted) -> None:
    table = pd.read_csv(extracted.folder / "features.csv")
    with pytest.raises(UsageError, match="more than one layer; give layer=, one of layer1, layer3"):
        featbench.load_features(extracted.cache / table.path[table.layer == "layer1"].iloc[0])
