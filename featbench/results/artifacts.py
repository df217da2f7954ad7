"""The files that belong to a row of results.csv, named after it: its predictions, its model, its training history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from featbench.errors import ResultsError, first_line
from featbench.results.files import csv_dialect, replacing
from featbench.results.row import Row

PREDICTIONS = "predictions"
_NAME_LENGTH = 60  # characters of each part: four parts stay below the 255 bytes that file systems allow


def artifact_path(folder: Path, kind: str, row: Row, suffix: str) -> Path:
    """Return where a file that belongs to a row lives: `<folder>/<kind>/<artifact name><suffix>`."""
    return folder / kind / f"{artifact_name(row)}{suffix}"


def artifact_name(row: Row) -> str:
    """Name a row's files: readable and unique, `<method>-<backbone>-<layer>-<fingerprint>`."""
    parts = [re.sub(r"[^A-Za-z0-9._-]", "_", part) for part in (row.method, row.backbone, row.layer) if part]
    return "-".join([*(part[:_NAME_LENGTH] for part in parts), row.fingerprint])


def find_artifact(folder: Path, kind: str, fingerprint: str, suffix: str) -> Path:
    """Find the file of the row with this fingerprint.

    Raises:
        ResultsError: There is none, or more than one.
    """
    found = _artifacts(folder, kind, fingerprint, suffix)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ResultsError(
            f"one file of row {fingerprint} should be in {folder / kind}, found: {names}; "
            "the fingerprint column of results.csv names the rows, and running the experiment again writes their files"
        )
    return found[0]


def has_artifact(folder: Path, kind: str, fingerprint: str, suffix: str) -> bool:
    """Say whether there is a file of the row with this fingerprint."""
    return bool(_artifacts(folder, kind, fingerprint, suffix))


def write_predictions(
    folder: Path,
    row: Row,
    ids: Sequence[str],
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    scores: npt.NDArray[np.floating[Any]],
    classes: Sequence[str],
) -> Path:
    """Write what a model predicts of each test image.

    Args:
        folder: The results folder.
        row: The model's.
        ids: N sample ids.
        labels: True classes, (N,) int64 in [0, n_classes).
        predicted: Predicted classes, (N,) int64 in [0, n_classes).
        scores: Probabilities or decision values, (N, n_classes) float; -inf for a class that was not trained.
        classes: n_classes names.

    Returns:
        The CSV file: id, label, predicted, then one `score:<class>` a class.

    Raises:
        ResultsError: The file cannot be written.
    """
    names = np.asarray(classes, dtype=object)
    table = pd.DataFrame(scores, columns=[f"score:{name}" for name in classes])
    table.insert(0, "id", list(ids))
    table.insert(1, "label", names[labels])
    table.insert(2, "predicted", names[predicted])
    path = artifact_path(folder, PREDICTIONS, row, ".csv")
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n", encoding="utf-8")
    return path


def load_predictions(folder: str | Path, fingerprint: str) -> pd.DataFrame:
    """Read the per-sample predictions of a row: id, label and predicted as strings, scores as float64.

    The scores of a network that diverged are NaN.

    Raises:
        ResultsError: There is no such file, or it is no CSV file.
    """
    path = find_artifact(Path(folder), PREDICTIONS, fingerprint, ".csv")
    try:
        dialect = csv_dialect(path)
        sep, encoding = dialect.separator, dialect.encoding
        header = pd.read_csv(path, nrows=0, sep=sep, encoding=encoding).columns
        scores = [column for column in header if column.startswith("score:")]
        table: pd.DataFrame = pd.read_csv(
            path,
            dtype=dict.fromkeys(header, "str") | dict.fromkeys(scores, "float64"),
            keep_default_na=False,
            na_values={score: [""] for score in scores},  # in no other column: an image may be called NA
            decimal="," if sep == ";" else ".",
            sep=sep,
            encoding=encoding,
        )
        return table
    except (ValueError, OSError) as error:
        raise ResultsError(
            f"{path} is not a readable CSV file: {first_line(error)}; run the experiment again"
        ) from error


def _artifacts(folder: Path, kind: str, fingerprint: str, suffix: str) -> list[Path]:
    """List regular files only: opening a pipe would wait for ever."""
    files = (folder / kind).glob(f"*{suffix}")
    return sorted(file for file in files if file.stem.endswith(f"-{fingerprint}") and file.is_file())
