from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from featbench.solvers.neighbours import NearestNeighbours, neighbours_grid

RNG = np.random.default_rng(0)


def problem(n: int = 300, d: int = 20, dtype: Any = np.float64, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    y = RNG.integers(0, 4, n)
    return (RNG.normal(size=(n, d)) + 0.3 * y[:, None] + offset).astype(dtype), y


@parametrize_with_checks([NearestNeighbours(), NearestNeighbours(metric="cosine", weights="distance")])
def test_it_is_an_estimator_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 4, 200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_answers_as_scikit_learn_does(metric: str, weights: str, k: int, dtype: Any) -> None:
    X, y = problem(dtype=dtype)
    queries, _ = problem(150, dtype=dtype)
    ours = NearestNeighbours(k, metric=metric, weights=weights).fit(X, y)
    theirs = KNeighborsClassifier(k, metric=metric, weights=weights, algorithm="brute").fit(X.astype(float), y)
    distances, rows = theirs.kneighbors(queries.astype(float))
    assert np.array_equal(ours.kneighbors(queries)[1], rows)
    np.testing.assert_allclose(ours.kneighbors(queries)[0], distances, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(queries), theirs.predict_proba(queries.astype(float)), atol=1e-5)
    assert np.array_equal(ours.predict(queries), theirs.predict(queries.astype(float)))


def test_far_from_the_origin_float32_is_enough() -> None:
    X, y = problem(dtype=np.float32, offset=300.0)
    queries, _ = problem(50, dtype=np.float32, offset=300.0)
    theirs = KNeighborsClassifier(3, algorithm="brute").fit(X.astype(float), y)
    assert np.array_equal(NearestNeighbours(3).fit(X, y).kneighbors(queries)[1], theirs.kneighbors(queries)[1])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_duplicates_constant_columns_and_rows_of_zeros(metric: str) -> None:
    X, y = problem(40)
    X[:, 3] = 1.0
    X = np.concatenate([X, X[:5], np.zeros((2, 20))])
    y = np.concatenate([y, y[:5], [0, 1]])
    ours = NearestNeighbours(6, metric=metric, weights="distance").fit(X, y)
    theirs = KNeighborsClassifier(6, metric=metric, weights="distance", algorithm="brute").fit(X, y)
    assert np.isfinite(ours.predict_proba(X)).all()
    np.testing.assert_allclose(ours.kneighbors(X[:45])[0], theirs.kneighbors(X[:45])[0], atol=1e-6)
    if metric == "euclidean":  # rows at distance 0 decide alone
        assert np.array_equal(ours.predict(X[:40]), y[:40])


@pytest.mark.parametrize("block_values", [1, 7 * 300])
def test_blocks_change_nothing(block_values: int) -> None:
    X, y = problem()
    distances, rows = NearestNeighbours(3).fit(X, y).kneighbors(X, block_values=block_values)
    expected, same_rows = KNeighborsClassifier(3, algorithm="brute").fit(X, y).kneighbors(X)
    assert np.array_equal(rows, same_rows)
    np.testing.assert_allclose(distances, expected, atol=1e-6)


def test_more_neighbours_than_rows_are_refused() -> None:
    X, y = problem(4)
    with pytest.raises(ValueError, match="n_neighbors = 5, n_samples_fit = 4"):
        NearestNeighbours(5).fit(X, y).predict(X)


def test_a_grid_is_scored_as_one_by_one() -> None:
    X, y = problem()
    splits = [(np.arange(100), np.arange(100, 200)), (np.arange(50, 250), np.arange(0, 50))]
    machines = [
        NearestNeighbours(k, metric=metric, weights=weights)
        for k in (1, 7)
        for metric in ("cosine", "euclidean")
        for weights in ("uniform", "distance")
    ]
    for machine, folds in zip(machines, neighbours_grid(X, y, splits, machines), strict=True):
        params = {key: value for key, value in machine.get_params().items() if key != "device"}
        theirs = KNeighborsClassifier(algorithm="brute", **params)
        expected = [theirs.fit(X[kept], y[kept]).score(X[out], y[out]) for kept, out in splits]
        assert [accuracy for accuracy, _ in folds] == pytest.approx(expected)
