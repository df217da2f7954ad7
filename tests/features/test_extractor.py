from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

import featbench
from featbench import FeatureExtractor
from featbench.errors import DataError, FeatbenchError, UsageError, WeightsError
from tests.tiny import digits_content, image_folder

NETWORK: dict[str, Any] = {"layers": ["layer1", "layer3"], "precision": "float32"}
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9, 11), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 11, 3), dtype=np.uint8)


def small(**settings: Any) -> FeatureExtractor:
    return FeatureExtractor("resnet20", **(NETWORK | settings))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = image_folder(tmp_path_factory.mktemp("data") / "photos", per_class=4)
    return sorted(root.rglob("*.jpg"))


def cached(tmp_path: Path, dataset: dict[str, Any], **network: Any) -> tuple[np.ndarray, list[str]]:
    """Extract what `small` computes, of the training images of a data set, into a cache."""
    backbones = [{"name": "resnet20", "weights": "random"} | NETWORK | network]
    content = digits_content(dataset=dataset, backbones=backbones)
    featbench.run(content, results=tmp_path / "r", cache=tmp_path / "c", device="cpu", stages=["extract"])
    layers = [
        featbench.load_features(tmp_path / "r", layer, split="train", cache=tmp_path / "c")
        for layer in NETWORK["layers"]
    ]
    return np.concatenate([each.X for each in layers], axis=1), layers[0].ids


@pytest.mark.parametrize("batch_size", [None, 5])
def test_photos_have_the_bits_of_the_cache(tmp_path: Path, batch_size: int | None) -> None:
    root = image_folder(tmp_path / "photos")
    expected, ids = cached(tmp_path, {"name": "folder", "root": str(root)}, batch_size=batch_size)
    features = small(batch_size=batch_size, device="cpu").fit_transform([root / name for name in ids])
    assert features.dtype == np.float32
    assert np.array_equal(features, expected)


def test_arrays_have_the_bits_of_the_cache(tmp_path: Path) -> None:
    expected, ids = cached(tmp_path, {"name": "digits", "limit_train": 120})
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    rows = [int(re.findall("[0-9]+", name)[-1]) for name in ids]
    assert np.array_equal(small(device="cpu").fit_transform(pixels[rows]), expected)
    in_colour = np.repeat(pixels[rows][..., None], 3, axis=3)
    np.testing.assert_allclose(small(device="cpu").fit_transform(in_colour), expected, atol=1e-5)


@pytest.mark.parametrize(
    "give",
    [
        lambda images, folder: list(images),
        lambda images, folder: [Image.fromarray(image) for image in images],
        lambda images, folder: torch.from_numpy(images).permute(0, 3, 1, 2),
        lambda images, folder: images.astype(np.uint16) * 257,
        lambda images, folder: images / 255,
        lambda images, folder: torch.from_numpy(images).permute(0, 3, 1, 2) / 255,
        lambda images, folder: saved(images, folder),
        lambda images, folder: [str(path) for path in saved(images, folder)],
        lambda images, folder: np.array([str(path) for path in saved(images, folder)]),
        lambda images, folder: pd.Series(saved(images, folder)),
        lambda images, folder: [path.read_bytes() for path in saved(images, folder)],
    ],
)
def test_the_same_images_in_every_form_have_the_same_features(tmp_path: Path, give: Callable[..., Any]) -> None:
    extractor = small().fit(COLOUR)
    np.testing.assert_allclose(extractor.transform(give(COLOUR, tmp_path)), extractor.transform(COLOUR), atol=1e-5)


def saved(images: np.ndarray, folder: Path) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_grey_arrays_with_and_without_an_axis_of_channels() -> None:
    extractor = small().fit(GREY)
    expected = extractor.transform(GREY)
    for given in (GREY[..., None], torch.from_numpy(GREY), torch.from_numpy(GREY)[:, None]):
        assert np.array_equal(extractor.transform(given), expected)


def test_a_network_for_grey_images_sees_one_channel() -> None:
    extractor = FeatureExtractor("mlp", image_size=9, layers="penultimate")
    assert extractor.fit(GREY).image_shape_ == (1, 9, 9)
    assert extractor.fit(COLOUR).image_shape_ == (3, 9, 9)


def test_names_tell_the_layer_and_the_number() -> None:
    extractor = small(pooling="avg:2").fit(COLOUR)
    assert extractor.layers_ == ("layer1", "layer3")
    assert extractor.widths_ == (64, 256)  # 16 and 64 channels on a grid of 2x2
    names = extractor.get_feature_names_out()
    assert [*names[[0, 63, 64, 319]]] == ["layer1_0", "layer1_63", "layer3_0", "layer3_255"]
    assert extractor.transform(COLOUR).shape == (6, 320)


def test_patterns_of_layers_are_opened() -> None:
    assert small(layers="layer[12]").fit(COLOUR).layers_ == ("layer1", "layer2")


def test_output_as_a_table(photos: list[Path]) -> None:
    table = small().set_output(transform="pandas").fit_transform(pd.Series(photos, index=range(7, 7 + len(photos))))
    assert [*table.columns[[0, -1]]] == ["layer1_0", "layer3_63"]
    assert np.array_equal(table.to_numpy(), small().fit_transform(photos))


def test_in_a_pipeline_under_cross_validation(photos: list[Path]) -> None:
    labels = [path.parent.name for path in photos]
    model = make_pipeline(small(), StandardScaler(), SVC(C=10))
    scores = cross_val_score(model, photos, labels, cv=2)
    features = StandardScaler().fit_transform(small().fit_transform(photos))
    assert scores.shape == (2,)
    assert model.fit(photos, labels).score(photos, labels) == SVC(C=10).fit(features, labels).score(features, labels)


