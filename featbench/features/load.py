"""Cached features as arrays: `featbench.load_features`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from featbench.errors import ResultsError, UsageError, unknown
from featbench.features.cache import read_layer
from featbench.features.opening import NoCacheError
from featbench.features.rows import Features
from featbench.places import expand_user, feature_caches


class LabelledFeatures(NamedTuple):
    """Features X (N, D) float32 or float16, labels y (N,) int64 and N ids; row i of each belongs to one image."""

    X: Features
    y: npt.NDArray[np.int64]
    ids: list[str]


def load_features(
    source: str | Path,
    layer: str | None = None,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
    cache: str | Path | None = None,
) -> LabelledFeatures:
    """Read the features of one layer and split, from a results folder or from a cache file.

        X, y, ids = load_features("results/pets", backbone="resnet18", layer="layer3", split="test")

    Args:
        source: A results folder, whose features.csv lists what there is, or a cache file.
        layer: Which layer. This and the following four may be left out where there is only one.
        backbone: Which backbone; of a results folder, as the next four.
        weights: Which of the backbone's weights.
        pooling: Which pooling of the layer.
        split: "train", "val" or "test".
        cache: Where the run kept its feature caches; None is `$FEATBENCH_HOME/features`, or
            `~/.cache/featbench/features`.

    Returns:
        X (N, D), y (N,) and ids (N), in the order of the split, without images that could not be read.

    Raises:
        UsageError: There is no such layer, backbone or split, or more than one that is meant.
        ResultsError: There is no such folder, or it has no features.csv, or a damaged one.
        CacheError: The cache file is missing, damaged or not a cache file.
    """
    wanted = {"backbone": backbone, "weights": weights, "layer": layer, "pooling": pooling, "split": split}
    place = expand_user(source)
    if place.is_dir():
        path, layer = _find(place, wanted, feature_caches(cache))
    elif not place.exists() and place.suffix != ".h5":
        raise ResultsError(f"there is no results folder {place}, and no cache file of that name")
    else:
        for name, value in (wanted | {"layer": None, "cache": cache}).items():
            if value is not None:
                raise UsageError(
                    f"{name} has no effect on the cache file {place}; remove it, or give a results folder in its place"
                )
        path = place
    return LabelledFeatures(*read_layer(path, layer))


def _find(folder: Path, wanted: dict[str, str | None], cache_dir: Path) -> tuple[Path, str]:
    """Find the cache file of the one row of features.csv that is wanted, and its layer."""
    from featbench.results.feature_files import FEATURES_CSV, read_feature_files  # a cache file is read without pandas

    rows = read_feature_files(folder)
    for name, value in wanted.items():
        valid = list(dict.fromkeys(rows[name]))
        if value is not None:
            if value not in valid:
                raise unknown(f"{name} in {folder / FEATURES_CSV}", value, valid)
            rows = rows[rows[name] == value]
    if rows.empty:
        raise ResultsError(f"{folder / FEATURES_CSV} lists no features; run `featbench extract` again")
    if len(rows) > 1:
        choices = {name: list(dict.fromkeys(rows[name])) for name in wanted}
        open_ = "; ".join(f"{name}: {', '.join(values)}" for name, values in choices.items() if len(values) > 1)
        raise UsageError(f"{folder} has features of more than one kind; say which ({open_})")
    row = rows.iloc[0]
    path = PurePosixPath(row["path"])
    if path.is_absolute() or ".." in path.parts or not path.name.endswith(f"-{row['fingerprint']}.h5"):
        raise ResultsError(f"{folder / FEATURES_CSV} names {row['path']!r}, which is no path of a cache file")
    if not (cache_dir / path).is_file():
        raise NoCacheError(
            f"the features of {row['backbone']} {row['layer']} ({row['split']}) are not in {cache_dir} any more: there "
            f"is no {path}; give cache=, the folder that the run kept them in, or run `featbench extract "
            f"{folder / 'experiment.toml'}` to compute them again"
        )
    return cache_dir / path, row["layer"]
