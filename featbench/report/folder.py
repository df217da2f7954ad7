"""A results folder as the page reads it: what is missing or damaged is left out, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from featbench.errors import ResultsError
from featbench.report.tables import ADVICE, write_accuracy_tables, write_statistics
from featbench.results.artifacts import find_artifact
from featbench.results.files import read_csv, read_limited
from featbench.results.images import MAP_COLUMNS, MAPS, NOTE_COLUMNS, NOTES_CSV
from featbench.results.store import RESULTS_CSV, load_current
from featbench.stats.accuracy import best_by_validation
from featbench.stats.advice import against_best, named_classes
from featbench.stats.comparisons import COMPARISON_COLUMNS
from featbench.stats.measures import CLASS_MEASURES, CONFUSION_COLUMNS, METRIC_COLUMNS, given_up_classes
from featbench.stats.mistakes import MISTAKE_COLUMNS, MISTAKES
from featbench.stats.models import main_rows, model_names
from featbench.stats.spread import CURVE_COLUMNS, IMAGES_PER_CLASS, SPREAD_COLUMNS, curve_table, spread_table

_SUMMARY = ("feature_dim", "n_repeats", "accuracy_mean", "accuracy_sd", "accuracy_min", "accuracy_max")
HISTORY_COLUMNS = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # file -> columns, those of them that are numbers
    "comparisons.csv": (COMPARISON_COLUMNS, COMPARISON_COLUMNS[5:]),
    "metrics.csv": (METRIC_COLUMNS, ("value", "low", "high")),
    "confusion.csv": (CONFUSION_COLUMNS, ("count",)),
    "spread.csv": (SPREAD_COLUMNS, ("n_train_min", "n_train_max", *_SUMMARY)),
    "curves.csv": (CURVE_COLUMNS, (IMAGES_PER_CLASS, *_SUMMARY)),
    MISTAKES: (MISTAKE_COLUMNS, ("certainty",)),
}
_OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    MAPS: (MAP_COLUMNS, ("n_test", "pca_1", "pca_2", "pca_1_share", "pca_2_share", "tsne_1", "tsne_2")),
    "skipped.csv": (("split", "id", "reason"), ()),
    NOTES_CSV: (NOTE_COLUMNS, ("images",)),
}
_NEVER_EMPTY = {"value", "count", "n_repeats", IMAGES_PER_CLASS, "images", "epoch", *COMPARISON_COLUMNS[5:]}
_MOST_BYTES = 2**20  # of texts that the page shows

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
            `images_per_s`, from images to predictions.
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


def read_folder(path: Path, warn: Callable[[str], None]) -> Folder:
    """Read a results folder; tables that are missing, or are of other rows, are computed anew and written.

    Args:
        path: The folder.
        warn: Told of files that are left out.

    Raises:
        ResultsError: results.csv is missing, damaged, of another version or without a row; or a file cannot be written.
    """
    if path.is_file():
        raise ResultsError(f"{path} is a file; give the results folder that {RESULTS_CSV} lies in")
    rows = load_current(path)
    if rows.empty:
        raise ResultsError(f"{path / RESULTS_CSV} has no row yet; `featbench run` trains the models that it tells of")
    models = main_rows(rows)
    problems: dict[str, str] = {}

    def read(name: str, reader: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return reader()
        except (ResultsError, OSError, ValueError) as error:
            problems[name] = str(error)
            return otherwise

    write_accuracy_tables(path, rows)
    if not _statistics_are_of(path, rows):
        write_statistics(path, rows, warn)
    tables = {
        name: read(name, lambda name=name, of=of: _table(path / name, *of), pd.DataFrame(columns=list(of[0])))  # type: ignore[misc]
        for name, of in (TABLES | _OTHERS).items()
    }
    if not (path / NOTES_CSV).exists():
        del problems[NOTES_CSV]  # folders of earlier versions have none
    histories = {}
    for fingerprint in rows.loc[rows["kind"] == "baseline", "fingerprint"]:
        table = read(f"history of {fingerprint}", lambda f=fingerprint: _history(path, f), None)  # type: ignore[misc]
        if table is not None:
            histories[str(fingerprint)] = table
    advice = read(ADVICE, lambda: _text(path / ADVICE), "")
    experiment = read("experiment.toml", lambda: _text(path / "experiment.toml"), "")
    environment: dict[str, Any] = read("environment.json", lambda: _json_object(path / "environment.json"), {})
    for name, problem in problems.items():
        if name != MAPS:  # made by `featbench run` alone
            warn(f"the page goes without {name}: {problem}")
    return Folder(
        path=path,
        rows=rows,
        models=_with_verdicts(models, tables["comparisons.csv"], tables["confusion.csv"]),
        tables=tables,
        histories=histories,
        advice=tuple(line.removeprefix("- ") for line in advice.split("\n") if line.strip()),
        experiment=experiment,
        environment=environment,
        problems=problems,
    )


def _statistics_are_of(path: Path, rows: pd.DataFrame) -> bool:
    """Say whether the tables are whole, and those of these rows: a file may be cut, edited, or left from earlier."""
    try:
        read = {name: _table(path / name, *of) for name, of in TABLES.items()}
    except ResultsError:
        return False
    models = main_rows(rows)
    n_test = models.set_index("fingerprint")["n_test"]
    by_model = read["confusion.csv"].groupby("fingerprint")
    pairs = sum(len(mine) * (len(mine) - 1) // 2 for _, mine in models.groupby(["dataset", "n_test"]))
    return (
        (path / ADVICE).is_file()
        and by_model["count"].sum().to_dict() == n_test.to_dict()
        and _measured(read["metrics.csv"]) == {key: _classes(mine) for key, mine in by_model}
        and len(read["comparisons.csv"]) == pairs  # where models differ in their test images it is computed each time
        and len(read["spread.csv"]) == len(spread_table(rows))
        and len(read["curves.csv"]) == len(curve_table(rows))
    )


def _classes(confusion: pd.DataFrame) -> dict[str, int]:
    return dict.fromkeys([*confusion["label"], *confusion["predicted"]], len(CLASS_MEASURES))


def _measured(metrics: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count the measures of each class that metrics.csv has, by model."""
    of_classes = metrics[metrics["class"] != ""].groupby("fingerprint")
    return {
        str(key): {str(name): int(n) for name, n in mine["class"].value_counts().items()} for key, mine in of_classes
    }


