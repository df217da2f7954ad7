"""torchvision's classification sets: how each names its splits, and one way to read them all.

Left out are CelebA (attributes; its identities do not recur between splits), LFWPeople (most people have one image)
and the caption sets Flickr8k, Flickr30k and SBU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torchvision

from featbench.data.images import ArrayImages, ItemImages, LazyImages, file_images, gather_array
from featbench.data.names import plain_name
from featbench.data.splits import Labels, Split
from featbench.errors import DataError

_TRAIN_TEST: Mapping[str, Mapping[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_WHOLE: Mapping[str, Mapping[str, Any]] = {"all": {}}


def _named(**names: str) -> Mapping[str, Mapping[str, Any]]:
    return {ours: {"split": theirs} for ours, theirs in names.items()}


@dataclass(frozen=True)
class TorchvisionSpec:
    """A class of torchvision.datasets, and the arguments that select each split ("all": it has none of its own)."""

    cls: str
    splits: Mapping[str, Mapping[str, Any]]
    downloads: bool = True


TORCHVISION_SETS: dict[str, TorchvisionSpec] = {
    "caltech101": TorchvisionSpec("Caltech101", _WHOLE),
    "caltech256": TorchvisionSpec("Caltech256", _WHOLE),
    "cifar10": TorchvisionSpec("CIFAR10", _TRAIN_TEST),
    "cifar100": TorchvisionSpec("CIFAR100", _TRAIN_TEST),
    "clevr_count": TorchvisionSpec("CLEVRClassification", _named(train="train", test="val")),  # test has no labels
    "country211": TorchvisionSpec("Country211", _named(train="train", val="valid", test="test")),
    "dtd": TorchvisionSpec("DTD", _named(train="train", val="val", test="test")),
    "emnist": TorchvisionSpec(
        "EMNIST", {name: {"split": "balanced", **kwargs} for name, kwargs in _TRAIN_TEST.items()}
    ),
    "eurosat": TorchvisionSpec("EuroSAT", _WHOLE),
    "fake_data": TorchvisionSpec("FakeData", {"train": {}, "test": {"random_offset": 1_000_000}}, downloads=False),
    "fashion_mnist": TorchvisionSpec("FashionMNIST", _TRAIN_TEST),
    "fer2013": TorchvisionSpec("FER2013", _named(train="train", test="test"), downloads=False),
    "fgvc_aircraft": TorchvisionSpec("FGVCAircraft", _named(train="train", val="val", test="test")),
    "flowers102": TorchvisionSpec("Flowers102", _named(train="train", val="val", test="test")),
    "food101": TorchvisionSpec("Food101", _named(train="train", test="test")),
    "gtsrb": TorchvisionSpec("GTSRB", _named(train="train", test="test")),
    "imagenet": TorchvisionSpec("ImageNet", _named(train="train", test="val"), downloads=False),
    "imagenette": TorchvisionSpec("Imagenette", _named(train="train", test="val")),
    "inaturalist": TorchvisionSpec(
        "INaturalist", {"train": {"version": "2021_train_mini"}, "test": {"version": "2021_valid"}}
    ),
    "kmnist": TorchvisionSpec("KMNIST", _TRAIN_TEST),
    "lsun": TorchvisionSpec("LSUN", {"train": {"classes": "train"}, "test": {"classes": "val"}}, downloads=False),
    "mnist": TorchvisionSpec("MNIST", _TRAIN_TEST),
    "omniglot": TorchvisionSpec("Omniglot", _WHOLE),
    "oxford_pets": TorchvisionSpec("OxfordIIITPet", _named(train="trainval", test="test")),
    "pcam": TorchvisionSpec("PCAM", _named(train="train", val="val", test="test")),
    "places365": TorchvisionSpec(
        "Places365",
        {"train": {"split": "train-standard", "small": True}, "test": {"split": "val", "small": True}},
    ),
    "qmnist": TorchvisionSpec("QMNIST", _TRAIN_TEST),
    "rendered_sst2": TorchvisionSpec("RenderedSST2", _named(train="train", val="val", test="test")),
    "semeion": TorchvisionSpec("SEMEION", _WHOLE),
    "stanford_cars": TorchvisionSpec("StanfordCars", _named(train="train", test="test"), downloads=False),
    "stl10": TorchvisionSpec("STL10", _named(train="train", test="test")),
    "sun397": TorchvisionSpec("SUN397", _WHOLE),
    "svhn": TorchvisionSpec("SVHN", _named(train="train", test="test")),
    "usps": TorchvisionSpec("USPS", _TRAIN_TEST),
}


def load_torchvision(spec: TorchvisionSpec, root: Path, *, offline: bool) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Read every split of a set below `root`, downloading what is missing with torchvision's own code.

    Returns:
        The class names, and the splits ("all" where the set has none of its own).

    Raises:
        DataError: The files are missing and cannot be downloaded; the message names them and where to put them.
    """
    opened = {name: _open(spec, kwargs, root, offline=offline) for name, kwargs in spec.splits.items()}
    splits = {name: _as_split(name, dataset, root) for name, dataset in opened.items()}
    present = np.unique(np.concatenate([split.labels for split in splits.values()]))
    names = _class_names(next(iter(opened.values())), 1 + int(present[-1]))
    if len(present) < len(names):  # CLEVR's classes are 3 to 10 objects
        splits = {name: replace(split, labels=np.searchsorted(present, split.labels)) for name, split in splits.items()}
    return tuple(names[label] for label in present), splits