def test_on_a_column_of_a_table(photos: list[Path]) -> None:
    table = pd.DataFrame({"path": photos, "age": range(len(photos))})
    both = ColumnTransformer([("image", small(), "path"), ("rest", "passthrough", ["age"])])
    assert both.fit_transform(table).shape == (len(photos), 81)
    assert both.get_feature_names_out()[-2:].tolist() == ["image__layer3_63", "rest__age"]


def test_a_copy_from_a_file_computes_the_same(photos: list[Path]) -> None:
    extractor = small(seed=3).fit(photos)
    expected = extractor.transform(photos)
    content = pickle.dumps(extractor)
    assert len(content) < 10_000  # without the network
    assert np.array_equal(pickle.loads(content).transform(photos), expected)


def test_a_copy_whose_weights_are_others_is_refused(photos: list[Path]) -> None:
    copy = pickle.loads(pickle.dumps(small(seed=3).fit(photos)))
    copy.set_params(seed=4)
    with pytest.raises(WeightsError, match=r"weights of resnet20 \(random\) are not those of fit"):
        copy.transform(photos)


def test_scikit_learns_conventions() -> None:
    """What scikit-learn checks of every estimator, as far as it does not fit it to a table of numbers.

    The other checks of `check_estimator` (n_features_in_, dtypes, sparse data, NaN, 1-D and 2-D input, ...) give it
    such a table, which is refused here: an image has three axes.
    """
    extractor = small()
    for check in (
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_mixin_order,
    ):
        check("FeatureExtractor", clone(extractor))
    assert not extractor.__sklearn_tags__().input_tags.two_d_array


def test_fit_changes_no_parameter_and_returns_the_extractor() -> None:
    extractor = small()
    before = extractor.get_params()
    assert extractor.fit(COLOUR) is extractor
    check_is_fitted(extractor)
    assert extractor.get_params() == before
    assert clone(extractor).get_params() == before
    with pytest.raises(NotFittedError):
        clone(extractor).transform(COLOUR)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"backbone": "resnet2"}, UsageError, "unknown backbone 'resnet2'; did you mean 'resnet20'"),
        ({"backbone": 3}, UsageError, "backbone = 3: give a name"),
        ({"layers": "layer9"}, UsageError, "unknown layer 'layer9'; did you mean"),
        ({"layers": ()}, UsageError, "layers is empty"),
        ({"layers": ["layer1", "layer1"]}, UsageError, "names a layer twice"),
        ({"pooling": "average"}, UsageError, "unknown pooling 'average'; did you mean 'avg'"),
        ({"image_size": 0}, UsageError, "image_size = 0"),
        ({"batch_size": 0}, UsageError, "batch_size = 0"),
        ({"precision": "float64"}, UsageError, "precision = 'float64'"),
        ({"device": "gpu"}, UsageError, "unknown device 'gpu'"),
        ({"seed": -1}, UsageError, "seed = -1"),
        ({"seed": None}, UsageError, "seed = None"),
        ({"weights": "IMAGENET"}, UsageError, "unknown weights of resnet20 'IMAGENET'"),
        ({"weights": Path("gone.pth")}, WeightsError, r"there is no weights file .*gone\.pth"),
        ({"backbone": "pixels"}, UsageError, "layers has no effect on pixels"),
    ],
)
def test_a_wrong_argument_is_an_error_of_fit(
    settings: dict[str, Any], error: type[FeatbenchError], message: str
) -> None:
    with pytest.raises(error, match=message):
        small().set_params(**settings).fit(COLOUR)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((5, 64), np.uint8), r"\(5, 64\) is not the shape of images"),
        (np.zeros((5, 9, 9, 4), np.uint8), r"\(5, 9, 9, 4\) is not the shape of images"),
        (torch.zeros((5, 9, 9, 3), dtype=torch.uint8), r"\(5, 9, 9, 3\) is not the shape of images"),
        (COLOUR.astype(np.float32), "the array has fractions from 0 to 255; give uint8"),
        (COLOUR.astype(np.int64), "the array is of int64"),
        ("cat.jpg", "one str is given where many images are read"),
        (Image.new("RGB", (9, 9)), "one Image is given where many images are read"),
        (iter([Path("cat.jpg")]), "list_iterator can be read once only"),
        (pd.DataFrame({"path": ["cat.jpg"]}), r"a table is no images; give one column .*\['path'\]"),
        ([3], "image 0 is a int"),
        ([], "there are no images to fit on"),
        (COLOUR[:0], "there are no images to fit on"),
    ],
)
def test_what_is_no_images_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small().fit(given)


def test_an_open_file_is_refused_since_it_is_read_once(photos: list[Path]) -> None:
    with photos[0].open("rb") as file, pytest.raises(UsageError, match="image 1 is an open file"):
        small().fit([photos[0], file])


def test_an_unreadable_image_is_an_error_that_names_it(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    extractor = small(batch_size=2).fit(photos)
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read: it holds no image of a known kind"):
        extractor.transform([*photos[:3], tmp_path / "broken.jpg"])


def test_no_images_are_no_rows(photos: list[Path]) -> None:
    assert small().fit(photos).transform([]).shape == (0, 80)


def test_pixels_as_they_are_have_one_size() -> None:
    extractor = FeatureExtractor("pixels").fit(GREY[:, :8, :8])
    assert np.array_equal(extractor.transform(GREY[:, :8, :8]), GREY[:, :8, :8].reshape(6, 64) / np.float32(255))
    with pytest.raises(UsageError, match=r"images were 8x8 of 1 channel at fit and are 9x9 of 1 channel now"):
        extractor.transform(GREY)
