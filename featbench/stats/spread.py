"""spread.csv and curves.csv: how much accuracy changes with the training rows, apart from the test sample's interval.

Repeats of a method with a seed of its own differ by that seed, others by their training rows (see
`featbench.classifiers.rows`); all are tested on the same rows, so that their spread is apart from the test interval.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from featbench.stats.models import MODEL_KEYS

_SUMMARY = ("n_repeats", "accuracy_mean", "accuracy_sd", "accuracy_min", "accuracy_max")
SPREAD_COLUMNS = (*MODEL_KEYS, "n_train_min", "n_train_max", *_SUMMARY)
CURVE_COLUMNS = (*MODEL_KEYS, "images_per_class", *_SUMMARY)


def spread_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise test accuracy over the repeats of each (`MODEL_KEYS`); rows of learning curves stay out.

    Returns:
        The columns `SPREAD_COLUMNS`: mean, standard deviation (divided by n - 1; missing for one repeat), smallest and
        largest over seeds. Of rows with one seed the newest counts.
    """
    lines = [
        [*_keys(group), group["n_train"].min(), group["n_train"].max(), *_summary(group)]
        for _, group in rows[rows["images_per_class"].isna()].groupby(list(MODEL_KEYS), dropna=False, sort=False)
    ]
    return pd.DataFrame(lines, columns=list(SPREAD_COLUMNS))


def curve_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise test accuracy by the number of training images a class, over the draws of those images.

    Returns:
        The columns `CURVE_COLUMNS`, sizes ascending; empty without `evaluate.train_sizes`. `accuracy_min` and
        `accuracy_max` are the extremes over the draws, no interval.
    """
    of_curves = rows[rows["images_per_class"].notna()]
    lines = [
        [*_keys(group), size, *_summary(draws)]
        for _, group in of_curves.groupby(list(MODEL_KEYS), dropna=False, sort=False)
        for size, draws in group.groupby("images_per_class", sort=True)
    ]
    return pd.DataFrame(lines, columns=list(CURVE_COLUMNS))


def newest_of_each_seed(rows: pd.DataFrame) -> pd.Series:
    """Return test accuracies by seed; of rows with one seed the newest counts."""
    newest_last = rows.sort_values("created_at", kind="stable").drop_duplicates("seed", keep="last")
    return newest_last.set_index("seed")["accuracy"].sort_index()


def _keys(rows: pd.DataFrame) -> list[Any]:
    return rows[list(MODEL_KEYS)].iloc[0].tolist()


def _summary(rows: pd.DataFrame) -> list[Any]:
    accuracy = newest_of_each_seed(rows)
    return [len(accuracy), accuracy.mean(), accuracy.std(), accuracy.min(), accuracy.max()]
