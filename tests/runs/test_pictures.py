from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import featbench
from featbench.config import Experiment
from featbench.features.load import load_features
from featbench.results.images import MAP_COLUMNS, thumbnail_path
from featbench.runs.pictures import THUMBNAIL_PX
from tests.tiny import digits_content, image_folder, save_image


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Experiment]:
    home = tmp_path_factory.mktemp("photos")
    root = image_folder(home / "photos", per_class=14)
    for number, path in enumerate(sorted(root.glob("*/*.jpg"))):  # classes that look alike, so that many are got wrong
        save_image(path, "blue", np.random.default_rng(number), size=(300, 150))
    content = digits_content(
        dataset={"name": "folder", "root": str(root)},
        backbones=[{"name": "resnet20", "layers": ["layer1", "layer3"], "image_size": 32}],
        evaluate={
            "classifiers": ["random_forest"],
            "grids": {"random_forest": {"n_estimators": [3]}},
            "fusions": [["resnet20/layer1", "resnet20/layer3"]],
        },
    )
    experiment = Experiment.model_validate(content)
    featbench.run(experiment, results=home / "results", cache=home / "cache", device="cpu")
    return home, root, experiment


def test_every_image_that_was_got_wrong_has_its_picture(photos: tuple[Path, Path, Experiment]) -> None:
    home, root, _ = photos
    mistakes = pd.read_csv(home / "results" / "mistakes.csv")
    assert mistakes["id"].nunique() > 1
    expected = {thumbnail_path(home / "results", "photos", image_id) for image_id in mistakes["id"]}
    assert set((home / "results" / "thumbnails").iterdir()) == expected
    for image_id in mistakes["id"].unique():
        with (
            Image.open(thumbnail_path(home / "results", "photos", image_id)) as small,
            Image.open(root / image_id) as large,
        ):
            assert max(small.size) <= THUMBNAIL_PX
            assert small.width / small.height == pytest.approx(large.width / large.height, rel=0.05)
            means = [np.asarray(image.convert("RGB"), float).mean((0, 1)) for image in (small, large)]
            np.testing.assert_allclose(*means, atol=6)


def test_the_test_images_are_on_the_map_of_every_layer(photos: tuple[Path, Path, Experiment]) -> None:
    home, _, _ = photos
    maps = pd.read_csv(home / "results" / "maps.csv")
    assert tuple(maps.columns) == MAP_COLUMNS
    ids = pd.read_csv(next((home / "results" / "predictions").iterdir()))["id"]
    for _, one in maps.groupby("layer"):
        assert sorted(one["id"]) == sorted(ids)
        assert one["label"].tolist() == [image_id.split("/")[0] for image_id in one["id"]]
    assert maps["layer"].unique().tolist() == ["layer1", "layer3", "layer1+layer3"]


def test_the_map_of_a_fusion_is_that_of_its_layers_side_by_side(photos: tuple[Path, Path, Experiment]) -> None:
    home, _, _ = photos
    (file,) = (home / "cache").rglob("test-*.h5")
    X = np.hstack([load_features(file, layer)[0] for layer in ("layer1", "layer3")])
    expected = PCA(2, svd_solver="full").fit_transform(StandardScaler().fit_transform(X))
    maps = pd.read_csv(home / "results" / "maps.csv").query("layer == 'layer1+layer3'")
    assert maps["id"].tolist() == load_features(file, "layer1")[2]
    for axis, name in enumerate(("pca_1", "pca_2")):  # the sign of an axis is of no meaning
        np.testing.assert_allclose(maps[name].abs(), np.abs(expected[:, axis]), rtol=2e-3, atol=2e-3)


def test_the_page_is_there_and_the_second_run_makes_no_map_again(
    photos: tuple[Path, Path, Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _, experiment = photos
    before = (home / "results" / "maps.csv").read_bytes()
    thumbnails = home / "results" / "thumbnails"
    (thumbnails / "0123456789abcdef.jpg").write_bytes(b"of an earlier run")
    (thumbnails / "holiday.jpg").write_bytes(b"somebody's own")
    (thumbnails / "fedcba9876543210.jpg").mkdir()
    monkeypatch.setattr("featbench.runs.pictures.map_features", None)
    featbench.run(experiment, results=home / "results", cache=home / "cache", device="cpu")
    assert (home / "results" / "maps.csv").read_bytes() == before
    assert not (thumbnails / "0123456789abcdef.jpg").exists()
    assert (thumbnails / "holiday.jpg").read_bytes() == b"somebody's own"
    assert "data:image/jpeg;base64," in (home / "results" / "report.html").read_text("utf-8")
