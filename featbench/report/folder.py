"""A results folder as the page reads it: what is missing or damaged is left out, with the reason."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from PIL import Image

from featbench.errors import ResultsError
from featbench.results.artifacts import find_artifact
from featbench.results.files import read_csv, read_limited, read_table
from featbench.results.images import (
    MAP_COLUMNS,
    MAPS,
    NOTE_COLUMNS,
    NOTES_CSV,
    SKIPPED_COLUMNS,
    SKIPPED_CSV,
    thumbnail_path,
)
from featbench.stats.accuracy import best_by_validation
from featbench.stats.advice import against_best, named_classes
from featbench.stats.cost import images_per_second, total_seconds
from featbench.stats.measures import never_predicted_classes
from featbench.stats.models import main_rows, model_names
from featbench.stats.statistics import Statistics

HISTORY_COLUMNS = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")
_OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    MAPS: (MAP_COLUMNS, ("n_test", "pca_1", "pca_2", "pca_1_share", "pca_2_share", "tsne_1", "tsne_2")),
    SKIPPED_CSV: (SKIPPED_COLUMNS, ()),
    NOTES_CSV: (NOTE_COLUMNS, ("images",)),
}
_MOST_BYTES = 2**20  # of texts that the page shows
_MOST_PICTURE_BYTES, _MOST_PICTURE_PX = 2**18, 512

Read = TypeVar("Read")


@dataclass(frozen=True, eq=False)
class Folder:
    """What a results folder holds.

    Attributes:
        path: The folder.
        rows: Of results.csv, those that the tables are about.
        models: Those that are compared, as `main_rows` chooses them, with `name`; `verdict` against the best model of
            their data set ("best", "tied", "better", "worse", "open" or "", where they are not compared); `gain`,
            `gain_low`, `gain_high` and `p_holm` of that comparison; `never`, the classes that are never predicted;
            `images_per_s` and `total_s`, from images to predictions.
        tables: The tables of `TABLES`, maps.csv, skipped.csv and notes.csv; empty where they are missing.
        histories: fingerprint -> the epochs of a network.
        advice: Sentences.
        experiment: experiment.toml; "" where it is missing.
        environment: environment.json; empty where it is missing.
        problems: file -> why it is left out.
    """

    path: Path
    rows: pd.DataFrame
    models: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    histories: Mapping[str, pd.DataFrame]
    advice: tuple[str, ...]
    experiment: str
    environment: Mapping[str, Any]
    problems: Mapping[str, str]

    @property
    def name(self) -> str:
        """The experiment's name."""
        return str(self.rows["experiment"].iloc[-1])

    @property
    def datasets(self) -> list[str]:
        """The data sets; nearly always one."""
        return [str(dataset) for dataset in self.rows["dataset"].unique()]

    def best(self, dataset: str) -> dict[str, Any] | None:
        """Return the model of a data set that the advice names."""
        records = self.models.to_dict("records")
        found = [r for r in records if r["dataset"] == dataset and r["verdict"] == "best"]
        return {str(key): value for key, value in found[0].items()} if found else None

    def thumbnail(self, dataset: str, image_id: str) -> bytes | None:
        """Return the small picture of a test image, as JPEG; None where there is none that featbench wrote."""
        try:
            content = read_limited(thumbnail_path(self.path, dataset, image_id), _MOST_PICTURE_BYTES)
            with warnings.catch_warnings(action="error"):  # Pillow warns of a size that would fill the memory
                image = Image.open(BytesIO(content), formats=["JPEG"])
                if max(image.size) > _MOST_PICTURE_PX:
                    return None
                image.load()
        except (OSError, ValueError, Warning, Image.DecompressionBombError):
            return None
        return content


def read_folder(path: Path, statistics: Statistics, warn: Callable[[str], None]) -> Folder:
    """Read the files of a results folder that are not computed from its rows and predictions."""
    rows = statistics.rows
    problems: dict[str, str] = {}

    def read(name: str, reader: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return reader()
        except (ResultsError, OSError, ValueError) as error:
            problems[name] = str(error)
            return otherwise

    others = {
        name: read(
            name,
            lambda name=name, of=of: read_table(path / name, *of, never_empty=("images",)),  # type: ignore[misc]
            pd.DataFrame(columns=list(of[0])),
        )
        for name, of in _OTHERS.items()
    }
    tables = {**statistics.tables, **others}
    if not (path / NOTES_CSV).exists():
        del problems[NOTES_CSV]  # folders of earlier versions have none
    histories = {}
    for fingerprint in rows.loc[rows["kind"] == "baseline", "fingerprint"]:
        table = read(f"history of {fingerprint}", lambda f=fingerprint: _history(path, f), None)  # type: ignore[misc]
        if table is not None:
            histories[str(fingerprint)] = table
    experiment = read("experiment.toml", lambda: _text(path / "experiment.toml"), "")
    environment: dict[str, Any] = read("environment.json", lambda: _json_object(path / "environment.json"), {})
    for name, problem in problems.items():
        if name != MAPS:  # made by `featbench run` alone
            warn(f"the page goes without {name}: {problem}")
    return Folder(
        path=path,
        rows=rows,
        models=_with_verdicts(main_rows(rows), tables["comparisons.csv"], tables["confusion.csv"]),
        tables=tables,
        histories=histories,
        advice=statistics.advice,
        experiment=experiment,
        environment=environment,
        problems=problems,
    )


def _history(path: Path, fingerprint: str) -> pd.DataFrame:
    file = find_artifact(path, "history", fingerprint, ".csv")
    read_table(file, ("epoch",), ("epoch",), never_empty=("epoch",))
    return read_csv(file, HISTORY_COLUMNS, HISTORY_COLUMNS)  # losses of a network that diverged may be infinite


def _text(path: Path) -> str:
    return read_limited(path, _MOST_BYTES).decode("utf-8")


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except RecursionError:
        raise ValueError(f"{path} is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def _with_verdicts(models: pd.DataFrame, comparisons: pd.DataFrame, confusion: pd.DataFrame) -> pd.DataFrame:
    columns = ["gain", "gain_low", "gain_high", "p_holm", "verdict"]
    found: dict[str, list[Any]] = {}
    for _, mine in models.groupby("dataset", sort=False):
        best = best_by_validation(mine)
        if best is not None:
            others = against_best(mine, comparisons, best)
            found |= dict(zip(others["fingerprint"], others[columns].to_numpy().tolist(), strict=True))
            found[best["fingerprint"]] = [float("nan")] * 4 + ["best"]
    none = [float("nan")] * 4 + [""]
    verdicts = pd.DataFrame([found.get(f, none) for f in models["fingerprint"]], columns=columns, index=models.index)
    names, classes = model_names(models), never_predicted_classes(confusion)
    return models.assign(
        name=[names[fingerprint] for fingerprint in models["fingerprint"]],
        never=[named_classes(model, classes) for _, model in models.iterrows()],
        images_per_s=images_per_second(models),
        total_s=total_seconds(models),
        **{column: verdicts[column] for column in columns},
    ).reset_index(drop=True)
