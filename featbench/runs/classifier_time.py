"""About how long the classifiers of an experiment will take, from one small fit of each on made-up rows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from featbench.backbones.load import RANDOM, load_backbone
from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.rows import LabelledFeatures, how_to_select
from featbench.data.loader import image_shape
from featbench.runs.resolve import Job

_ROWS = 600
_WIDTH = 512
_CLASSES = 50
# How seconds grow with the rows, and with the width; 1 where a classifier is not named.
_BY_ROWS: Mapping[str, float] = MappingProxyType({"svm_rbf": 1.7, "knn": 2.0})
_BY_WIDTH: Mapping[str, float] = MappingProxyType({"svm_rbf": 0.5, "random_forest": 0.5})
_BY_CLASSES: Mapping[str, float] = MappingProxyType({"linear_svc": 1.0, "logistic_regression": 1.0})  # beyond _CLASSES
_DISTANCE = 3.0  # between the middles of two classes, in deviations: easy, but not without errors


def classifier_seconds(job: Job) -> float:
    """Estimate the seconds of stage 2 without its learning curves; no more than their order of size is meant.

    Every classifier is searched with one held-out split and fitted, on rows made up for the classes of the data set.
    """
    config, splits = job.experiment.evaluate, job.dataset.splits
    n_train, n_val = len(splits["train"]), len(splits["val"]) if "val" in splits else 0
    whole = Size(n_train + n_val, tuple(_widths(job)), len(job.dataset.classes))
    n_classes = min(whole.n_classes, _CLASSES)
    part = Size(min(whole.n_rows, max(_ROWS, 10 * n_classes)), (min(max(whole.widths), _WIDTH),), n_classes)
    train, test = (_made_up(part, seed) for seed in (0, 1))
    small = config.model_copy(update={"selection": "none" if config.selection == "none" else "holdout"})
    total_s = 0.0
    for name, spec in job.classifiers.items():
        started_s = time.perf_counter()
        fit_and_test(spec, train, None, test, small, 0, n_classes)
        taken_s = time.perf_counter() - started_s
        how = how_to_select(spec, config, n_train, has_val=n_val > 0, learning=False)
        folds = config.folds if how == "cv" else 1
        total_s += taken_s * growth(name, part, whole) * folds * (config.repeats if spec.seeded else 1)
    return total_s


@dataclass(frozen=True)
class Size:
    """Rows to fit on, features of each layer, and classes."""

    n_rows: int
    widths: tuple[int, ...]
    n_classes: int


def growth(name: str, part: Size, whole: Size) -> float:
    """Return how many times as long as on rows of one layer a classifier takes on all layers, by the tables above."""
    by_rows = math.pow(whole.n_rows / part.n_rows, _BY_ROWS.get(name, 1.0))
    by_classes = math.pow(whole.n_classes / part.n_classes, _BY_CLASSES.get(name, 0.0))
    return (
        by_rows * by_classes * math.fsum((width / part.widths[0]) ** _BY_WIDTH.get(name, 1.0) for width in whole.widths)
    )


def _widths(job: Job) -> list[int]:
    """Return how many features each layer of each backbone has."""
    widths: list[int] = []
    for config in job.experiment.backbones:
        pixels = config.name == "pixels"
        untrained = config if pixels else config.model_copy(update={"weights": RANDOM})
        backbone = load_backbone(untrained, seed=0, offline=True, channels=job.dataset.channels)
        shape = image_shape(job.dataset.splits["train"], backbone.preprocess)
        layers = ["pixels"] if pixels else backbone.expand(config.layers, shape)
        widths += backbone.features(layers, "flatten" if pixels else config.pooling, shape).widths
    return widths


def _made_up(size: Size, seed: int) -> LabelledFeatures:
    (width,) = size.widths
    middles = np.random.default_rng(7).normal(scale=_DISTANCE / np.sqrt(2 * width), size=(size.n_classes, width))
    y = np.arange(size.n_rows) % size.n_classes
    X = middles[y] + np.random.default_rng(seed).normal(size=(size.n_rows, width))
    return LabelledFeatures(X.astype(np.float32), y, tuple(map(str, range(size.n_rows))))
