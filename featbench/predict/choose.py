"""Which model of a results folder: the best by validation, or one by its name or fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from featbench.errors import UsageError, unknown
from featbench.results.artifacts import has_artifact
from featbench.results.cards import MODELS
from featbench.results.store import load_current, load_results
from featbench.stats.accuracy import best_by_validation, never_predicts
from featbench.stats.models import main_rows, model_names

_SHORTEST = 6  # digits of a fingerprint that name a model


@dataclass(frozen=True)
class Listed:
    """A model that can be named; accuracies are in [0, 1], that of validation is None where nothing was held out.

    `never_predicts`: whether it never predicts a class that the test has.
    """

    name: str
    fingerprint: str
    val_accuracy: float | None
    accuracy: float
    is_best: bool
    is_kept: bool
    never_predicts: bool


def list_models(folder: Path) -> list[Listed]:
    """List the models of a results folder, in the order of results.csv; `is_best` is the one taken where none is named.

    Raises:
        ResultsError: There is no results.csv that can be read.
    """
    rows = load_current(folder)
    models = main_rows(rows)
    names = model_names(models)
    best = best_by_validation(rows) if rows["dataset"].nunique() == 1 else None
    return [
        Listed(
            name=names[row["fingerprint"]],
            fingerprint=row["fingerprint"],
            val_accuracy=None if pd.isna(row["val_accuracy"]) else float(row["val_accuracy"]),
            accuracy=float(row["accuracy"]),
            is_best=best is not None and row["fingerprint"] == best["fingerprint"],
            is_kept=has_artifact(folder, MODELS, row["fingerprint"], ".json"),
            never_predicts=never_predicts(row),
        )
        for row in models.to_dict("records")
    ]


def choose_model(folder: Path, wanted: str | None) -> tuple[str, str]:
    """Choose a model of a results folder.

    Args:
        folder: Its results.csv is read.
        wanted: A name, as in "linear_svc/resnet18/layer3", or (the first six digits of) a fingerprint; None takes the
            best by validation, which the accuracy table marks.

    Returns:
        Its fingerprint, and its name.

    Raises:
        ResultsError: There is no results.csv that can be read.
        UsageError: There is no such model, or more than one.
    """
    rows = load_current(folder)
    names = model_names(main_rows(rows))
    listed_by = f"featbench list models {folder}"
    if wanted is None:
        datasets = sorted(set(rows["dataset"]))
        best = best_by_validation(rows) if len(datasets) == 1 else None
        if best is None:
            several = f"is the best of several data sets ({', '.join(datasets)})"
            why = several if len(datasets) > 1 else "was chosen by validation"
            raise UsageError(f"no model {why}; name one with --model (`{listed_by}` prints the names)")
        return str(best["fingerprint"]), names[best["fingerprint"]]
    every = model_names(load_results(folder)) | names
    found = [key for key, name in names.items() if name == wanted]
    if not found and len(wanted) >= _SHORTEST:
        found = [key for key in every if key.startswith(wanted)]
    if not found:
        raise unknown("--model", wanted, names.values(), listed_by=listed_by)
    if len(found) > 1:
        raise UsageError(
            f"--model {wanted!r} is the beginning of {len(found)} fingerprints: {', '.join(found)}; give more of it"
        )
    return found[0], every[found[0]]