def _open(spec: TorchvisionSpec, kwargs: Mapping[str, Any], root: Path, *, offline: bool) -> Any:
    cls = getattr(torchvision.datasets, spec.cls)
    roots = {} if spec.cls == "FakeData" else {"root": str(root)}
    try:
        try:
            return cls(**roots, **kwargs, **({"download": False} if spec.cls == "SEMEION" else {}))
        except (RuntimeError, FileNotFoundError):
            if offline or not spec.downloads:
                raise
        root.mkdir(parents=True, exist_ok=True)
        return cls(**roots, **kwargs, download=True)
    except ImportError as error:
        raise DataError(f"{spec.cls} needs a package that is not installed: {error}") from error
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(_missing(spec, root, error, offline=offline)) from error


def _missing(spec: TorchvisionSpec, root: Path, error: Exception, *, offline: bool) -> str:
    wanted = _wanted_file(error)
    if wanted is not None:
        url, path = wanted
        why = " ".join(str(error).split())
        return f"{spec.cls} cannot be downloaded ({why}); put the file of {url} at {path}, or point --data to it"
    why = "--offline forbids a download" if offline and spec.downloads else str(error)
    return f"{spec.cls} is not below {root}: {why}; put its files there, or point --data to them"


def _wanted_file(error: BaseException | None) -> tuple[str, str] | None:
    """Find which file torchvision was downloading when it failed: only its frames know."""
    while error is not None:
        frames = list(_frames(error.__traceback__))
        # MNIST tries several mirrors, and keeps what each raised
        tried = [other for frame in frames if frame["name"] == "download" for other in frame.get("errors", ())]
        for frame in chain(frames, *(_frames(other.__traceback__) for other in tried)):
            if frame["name"] == "download_url":
                return str(frame["url"]), str(Path(frame["root"]) / frame["filename"])
        error = error.__cause__ or error.__context__
    return None


def _frames(traceback: TracebackType | None) -> Iterator[dict[str, Any]]:
    while traceback is not None:
        frame = traceback.tb_frame
        yield {**frame.f_locals, "name": frame.f_code.co_name}
        traceback = traceback.tb_next


def _as_split(name: str, dataset: Any, root: Path) -> Split:
    labels = _labels(dataset)
    data = getattr(dataset, "data", None)
    images: ArrayImages | LazyImages
    if data is not None and hasattr(data, "dtype") and data.ndim in (3, 4):
        images = gather_array(data)
    else:
        paths = _paths(dataset)
        if paths is not None:
            ids = tuple(_relative(path, root) for path in paths)
            return Split(name, file_images(paths), labels, ids)
        images = ItemImages(dataset, range(len(dataset)))
    return Split(name, images, labels, tuple(f"{name}/{row:06d}" for row in range(len(labels))))


def _relative(path: str | Path, root: Path) -> str:
    absolute = Path(path).absolute()
    base = root.absolute()
    return plain_name(absolute.relative_to(base) if absolute.is_relative_to(base) else Path(absolute.name))


def _paths(dataset: Any) -> list[str | Path] | None:
    """Find the image files of a set without opening them; torchvision has several names for the list."""
    for name in ("_image_files", "_images"):
        if hasattr(dataset, name):
            return list(getattr(dataset, name))
    pairs = _pairs(dataset)
    if pairs and isinstance(pairs[0][0], str | Path):
        return [path for path, _ in pairs]
    return None


def _pairs(dataset: Any) -> list[tuple[Any, Any]] | None:
    for name in ("_samples", "samples", "imgs"):
        if hasattr(dataset, name):
            return list(getattr(dataset, name))
    return None


def _labels(dataset: Any) -> Labels:
    """Find the labels of a set without decoding its images; torchvision has several names for them."""
    for name in ("targets", "labels", "_labels", "y"):
        if hasattr(dataset, name):
            labels = np.asarray(getattr(dataset, name), np.int64)
            return labels[:, 0] if labels.ndim == 2 else labels  # QMNIST's targets have the writer, too
    pairs = _pairs(dataset)
    if pairs is not None:
        return np.asarray([label for _, label in pairs], np.int64)
    for name in ("_flat_character_images", "index"):  # Omniglot: (name, label); iNaturalist: (label, name)
        if hasattr(dataset, name):
            return np.asarray(
                [next(part for part in item if isinstance(part, int)) for item in getattr(dataset, name)], np.int64
            )
    return np.asarray([dataset[row][1] for row in range(len(dataset))], np.int64)


def _class_names(dataset: Any, n_classes: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or ()
    names = [name[0] if isinstance(name, tuple) else str(name) for name in names]
    if len(names) == n_classes and len(set(names)) == n_classes:
        return tuple(names)
    return tuple(str(label) for label in range(n_classes))
