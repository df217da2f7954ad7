from __future__ import annotations

import csv
import inspect
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

from featbench.config import DatasetConfig
from featbench.data.datasets import load_dataset
from featbench.data.images import ArrayImages
from featbench.data.splits import Split
from featbench.data.torchvision_sets import TORCHVISION_SETS, TorchvisionSpec, load_torchvision
from featbench.errors import DataError

WriteImage = Callable[..., Path]
SPLITS = ("train", "val", "test")


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_the_table_fits_torchvision(name: str) -> None:
    spec = TORCHVISION_SETS[name]
    signature = inspect.signature(getattr(torchvision.datasets, spec.cls))
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    assert spec.splits.keys() in ({"all"}, {"train", "test"}, {"train", "val", "test"})
    for kwargs in spec.splits.values():
        root = {} if spec.cls == "FakeData" else {"root": "x"}
        download = {"download": True} if spec.downloads else {}
        signature.bind(**root, **kwargs, **download)
        assert takes_any or not spec.downloads or "download" in signature.parameters


@pytest.mark.parametrize("name", [name for name, spec in TORCHVISION_SETS.items() if not spec.downloads])
def test_sets_that_cannot_be_downloaded_are_those_that_torchvision_does_not_download(name: str) -> None:
    parameters = inspect.signature(getattr(torchvision.datasets, TORCHVISION_SETS[name].cls)).parameters
    downloads = "download" in parameters and name != "stanford_cars"  # its argument only says that the source is gone
    assert not downloads


def test_mnist_is_torchvisions(shared_dir: Path) -> None:
    root = shared_dir / "data" / "torchvision"
    dataset = load_dataset(DatasetConfig(name="mnist"), root, seed=0, offline=True)
    assert dataset.classes[7] == "7 - seven"
    for name, train, count in (("train", True, 60_000), ("test", False, 10_000)):
        expected = torchvision.datasets.MNIST(root, train=train)
        split = dataset.splits[name]
        assert isinstance(split.images, ArrayImages)
        assert split.images.pixels.shape == (count, 28, 28, 1)
        np.testing.assert_array_equal(split.images.pixels[..., 0], expected.data)
        np.testing.assert_array_equal(split.labels, expected.targets)
        assert split.ids[:2] == (f"{name}/000000", f"{name}/000001")
        assert len(set(split.ids)) == count


def eurosat(root: Path, write_image: WriteImage) -> None:
    for name in ("Forest_1", "Forest_2", "River_1"):
        write_image(root / "eurosat/2750" / name.split("_")[0] / f"{name}.jpg")


def dtd(root: Path, write_image: WriteImage) -> None:
    for split in SPLITS:
        files = [f"{name}/{name}_{split}.jpg" for name in ("striped", "banded")]  # not in the order of the classes
        for file in files:
            write_image(root / "dtd/dtd/images" / file)
        labels = root / "dtd/dtd/labels" / f"{split}1.txt"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("\n".join(files) + "\n")


def food101(root: Path, write_image: WriteImage) -> None:
    for split in ("train", "test"):
        listed = {name: [f"{name}/{split}{number}" for number in range(2)] for name in ("waffles", "apple_pie")}
        for file in [file for files in listed.values() for file in files]:
            write_image(root / "food-101/images" / f"{file}.jpg")
        (root / "food-101/meta").mkdir(exist_ok=True)
        (root / "food-101/meta" / f"{split}.json").write_text(json.dumps(listed))


def oxford_pets(root: Path, write_image: WriteImage) -> None:
    base = root / "oxford-iiit-pet"
    for split, number in (("trainval", 1), ("test", 2)):
        lines = []
        for label, name in ((1, "Abyssinian"), (2, "american_bulldog")):
            write_image(base / "images" / f"{name}_{number}.jpg")
            lines.append(f"{name}_{number} {label} {label} 1")
        (base / "annotations").mkdir(exist_ok=True)
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")


def country211(root: Path, write_image: WriteImage) -> None:
    for split in ("train", "valid", "test"):
        for name in ("AD", "ZW"):
            write_image(root / "country211" / split / name / f"{split}_{name}.jpg")


def rendered_sst2(root: Path, write_image: WriteImage) -> None:
    for split in ("train", "valid", "test"):
        for name in ("negative", "positive"):
            write_image(root / "rendered-sst2" / split / name / f"{split}_{name}.png")


