"""The figures as plain values, the same for the page and for plots/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from featbench.report.folder import Folder
from featbench.stats.models import MODEL_KEYS

Series = dict[str, Any]

COSTS = {  # column of `Folder.models` -> label of its axis
    "fit_s": "seconds to choose hyper-parameters and fit",
    "feature_dim": "feature width (numbers an image)",
    "images_per_s": "images a second, from image to prediction",
    "total_s": "seconds in all: features, fit and test",
}


def model_points(folder: Folder) -> list[Series]:
    """Describe each model in the columns `_POINT`."""
    return [{column: plain(record[column]) for column in _POINT} for record in folder.models.to_dict("records")]


def by_validation(points: list[Series]) -> list[Series]:
    """Sort models by validation accuracy, the highest first."""
    return sorted(points, key=lambda point: -(point["val_accuracy"] or 0.0))


_POINT = (
    *("fingerprint", "name", "dataset", "kind", "method", "backbone", "weights", "layer", "pooling"),
    *("feature_dim", "steps"),
    *("val_accuracy", "accuracy", "accuracy_low", "accuracy_high", "verdict", "never", "gain", "gain_low", "gain_high"),
    *("p_holm", "fit_s", "extract_s", "predict_s", "images_per_s", "total_s", "n_train", "n_test"),
    *("params", "selection", "seed", "converged", "engine", "device", "precision"),
)


def layer_series(folder: Folder) -> list[Series]:
    """Follow each classifier through the layers of each backbone, in the order they were run; two layers or more."""
    models = folder.models[folder.models["kind"] == "classifier"]
    keys = ["dataset", "backbone", "weights", "steps", "method"]
    return [
        {
            "dataset": group["dataset"].iloc[0],
            "name": f"{_method(group.iloc[0])} on {_network(group.iloc[0])}",
            "backbone": _network(group.iloc[0]),
            "method": group["method"].iloc[0],
            "layers": _distinct_layers(group),
            **{column: [plain(v) for v in group[column]] for column in ("accuracy", "accuracy_low", "accuracy_high")},
        }
        for _, group in models.groupby(keys, dropna=False, sort=False)
        if len(group) > 1
    ]


def curve_series(folder: Folder) -> list[Series]:
    """Follow each classifier through the sizes of its training set."""
    curves = folder.tables["curves.csv"]
    series = []
    for _, group in curves.groupby(list(MODEL_KEYS), dropna=False, sort=False):
        first = group.iloc[0]
        parts = (first["backbone"], first["layer"], first["steps"])
        features = "/".join(dict.fromkeys(part for part in parts if part))
        if curves.loc[curves["backbone"] == first["backbone"], "weights"].nunique() > 1:
            features += f" ({first['weights']})"
        numbers = ("images_per_class", "n_repeats", "accuracy_mean", "accuracy_min", "accuracy_max")
        series.append(
            {"name": f"{first['method']}/{features}", "features": features}
            | {key: first[key] for key in ("dataset", "backbone", "weights", "layer", "method")}
            | {column: [plain(value) for value in group[column]] for column in numbers}
        )
    return series


def history_series(folder: Folder) -> list[Series]:
    """Follow each network through its epochs; `best_epoch` is the best by validation accuracy."""
    rows = folder.rows.set_index("fingerprint")
    names = dict(zip(folder.models["fingerprint"], folder.models["name"], strict=True))
    series = []
    for fingerprint, epochs in folder.histories.items():
        row = rows.loc[fingerprint]
        name = names.get(fingerprint, f"{row['method']}/{row['backbone']}, seed {row['seed']}")
        accuracy = epochs["val_accuracy"].to_numpy()
        series.append(
            {"fingerprint": fingerprint, "dataset": row["dataset"], "name": name, "method": row["method"]}
            | {column: [plain(value) for value in epochs[column]] for column in epochs.columns}
            | {"best_epoch": None if np.isnan(accuracy).all() else plain(epochs["epoch"][np.nanargmax(accuracy)])}
        )
    return series


def map_series(folder: Folder) -> list[Series]:
    """Place the test images by the features of each layer; those of the recommended model come first."""
    maps = folder.tables["maps.csv"]
    keys = ("dataset", "backbone", "weights", "layer", "pooling")
    series = [
        {key: group[key].iloc[0] for key in keys}
        | {
            "name": " ".join(dict.fromkeys(part for part in (_network(group.iloc[0]), group["layer"].iloc[0]) if part)),
            "n_test": plain(group["n_test"].iloc[0]),
            "shares": [plain(group["pca_1_share"].iloc[0]), plain(group["pca_2_share"].iloc[0])],
            "ids": group["id"].tolist(),
            "labels": group["label"].tolist(),
            "pca": [[plain(v) for v in group[axis]] for axis in ("pca_1", "pca_2")],
            "tsne": None
            if group["tsne_1"].isna().any()
            else [[plain(v) for v in group[a]] for a in ("tsne_1", "tsne_2")],
        }
        for _, group in maps.groupby(["dataset", "fingerprint", "layer"], sort=False)
    ]
    best = folder.best(folder.datasets[0])
    return sorted(series, key=lambda one: not is_of_model(best, one, keys))


def is_of_model(best: Series | None, line: Series, keys: Sequence[str]) -> bool:
    """Say whether a line is of the same features, by these keys, as a model that `Folder.best` returns."""
    return best is not None and all(line[key] == (plain(best[key]) or "") for key in keys)


def map_classes(maps: list[Series]) -> list[str]:
    """List the classes of the maps in alphabetical order; colours are given in it."""
    return sorted({label for one in maps for label in one["labels"]})


def plain(value: Any) -> Any:
    """Convert a cell for JSON: NaN and NA become None, numpy's numbers become Python's."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def _network(row: pd.Series) -> str:
    weights = row["weights"]
    return f"{row['backbone']} ({weights})" if isinstance(weights, str) and weights else str(row["backbone"])


def _method(row: pd.Series) -> str:
    return f"{row['steps']} {row['method']}" if isinstance(row["steps"], str) and row["steps"] else str(row["method"])


def _distinct_layers(group: pd.DataFrame) -> list[str]:
    """Name the layers; with the pooling where a layer is there twice."""
    if group["layer"].is_unique:
        return [str(layer) for layer in group["layer"]]
    return [f"{layer} {pooling}" for layer, pooling in zip(group["layer"], group["pooling"], strict=True)]
