"""Are two models different? Paired tests and intervals on the same test rows.

| question | method |
| --- | --- |
| can chance explain the difference of a pair? | McNemar's exact test |
| of many pairs? | Holm's correction over all pairs of one data set and one set of test rows |
| how large is it? | Newcombe's interval of a difference of paired proportions |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import bdtr

from featbench.stats.metrics import wilson_intervals
from featbench.stats.models import Predictions

COMPARISON_COLUMNS = (
    *("dataset", "a", "b", "a_fingerprint", "b_fingerprint", "n_test", "a_accuracy", "b_accuracy"),
    *("only_a_right", "only_b_right", "difference", "difference_low", "difference_high", "p_value", "p_holm"),
)

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def compare_models(models: Sequence[Predictions], warn: Callable[[str], None]) -> pd.DataFrame:
    """Compare every pair of models that were tested on the same rows (ids and labels) of one data set.

    Args:
        models: The models, of any data sets.
        warn: Called where the models of a data set were tested on different rows.

    Returns:
        A row a pair, with the columns `COMPARISON_COLUMNS`. `difference` is the accuracy of a minus that of b,
        `difference_low` and `difference_high` its 95% interval; `p_holm` is corrected over the pairs of one data set
        and one set of test rows.
    """
    families: dict[tuple[str, int], list[Predictions]] = {}
    for model in models:
        families.setdefault((model.dataset, hash((tuple(model.ids), model.labels.tobytes()))), []).append(model)
    datasets = [dataset for dataset, _ in families]
    for dataset in dict.fromkeys(datasets):
        if datasets.count(dataset) > 1:
            warn(
                f"the models of {dataset} were tested on {datasets.count(dataset)} different sets of rows; "
                "only models tested on the same rows are compared"
            )
    pairs = [_compare_family(family) for family in families.values() if len(family) > 1]
    return pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame(columns=list(COMPARISON_COLUMNS))


def mcnemar_exact(only_a: Counts, only_b: Counts) -> Floats:
    """Return two-sided p-values of McNemar's exact test: rows that one model alone gets right, against a fair coin.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947), in its exact binomial form. Without any such row p is 1.

    Args:
        only_a: Rows that model a alone has right, (P,) int64.
        only_b: The same of model b.
    """
    return np.minimum(1.0, 2.0 * np.asarray(bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Floats) -> Floats:
    """Correct p-values of one family of tests so that the chance of any false alarm stays below the level.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).

    Args:
        p_values: (P,) float64 in [0, 1].
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(1.0, stepped)
    return corrected


def newcombe_intervals(both: Counts, only_a: Counts, only_b: Counts, neither: Counts) -> tuple[Floats, Floats]:
    """Return 95% intervals of accuracy differences (a minus b) on the same rows.

    Source: R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998), method 10: Wilson's intervals of both, squared and added, with the
    correlation of the two.

    Args:
        both: Rows that both models have right, (P,) int64.
        only_a: Rows that model a alone has right.
        only_b: Rows that model b alone has right.
        neither: Rows that no model has right. The four sum to at least 1.

    Returns:
        Lower and upper ends, (P,) float64 in [-1, 1].
    """
    total = both + only_a + only_b + neither
    a, b = (both + only_a) / total, (both + only_b) / total
    (a_low, a_high), (b_low, b_high) = (wilson_intervals(both + only, total) for only in (only_a, only_b))
    phi = _correlation(both, only_a, only_b, neither)
    below = _root_of_squares(a - a_low, b_high - b, phi)
    above = _root_of_squares(a_high - a, b - b_low, phi)
    return np.maximum(-1.0, a - b - below), np.minimum(1.0, a - b + above)


def _compare_family(models: Sequence[Predictions]) -> pd.DataFrame:
    n_test = len(models[0].labels)
    right = np.stack([model.predicted == model.labels for model in models]).astype(np.float64)  # (models, rows)
    shared = np.rint(right @ right.T).astype(np.int64)
    n_right = np.diag(shared)
    a, b = np.triu_indices(len(models), k=1)
    first, second = ([models[i] for i in side.tolist()] for side in (a, b))
    both = shared[a, b]
    only_a, only_b = n_right[a] - both, n_right[b] - both
    low, high = newcombe_intervals(both, only_a, only_b, n_test - both - only_a - only_b)
    p_values = mcnemar_exact(only_a, only_b)
    columns: dict[str, Any] = {
        "dataset": models[0].dataset,
        "a": [model.name for model in first],
        "b": [model.name for model in second],
        "a_fingerprint": [model.fingerprint for model in first],
        "b_fingerprint": [model.fingerprint for model in second],
        "n_test": n_test,
        "a_accuracy": n_right[a] / n_test,
        "b_accuracy": n_right[b] / n_test,
        "only_a_right": only_a,
        "only_b_right": only_b,
        "difference": (only_a - only_b) / n_test,
        "difference_low": low,
        "difference_high": high,
        "p_value": p_values,
        "p_holm": holm(p_values),
    }
    return pd.DataFrame(columns, columns=list(COMPARISON_COLUMNS))


def _correlation(both: Counts, only_a: Counts, only_b: Counts, neither: Counts) -> Floats:
    """Return Newcombe's phi: of two models that are right on the same rows, with a continuity correction; (P,)."""
    margins = [both + only_a, only_b + neither, both + only_b, only_a + neither]
    norm = np.sqrt(np.prod([margin.astype(np.float64) for margin in margins], axis=0))
    cross = both.astype(np.float64) * neither - only_a.astype(np.float64) * only_b
    half = sum(margins[:2]) / 2
    corrected = np.where(cross > half, cross - half, np.minimum(cross, 0.0))
    return np.asarray(np.divide(corrected, norm, out=np.zeros(len(norm)), where=norm > 0))


def _root_of_squares(first: Floats, second: Floats, phi: Floats) -> Floats:
    return np.asarray(np.sqrt(np.maximum(0.0, first**2 - 2 * phi * first * second + second**2)))