def gtsrb(root: Path, write_image: WriteImage) -> None:
    for name in ("00000", "00001"):
        write_image(root / "gtsrb/GTSRB/Training" / name / f"{name}_x.ppm")
    files = ["00000.ppm", "00001.ppm"]
    for file in files:
        write_image(root / "gtsrb/GTSRB/Final_Test/Images" / file)
    with (root / "gtsrb/GT-final_test.csv").open("w", newline="") as csv_file:
        writer = csv.writer(csv_file, delimiter=";")
        writer.writerows([("Filename", "ClassId"), (files[0], 1), (files[1], 0)])


def caltech101(root: Path, write_image: WriteImage) -> None:
    for name in ("BACKGROUND_Google", "crab", "ant"):
        for number in (1, 2):
            write_image(root / "caltech101/101_ObjectCategories" / name / f"image_{number:04d}.jpg")


def clevr_count(root: Path, write_image: WriteImage) -> None:
    base = root / "clevr/CLEVR_v1.0"
    for split in ("train", "val"):
        scenes = []
        for number, count in enumerate((5, 3, 10)):
            file = write_image(base / "images" / split / f"CLEVR_{split}_{number:06d}.png")
            scenes.append({"image_filename": file.name, "objects": [{}] * count})
        (base / "scenes").mkdir(exist_ok=True)
        (base / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps({"scenes": scenes}))


