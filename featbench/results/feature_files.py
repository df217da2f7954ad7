"""features.csv: which cache file has the features of each layer and split that a run's models were trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pandas as pd

from featbench.errors import ResultsError
from featbench.results.files import read_csv, write_csv

FEATURES_CSV = "features.csv"


@dataclass(frozen=True)
class FeatureFile:
    """One layer of one split.

    Attributes:
        fingerprint: Of the cache file.
        path: Of the cache file below the cache folder, with forward slashes.
        width: Features of an image.
        rows: Images.
        seconds: Wall-clock time of the pass that computed the layer.
    """

    backbone: str
    weights: str
    layer: str
    pooling: str | None
    split: str
    fingerprint: str
    path: str
    width: int
    rows: int
    seconds: float


_COLUMNS = tuple(field.name for field in fields(FeatureFile))


def write_feature_files(folder: Path, files: Iterable[FeatureFile]) -> None:
    """Write features.csv.

    Raises:
        ResultsError: The file cannot be written.
    """
    write_csv(folder / FEATURES_CSV, _COLUMNS, map(astuple, files))


def read_feature_files(folder: Path) -> pd.DataFrame:
    """Read features.csv: a row a layer and split, all columns as text; an empty cell is "".

    Raises:
        ResultsError: It is missing or damaged.
    """
    if not (folder / FEATURES_CSV).is_file():
        raise ResultsError(
            f"there is no {FEATURES_CSV} in {folder}, which says where its features are; run `featbench extract` with "
            "the same experiment and --results once more (what is cached is not computed again)"
        )
    return read_csv(folder / FEATURES_CSV, _COLUMNS)
