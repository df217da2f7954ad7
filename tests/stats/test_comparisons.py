from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from featbench.stats.comparisons import COMPARISON_COLUMNS, compare_models, holm, mcnemar_exact, newcombe_intervals
from featbench.stats.models import Predictions
from tests.tiny import Recorder


def answers(name: str, right: str, *, dataset: str = "pets", ids: str | None = None) -> Predictions:
    """Make a model from a string: one letter a test row, `x` where the model is right; the true class is always 0."""
    predicted = np.array([0 if letter == "x" else 1 for letter in right], dtype=np.int64)
    return Predictions(
        fingerprint=f"f-{name}",
        name=name,
        dataset=dataset,
        classes=("cat", "dog"),
        ids=np.array(list(ids or "abcdefghijklmnopqrstuvwxyz"[: len(right)]), dtype=object),
        labels=np.zeros(len(right), dtype=np.int64),
        predicted=predicted,
        scores=np.stack([1.0 - predicted, 1.0 * predicted], axis=1),
    )


def warned_of(*models: Predictions) -> tuple[Any, list[str]]:
    progress = Recorder()
    return compare_models(models, progress.warn), progress.warned


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (0, 5), (7, 2), (3, 3), (40, 61), (900, 1100)])
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int) -> None:
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(np.array([only_a]), np.array([only_b]))[0] == pytest.approx(expected, rel=1e-9)


def test_mcnemar_keeps_its_level_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    n_experiments, n_test = 20_000, 200
    # Two models of accuracy 0.8 that agree on some rows: both 0.7, one alone 0.1 each, neither 0.1.
    counts = rng.multinomial(n_test, [0.7, 0.1, 0.1, 0.1], n_experiments)
    rejected = float((mcnemar_exact(counts[:, 1], counts[:, 2]) < 0.05).mean())
    assert 0.02 < rejected <= 0.05


def test_holm_keeps_the_level_of_a_family() -> None:
    rng = np.random.default_rng(0)
    families = np.array([holm(rng.random(45)).min() < 0.05 for _ in range(4000)])
    assert 0.03 < families.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_holm_by_hand() -> None:
    # Smallest first: 4 * 0.01, 3 * 0.02, 2 * 0.03 (not below the one before), 1 * 0.5.
    assert holm(np.array([0.5, 0.01, 0.03, 0.02])).tolist() == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # D. G. Altman et al., Statistics with Confidence (2000), table 6.2: 0.011 to 0.226
        ((14, 5, 0, 22), (0.011, 0.226)),
        # M. W. Fagerland et al., BMC Med. Res. Methodol. 13 (2013) 91, data of Bentur et al.: -0.507 to -0.026
        ((1, 1, 7, 12), (-0.507, -0.026)),
    ],
)
def test_newcombes_interval_is_that_of_published_examples(
    table: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    low, high = newcombe_intervals(*(np.array([count]) for count in table))
    assert (low[0], high[0]) == pytest.approx(expected, abs=6e-4)


def test_newcombes_interval_of_many_rows_is_the_usual_one() -> None:
    both, only_a, only_b, neither = 70_000, 9_000, 8_000, 13_000
    low, high = newcombe_intervals(*(np.array([count]) for count in (both, only_a, only_b, neither)))
    n = 100_000
    half = norm.ppf(0.975) * math.sqrt(only_a + only_b - (only_a - only_b) ** 2 / n) / n
    assert (low[0], high[0]) == pytest.approx((0.01 - half, 0.01 + half), abs=2e-5)


def test_newcombes_interval_covers() -> None:
    rng = np.random.default_rng(1)
    counts = rng.multinomial(150, [0.8, 0.1, 0.04, 0.06], 5000).T
    low, high = newcombe_intervals(*counts)
    assert 0.93 < ((low <= 0.06) & (high >= 0.06)).mean() < 0.98


@pytest.mark.parametrize("table", [(5, 0, 0, 0), (0, 0, 0, 5), (0, 5, 0, 0), (1, 0, 0, 0)])
def test_newcombes_interval_at_the_ends(table: tuple[int, int, int, int]) -> None:
    low, high = newcombe_intervals(*(np.array([count]) for count in table))
    difference = (table[1] - table[2]) / sum(table)
    assert -1 <= low[0] <= difference <= high[0] <= 1
    assert low[0] < high[0]


def test_all_pairs_are_compared_on_the_same_rows() -> None:
    table, warned = warned_of(
        answers("svm", "xxxxxxxxxo"), answers("forest", "xxooooooox"), answers("net", "xxxxxxxxxo")
    )
    assert warned == []
    assert tuple(table.columns) == COMPARISON_COLUMNS
    assert list(zip(table.a, table.b, strict=True)) == [("svm", "forest"), ("svm", "net"), ("forest", "net")]
    first = table.iloc[0]
    assert (first.a_fingerprint, first.b_fingerprint, first.dataset) == ("f-svm", "f-forest", "pets")
    assert (first.n_test, first.only_a_right, first.only_b_right) == (10, 7, 1)
    assert (first.a_accuracy, first.b_accuracy, first.difference) == pytest.approx((0.9, 0.3, 0.6))
    p_value = binomtest(7, 8).pvalue
    assert table.p_value.tolist() == pytest.approx([p_value, 1.0, p_value])
    assert table.p_holm.tolist() == pytest.approx([3 * p_value, 1.0, 3 * p_value])
    assert table.iloc[1].p_value == 1.0
    assert table.iloc[1].difference_low < 0 < table.iloc[1].difference_high
    assert first.difference_low < 0.6 < first.difference_high


def test_models_of_other_rows_are_not_compared_and_it_is_said() -> None:
    table, warned = warned_of(
        answers("a", "xxo"), answers("b", "xoo"), answers("c", "xxx", ids="xyz"), answers("d", "xxo", dataset="cars")
    )
    assert list(zip(table.a, table.b, strict=True)) == [("a", "b")]
    assert warned == [
        "the models of pets were tested on 2 different sets of rows; only models tested on the same rows are compared"
    ]


@pytest.mark.parametrize("models", [[], [answers("alone", "xo")]])
def test_without_a_pair_there_is_an_empty_table(models: list[Predictions]) -> None:
    table, warned = warned_of(*models)
    assert (len(table), tuple(table.columns), warned) == (0, COMPARISON_COLUMNS, [])