def write_idx(path: Path, array: np.ndarray, code: int) -> None:
    """The file format of MNIST: two zeros, a code for the type, the number of axes, their lengths, the numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">4B", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(head + array.tobytes())


def fashion_mnist(root: Path, write_image: WriteImage) -> None:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 20), ("t10k", 10)):
        raw = root / "FashionMNIST/raw"
        write_idx(raw / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), 8)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", rng.permutation(np.arange(count, dtype=np.uint8) % 10), 8)


def qmnist(root: Path, write_image: WriteImage) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        raw = root / "QMNIST/raw"
        write_idx(raw / f"qmnist-{split}-images-idx3-ubyte", rng.integers(0, 256, (10, 28, 28), dtype=np.uint8), 8)
        targets = rng.integers(0, 4000, (10, 8)).astype(">i4")  # class, then the writer and more
        targets[:, 0] = rng.permutation(10)
        write_idx(raw / f"qmnist-{split}-labels-idx2-int", targets, 12)


# the first class and the first id of "train" (or of "all"), and the arguments of torchvision's class for each split
LAYOUTS: dict[str, tuple[Callable[[Path, WriteImage], None], str, str, dict[str, dict[str, Any]]]] = {
    "eurosat": (eurosat, "Forest", "eurosat/2750/Forest/Forest_1.jpg", {"all": {}}),
    "dtd": (dtd, "banded", "dtd/dtd/images/striped/striped_train.jpg", {name: {"split": name} for name in SPLITS}),
    "food101": (
        food101,
        "apple_pie",
        "food-101/images/waffles/train0.jpg",
        {"train": {"split": "train"}, "test": {"split": "test"}},
    ),
    "oxford_pets": (
        oxford_pets,
        "Abyssinian",
        "oxford-iiit-pet/images/Abyssinian_1.jpg",
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
    ),
    "country211": (
        country211,
        "AD",
        "country211/train/AD/train_AD.jpg",
        {"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}},
    ),
    "rendered_sst2": (
        rendered_sst2,
        "negative",
        "rendered-sst2/train/negative/train_negative.png",
        {name: {"split": name} for name in SPLITS},
    ),
    "gtsrb": (
        gtsrb,
        "0",
        "gtsrb/GTSRB/Training/00000/00000_x.ppm",
        {"train": {"split": "train"}, "test": {"split": "test"}},
    ),
    "caltech101": (caltech101, "ant", "all/000000", {"all": {}}),
    "clevr_count": (
        clevr_count,
        "3",
        "clevr/CLEVR_v1.0/images/train/CLEVR_train_000000.png",
        {"train": {"split": "train"}, "test": {"split": "val"}},
    ),
    "fashion_mnist": (
        fashion_mnist,
        "T-shirt/top",
        "train/000000",
        {"train": {"train": True}, "test": {"train": False}},
    ),
    "qmnist": (qmnist, "0 - zero", "train/000000", {"train": {"train": True}, "test": {"train": False}}),
}


def images_of(split: Split) -> list[np.ndarray]:
    if isinstance(split.images, ArrayImages):
        return [np.broadcast_to(image, (*image.shape[:2], 3)) for image in split.images.pixels]
    return [np.asarray(split.images.read(row)) for row in range(len(split))]


@pytest.mark.parametrize("name", LAYOUTS)
def test_sets_are_read_from_torchvisions_own_layout(name: str, tmp_path: Path, write_image: WriteImage) -> None:
    fill, first_class, first_id, arguments = LAYOUTS[name]
    fill(tmp_path, write_image)
    classes, splits = load_torchvision(TORCHVISION_SETS[name], tmp_path, offline=True)
    assert classes[0] == first_class
    assert next(iter(splits.values())).ids[0] == first_id
    assert splits.keys() == arguments.keys()
    for split_name, kwargs in arguments.items():
        expected = getattr(torchvision.datasets, TORCHVISION_SETS[name].cls)(str(tmp_path), **kwargs)
        split = splits[split_name]
        assert len(split) == len(expected) > 0
        assert len(set(split.ids)) == len(split)
        for row, image in enumerate(images_of(split)):
            picture, label = expected[row]
            np.testing.assert_array_equal(image, picture.convert("RGB"))
            in_torchvision = getattr(expected, "classes", None) or getattr(expected, "categories", None)
            assert classes[split.labels[row]] == (in_torchvision[label] if in_torchvision else str(label))


def test_labels_run_from_zero_without_gaps(tmp_path: Path, write_image: WriteImage) -> None:
    clevr_count(tmp_path, write_image)
    classes, splits = load_torchvision(TORCHVISION_SETS["clevr_count"], tmp_path, offline=True)
    assert classes == ("3", "5", "10")
    assert sorted(splits["train"].labels) == [0, 1, 2]


def test_items_that_are_no_files_are_torchvisions(tmp_path: Path) -> None:
    kwargs = {"train": {"size": 12}, "test": {"size": 12, "random_offset": 99}}
    kwargs = {name: {**given, "image_size": (3, 8, 8), "num_classes": 2} for name, given in kwargs.items()}
    classes, splits = load_torchvision(TorchvisionSpec("FakeData", kwargs, downloads=False), tmp_path, offline=True)
    assert classes == ("0", "1")
    for name, split in splits.items():
        expected = torchvision.datasets.FakeData(**kwargs[name])
        assert split.ids == tuple(f"{name}/{row:06d}" for row in range(12))
        for row, (picture, label) in enumerate(expected):
            assert split.labels[row] == label
            np.testing.assert_array_equal(split.images.read(row), picture)  # type: ignore[union-attr]


def test_a_set_without_splits_is_shared_out(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("Forest", "River"):
        for number in range(20):
            write_image(tmp_path / "eurosat/2750" / name / f"{name}_{number}.jpg", size=(4, 4))
    dataset = load_dataset(DatasetConfig(name="eurosat"), tmp_path, seed=0, offline=True)
    assert {name: np.bincount(split.labels).tolist() for name, split in dataset.splits.items()} == {
        "train": [14, 14],
        "val": [3, 3],
        "test": [3, 3],
    }


def test_photos_of_a_set_are_turned_upright(tmp_path: Path, write_image: WriteImage) -> None:
    eurosat(tmp_path, write_image)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "eurosat/2750/Forest/Forest_1.jpg"
    Image.open(path).save(path, exif=exif)
    _, splits = load_torchvision(TORCHVISION_SETS["eurosat"], tmp_path, offline=True)
    assert splits["all"].images.read(0).size == (10, 12)  # type: ignore[union-attr]


# the sets that torchvision can look for without a package that featbench does not need
@pytest.mark.parametrize("name", sorted(set(TORCHVISION_SETS) - {"fake_data", "lsun"}))
def test_offline_a_missing_set_names_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"is not below .*{tmp_path.name}/data: .* put its files there, or point"):
        load_dataset(DatasetConfig(name=name), tmp_path / "data", seed=0, offline=True)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "url", "place"),
    [
        ("cifar10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-python.tar.gz"),
        ("food101", "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "food-101.tar.gz"),
        ("mnist", "https://.*/train-images-idx3-ubyte.gz", "MNIST/raw/train-images-idx3-ubyte.gz"),
        ("oxford_pets", "https://.*/images.tar.gz", "oxford-iiit-pet/images.tar.gz"),
        ("semeion", "http://.*/semeion.data", "semeion.data"),
    ],
)
def test_without_a_network_the_error_names_the_file_and_its_place(
    name: str, url: str, place: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"put the file of {url} at {tmp_path}/{place}"):
        load_dataset(DatasetConfig(name=name), tmp_path, seed=0)


@pytest.mark.usefixtures("no_network")
def test_a_file_put_at_the_place_that_the_error_names_is_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_dataset(DatasetConfig(name="fashion_mnist"), tmp_path, seed=0)
    fashion_mnist(tmp_path, lambda *_: tmp_path)
    assert len(load_dataset(DatasetConfig(name="fashion_mnist"), tmp_path, seed=0).splits["train"]) == 20
