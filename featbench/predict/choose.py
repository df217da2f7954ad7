"""Which model of a results folder: the best by validation, or one by its name or fingerprint."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from featbench.errors import UsageError, unknown
from featbench.results.models import main_rows, model_names
from featbench.results.store import load_current, load_results
from featbench.results.tables import best_by_validation

_SHORTEST = 6  # digits of a fingerprint that are enough


def choose_model(folder: Path, wanted: str | None) -> tuple[str, str]:
    """Choose a model.

    Args:
        folder: The results folder.
        wanted: A name, as in "linear_svc/resnet18/layer3", or (the first six digits of) a fingerprint; None takes the
            classifier with the highest validation accuracy, which the accuracy table marks.

    Returns:
        Its fingerprint, and its name.

    Raises:
        ResultsError: There is no results.csv that can be read.
        UsageError: There is no such model, or more than one.
    """
    rows = load_current(folder)
    names = model_names(main_rows(rows))
    if wanted is None:
        best = str(_best(rows, names)["fingerprint"])
        return best, names[best]
    every = model_names(load_results(folder)) | names
    found = [key for key, name in names.items() if name == wanted]
    if not found and len(wanted) >= _SHORTEST:
        found = [key for key in every if key.startswith(wanted)]
    if not found:
        raise unknown("model", wanted, names.values())
    if len(found) > 1:
        raise UsageError(
            f"{wanted!r} is the beginning of {len(found)} fingerprints: {', '.join(found)}; give more of it"
        )
    return found[0], every[found[0]]


def _best(rows: pd.DataFrame, names: dict[str, str]) -> pd.Series:
    datasets = sorted(set(rows["dataset"]))
    best = best_by_validation(rows) if len(datasets) == 1 else None
    if best is None:
        why = "was chosen by validation"
        if len(datasets) > 1:
            why = f"is the best of several data sets ({', '.join(datasets)})"
        raise UsageError(f"no model {why}; name one with --model: {', '.join(names.values())}")
    return best
