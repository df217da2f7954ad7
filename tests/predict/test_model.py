from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms.functional import to_tensor

import featbench
from featbench.errors import DataError, UsageError
from featbench.results.artifacts import load_predictions
from tests.predict.conftest import Kept
from tests.tiny import digits_content

DIGITS = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)  # what the data set's docstring says
LABELS = load_digits().target.astype(str)
METHODS = ["linear_svc", "svm_rbf", "random_forest", "linear_head", "scratch"]


def digits_of(ids: list[str]) -> list[np.ndarray[Any, Any]]:
    return [DIGITS[int(name.removeprefix("digits/"))] for name in ids]


@pytest.mark.parametrize("backbone", ["resnet20", "pixels"])
@pytest.mark.parametrize("method", METHODS)
def test_the_test_images_get_what_the_run_said_of_them(digits: Kept, method: str, backbone: str) -> None:
    rows = digits.rows[(digits.rows.method == method) & (digits.rows.backbone == backbone)]
    if method in ("linear_head", "scratch") and backbone == "pixels":
        assert rows.empty
        return
    (fingerprint,) = rows.fingerprint
    said = load_predictions(digits.folder, fingerprint)
    model = featbench.load_model(digits.folder, fingerprint, device="cpu")
    images = digits_of(list(said.id))
    assert model.classes == tuple("0123456789")
    assert model.predict(images) == said.predicted.tolist()
    expected = said[[f"score:{name}" for name in model.classes]].to_numpy()
    np.testing.assert_allclose(model.scores(images), expected, rtol=1e-4, atol=1e-4)  # six digits are in the file


def test_photos_get_what_the_run_said_of_them(photos: Kept) -> None:
    assert photos.images is not None
    model = featbench.load_model(photos.folder)
    said = load_predictions(photos.folder, photos.rows.fingerprint[0])
    assert model.predict(photos.images / name for name in said.id) == said.predicted.tolist()


def as_png(folder: Path, image: np.ndarray[Any, Any]) -> Path:
    path = folder / "seven.png"
    Image.fromarray(image).save(path)
    return path


def packed_tiff(image: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "TIFF", compression="tiff_lzw")
    return file.getvalue()


@pytest.mark.parametrize(
    "give",
    [
        lambda image, folder: as_png(folder, image),
        lambda image, folder: str(as_png(folder, image)),
        lambda image, folder: Image.fromarray(image),
        lambda image, folder: Image.fromarray(image).convert("RGB"),
        lambda image, folder: as_png(folder, image).read_bytes(),
        lambda image, folder: bytearray(as_png(folder, image).read_bytes()),
        lambda image, folder: io.BytesIO(as_png(folder, image).read_bytes()),
        lambda image, folder: [io.BytesIO(as_png(folder, image).read_bytes())],
        lambda image, folder: packed_tiff(image),
        lambda image, folder: np.array([str(as_png(folder, image))]),
        lambda image, folder: np.array([as_png(folder, image)], dtype=object),
        lambda image, folder: np.array([str(as_png(folder, image))])[0],
        lambda image, folder: image.astype(np.uint16) * 256 + 77,
        lambda image, folder: image.astype(">u2") * 257,
        lambda image, folder: torch.from_numpy(image.astype(np.uint16) * 257),
        lambda image, folder: as_png(folder, image.astype(np.uint16) * 256 + 77),
        lambda image, folder: image[..., None],
        lambda image, folder: np.stack([image] * 3, axis=2),
        lambda image, folder: np.stack([image] * 3, axis=2)[None],
        lambda image, folder: image / 255,
        lambda image, folder: torch.from_numpy(image),
        lambda image, folder: torch.from_numpy(image)[None].expand(3, -1, -1),
        lambda image, folder: to_tensor(Image.fromarray(image)),
        lambda image, folder: to_tensor(Image.fromarray(image))[None],
        lambda image, folder: [image],
        lambda image, folder: iter([Image.fromarray(image)]),
    ],
)
def test_one_image_in_every_form_gets_one_answer(digits: Kept, tmp_path: Path, give: Callable[..., Any]) -> None:
    model = featbench.load_model(digits.folder, "random_forest/resnet20/layer3", device="cpu")
    expected = model.scores(DIGITS[7])
    assert expected.shape == (1, 10)
    given = model.scores(give(DIGITS[7], tmp_path))
    np.testing.assert_allclose(given, expected, rtol=1e-12)  # threads add the votes of trees in any order


