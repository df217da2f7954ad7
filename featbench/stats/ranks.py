"""Which methods are better over several data sets? Average ranks and their critical difference.

    rows = pd.concat([load_results("results/digits"), load_results("results/pets"), ...])
    table, summary = rank_methods(rows)

Source: J. Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import f, rankdata, studentized_range

from featbench.errors import UsageError
from featbench.stats.models import main_rows

_LEVEL = 0.05
_INFINITE_DF = 1e6  # Nemenyi's table is that of infinite degrees of freedom; the quantile no longer moves here


@dataclass(frozen=True)
class RankSummary:
    """The test of all methods at once, and how far apart two average ranks must be.

    Attributes:
        n_datasets: Data sets that all methods were tested on.
        friedman_f: Iman and Davenport's F form of Friedman's statistic; infinite where all data sets rank alike.
        p_value: Of `friedman_f`; where it is not below the level, the critical difference should separate no pair.
        critical_difference: Nemenyi's, of two average ranks.
    """

    n_datasets: int
    friedman_f: float
    p_value: float
    critical_difference: float


def rank_methods(rows: pd.DataFrame) -> tuple[pd.DataFrame, RankSummary]:
    """Rank methods over data sets by test accuracy.

    A method's accuracy on a data set is that of its model that is best by validation accuracy, so that no layer is
    chosen on test. Rank 1 is the best, equals share the mean of their ranks. Data sets that lack a method are left
    out.

    Returns:
        A row a method, best first: `method`, `average_rank`, `accuracy_mean`, and `tied_with_best`, whether its average
        rank is within the critical difference of the best; and the summary.

    Raises:
        UsageError: There are fewer than two methods, or fewer than two data sets that have them all.
    """
    models = main_rows(rows)
    models = models[models["val_accuracy"].notna()]
    best = models.loc[models.groupby(["dataset", "method"], dropna=False, sort=False)["val_accuracy"].idxmax()]
    accuracy = best.pivot_table("accuracy", "dataset", "method").dropna()
    n_datasets, n_methods = accuracy.shape
    if n_methods < 2 or n_datasets < 2:
        raise UsageError(
            f"ranks need two methods or more on two data sets or more, and {n_methods} methods have results on "
            f"{n_datasets} common ones; give the results of more data sets"
        )
    ranks = rankdata(-accuracy.to_numpy(), axis=1).mean(axis=0)
    statistic = _friedman_f(accuracy.to_numpy())
    freedom = (n_methods - 1, (n_methods - 1) * (n_datasets - 1))
    difference = _nemenyi(n_methods, _LEVEL) * sqrt(n_methods * (n_methods + 1) / (6 * n_datasets))
    table = pd.DataFrame(
        {
            "method": accuracy.columns.to_numpy(),
            "average_rank": ranks,
            "accuracy_mean": accuracy.mean().to_numpy(),
            "tied_with_best": ranks - ranks.min() < difference,
        }
    )
    summary = RankSummary(n_datasets, statistic, float(f.sf(statistic, *freedom)), difference)
    return table.sort_values("average_rank", kind="stable", ignore_index=True), summary


def _friedman_f(accuracy: npt.NDArray[np.float64]) -> float:
    """Return Iman and Davenport's statistic (Demsar's F_F), corrected for ties, of accuracies (data sets, methods)."""
    ranks = rankdata(-accuracy, axis=1)
    n_datasets, _ = ranks.shape
    between = n_datasets * ((ranks.mean(axis=0) - ranks.mean()) ** 2).sum()
    within = ((ranks - ranks.mean()) ** 2).sum() - between
    if between <= 1e-12:
        return 0.0
    return float("inf") if within <= 1e-12 else float((n_datasets - 1) * between / within)


def _nemenyi(n_methods: int, level: float) -> float:
    return float(studentized_range.ppf(1 - level, n_methods, _INFINITE_DF)) / sqrt(2)