def _table(path: Path, columns: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    table = read_csv(path, columns, numbers)
    for column in numbers:
        wrong = np.isinf(table[column]) | (table[column].isna() & (column in _NEVER_EMPTY))
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            given = "empty" if np.isnan(table[column].iloc[row]) else "infinite"
            raise ResultsError(f"{path} is damaged: {column} is {given} in row {row + 1}")
    return table


def _history(path: Path, fingerprint: str) -> pd.DataFrame:
    file = find_artifact(path, "history", fingerprint, ".csv")
    _table(file, ("epoch",), ("epoch",))
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
    told = pd.DataFrame([found.get(f, none) for f in models["fingerprint"]], columns=columns, index=models.index)
    names, classes = model_names(models), given_up_classes(confusion)
    return models.assign(
        name=[names[fingerprint] for fingerprint in models["fingerprint"]],
        never=[named_classes(model, classes) for _, model in models.iterrows()],
        images_per_s=_images_per_s(models),
        **{column: told[column] for column in columns},
    ).reset_index(drop=True)


def _images_per_s(models: pd.DataFrame) -> pd.Series:
    """Return test images a second from image to prediction, as far as it was measured.

    A classifier's image pays its share of the extraction, which ran over training and test images alike.
    """
    n_test = models["n_test"].astype("float64")
    shared = models["extract_s"] / (models["n_train"].astype("float64") + n_test)
    seconds = shared.where(models["kind"] == "classifier", 0.0) + models["predict_s"] / n_test
    return 1.0 / seconds.where(seconds > 0)