def test_a_larger_image_is_brought_to_the_size_of_the_training_images(digits: Kept) -> None:
    model = featbench.load_model(digits.folder, "linear_svc/pixels/pixels", device="cpu")
    large = np.kron(DIGITS[7], np.ones((9, 9), np.uint8))
    side = np.full((72, 18), 255, np.uint8)
    wide = np.hstack([side, large, side])
    small = Image.fromarray(large).resize((8, 8), Image.Resampling.BILINEAR)
    middle = Image.fromarray(wide).resize((12, 8), Image.Resampling.BILINEAR).crop((2, 0, 10, 8))
    expected = model.scores([small, middle])
    assert np.abs(expected - model.scores(DIGITS[8])).max() > 0.1
    np.testing.assert_allclose(model.scores([large, wide]), expected, rtol=1e-9)


def test_the_answer_does_not_depend_on_the_company(digits: Kept) -> None:
    model = featbench.load_model(digits.folder, "scratch/resnet20", device="cpu")
    alone = np.concatenate([model.predict_proba(image) for image in DIGITS[:3]])
    together = model.predict_proba(DIGITS[:300, ..., None])
    assert together.shape == (300, 10)
    np.testing.assert_allclose(together[:3], alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1)


def test_no_images_are_no_rows(digits: Kept) -> None:
    model = featbench.load_model(digits.folder, device="cpu")
    assert model.predict([]) == []
    assert model.scores([]).shape == (0, 10)


def test_the_images_given_stay_as_they_are(photos: Kept) -> None:
    image = Image.new("P", (50, 40))
    image.info["transparency"] = 3
    featbench.load_model(photos.folder).predict(image)
    assert image.mode == "P"
    assert image.info == {"transparency": 3}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((28, 28, 4), np.uint8), r"image 0 has the shape \(28, 28, 4\); an image is a path"),
        (np.zeros((0, 28), np.uint8), r"shape \(0, 28\)"),
        (np.zeros(9, np.uint8), r"shape \(9,\)"),
        (torch.zeros(28, 28, 3, dtype=torch.uint8), r"shape \(28, 28, 3\)"),
        (np.zeros((2, 2, 2, 2, 3), np.uint8), r"shape \(2, 2, 2, 3\)"),
        (np.zeros((28, 28), np.int64), r"image 0 is of int64; give uint8 \(0 to 255\), uint16 \(0 to 65535\) or"),
        (np.zeros((28, 28), bool), "image 0 is of bool; give uint8"),
        (np.array([["a.jpg"]]), r"an array of <U5 and shape \(1, 1\) is no image.*; an array of paths is of str and"),
        (np.array("a.jpg"), r"an array of <U5 and shape \(\) is no image"),
        (np.array([b"a.jpg"]), r"an array of \|S5 and shape \(1,\) is no image"),
        (np.array([[None]]), r"an array of object and shape \(1, 1\) is no image"),
        ("https://a.org//b/c.jpg?d=1", r"https://a.org//b/c.jpg\?d=1 is a URL, and URLs are not fetched; download it"),
        ([Path("https://a.org/b.jpg")], r"^https://a.org/b.jpg is a URL, and URLs are not fetched"),
        (io.StringIO("text"), "image 0 is a file that gives str; open it in binary mode"),
        ([DIGITS[0], ["a"]], "image 1 is a list"),
        (np.full((28, 28), 255.0), "fractions from 255 to 255; give uint8"),
        (torch.full((3, 8, 8), -2.1), "fractions from -2.1 to -2.1"),
        (np.full((28, 28), np.nan), "fractions from nan"),
        ([DIGITS[0], 5], "image 1 is a int"),
        (7, "int is no image"),
        (None, "NoneType is no image"),
    ],
)
def test_what_is_no_image_is_refused(photos: Kept, image: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        featbench.load_model(photos.folder).predict(image)


def test_a_file_is_read_from_where_it_stands_and_stays_open(digits: Kept, tmp_path: Path) -> None:
    model = featbench.load_model(digits.folder, "random_forest/resnet20/layer3", device="cpu")
    (tmp_path / "both").write_bytes(b"a header" + as_png(tmp_path, DIGITS[7]).read_bytes())
    with (tmp_path / "both").open("rb") as file:
        assert file.read(8) == b"a header"
        np.testing.assert_allclose(model.scores(file), model.scores(DIGITS[7]), rtol=1e-12)
        assert not file.closed


def test_a_folder_is_no_image(photos: Kept) -> None:
    assert photos.images is not None
    with pytest.raises(
        UsageError, match=r"photos is a folder, and an image has a row of its own; give the files in it"
    ):
        featbench.load_model(photos.folder).predict(photos.images)


def test_classes_are_those_of_scikit_learn_too(digits: Kept) -> None:
    model = featbench.load_model(digits.folder, device="cpu")
    assert isinstance(model.classes_, np.ndarray)
    assert model.classes_.dtype.kind == "U"
    assert model.classes_[model.scores(DIGITS[:3, ..., None]).argmax(axis=1)].tolist() == model.predict(
        DIGITS[:3, ..., None]
    )


def test_the_score_is_the_share_of_right_classes(digits: Kept) -> None:
    model = featbench.load_model(digits.folder, device="cpu")
    predicted = model.predict(list(DIGITS[:8]))
    labels = [*predicted[:6], *(str((int(name) + 1) % 10) for name in predicted[6:])]
    assert model.score(DIGITS[:8, ..., None], labels) == 0.75
    assert model.score(DIGITS[:8, ..., None], np.array(labels).astype(int)) == 0.75  # the classes' names are digits
    assert model.score(DIGITS[0], predicted[0]) == 1


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (DIGITS[:2, ..., None], ["1"], "there are 2 images and 1 labels"),
        ([], [], "there are 0 images and 0 labels"),
        (DIGITS[:2, ..., None], ["1", "x"], "unknown class 'x'"),
    ],
)
def test_labels_that_fit_no_score_are_refused(digits: Kept, images: Any, labels: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        featbench.load_model(digits.folder, device="cpu").score(images, labels)


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"no image", "it holds no image of a known")])
def test_bytes_that_cannot_be_decoded_are_an_error(photos: Kept, content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=f"image 1 cannot be read: {reason}"):
        featbench.load_model(photos.folder).predict([Image.new("RGB", (9, 9)), content])


def test_a_file_that_cannot_be_read_is_an_error(photos: Kept, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    model = featbench.load_model(photos.folder)
    with pytest.raises(DataError, match=r"text\.jpg cannot be read: it holds no image"):
        model.predict(tmp_path / "text.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read: No such file"):
        model.predict([tmp_path / "gone.jpg"])


@pytest.mark.parametrize("method", ["linear_svc", "svm_rbf"])
def test_decision_values_have_calibrated_probabilities(digits: Kept, method: str) -> None:
    model = featbench.load_model(digits.folder, f"{method}/pixels/pixels", device="cpu")
    assert model.gives == "calibrated probability"
    scores, probabilities = model.scores(list(DIGITS[:500])), model.predict_proba(list(DIGITS[:500]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(np.argsort(probabilities, axis=1)[:, -1], scores.argmax(axis=1))
    confidence, right = probabilities.max(axis=1), np.array(model.predict(list(DIGITS[:500]))) == LABELS[:500]
    assert abs(confidence.mean() - right.mean()) < 0.1  # 120 training rows; most of the 500 are new to it


def test_without_held_out_rows_there_are_only_scores(tmp_path: Path) -> None:
    overrides = [
        "dataset.limit_train=60",
        "dataset.limit_test=20",
        "dataset.val_fraction=0.02",
        "baselines=[]",
        'backbones=[{name="pixels"}]',
        'evaluate={classifiers=["linear_svc","knn"],steps=[["l2"]],selection="none"}',
    ]
    featbench.run("digits", results=tmp_path / "r", cache=tmp_path / "c", device="cpu", overrides=overrides)
    model = featbench.load_model(tmp_path / "r", "linear_svc/pixels/pixels/l2")
    assert model.gives == "score"
    with pytest.raises(
        UsageError, match="linear_svc/pixels/pixels/l2 gives no probabilities, only scores: use `scores`"
    ):
        model.predict_proba(DIGITS[0])
    assert model.predict(DIGITS[0]) == [str(model.scores(DIGITS[0]).argmax())]
    neighbours = featbench.load_model(tmp_path / "r", "knn/pixels/pixels/l2")
    said = load_predictions(tmp_path / "r", neighbours.card.fingerprint)
    assert neighbours.predict(digits_of(list(said.id))) == said.predicted.tolist()


def test_a_penultimate_vector_beside_pooled_maps_has_no_pooling_and_is_predicted_with(tmp_path: Path) -> None:
    content = digits_content(
        dataset={"name": "digits", "limit_train": 40, "limit_test": 20},
        backbones=[{"name": "resnet20", "layers": ["layer1", "penultimate"], "pooling": "avg:2"}],
        evaluate={
            "classifiers": ["linear_svc"],
            "selection": "none",
            "fusions": [["resnet20/layer1", "resnet20/penultimate"]],
        },
    )
    rows = featbench.run(content, results=tmp_path / "r", cache=tmp_path / "c", device="cpu")
    assert rows.pooling.fillna("").tolist() == ["avg:2", "", "avg:2+none"]
    assert rows.feature_dim.tolist() == [64, 64, 128]
    for fingerprint in rows.fingerprint:
        said = load_predictions(tmp_path / "r", fingerprint)
        model = featbench.load_model(tmp_path / "r", fingerprint, device="cpu")
        assert model.predict(digits_of(list(said.id))) == said.predicted.tolist()
