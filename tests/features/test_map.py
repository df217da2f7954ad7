from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from featbench.features.map import map_features

RNG = np.random.default_rng(0)


def test_pca_is_that_of_the_singular_vectors_of_standardised_features() -> None:
    X = RNG.normal(size=(40, 6)).astype(np.float32) * [1, 2, 3, 4, 5, 6] + 7
    placed = map_features(X, seed=0)
    scaled = (X - X.mean(0)) / X.std(0)
    u, s, _ = np.linalg.svd(scaled, full_matrices=False)
    np.testing.assert_allclose(np.abs(placed.pca), np.abs(u[:, :2] * s[:2]), rtol=1e-3, atol=1e-3)
    assert placed.shares == pytest.approx(tuple(s[:2] ** 2 / (s**2).sum()), rel=1e-4)


def test_classes_that_are_apart_stay_apart() -> None:
    y = np.arange(90) % 3
    X = RNG.normal(size=(90, 64)).astype(np.float16) + 3 * RNG.normal(size=(3, 64))[y]
    placed = map_features(X, seed=1)
    assert placed.tsne is not None
    assert silhouette_score(placed.tsne, y) > 0.5
    np.testing.assert_array_equal(map_features(X, seed=1).tsne, placed.tsne)


@pytest.mark.parametrize("shape", [(9, 5), (41, 5)])
def test_too_few_and_too_many_rows_have_no_tsne(shape: tuple[int, int]) -> None:
    assert map_features(RNG.normal(size=shape), seed=0, tsne_rows=40).tsne is None


@pytest.mark.parametrize("X", [RNG.normal(size=(12, 1)), np.ones((12, 3)), RNG.normal(size=(2, 3))])
def test_features_with_fewer_than_two_directions(X: np.ndarray) -> None:
    placed = map_features(X, seed=0)
    assert placed.pca.shape == (len(X), 2)
    assert np.isfinite(placed.pca).all()
    assert np.abs(placed.pca[:, 1]).max() < 1e-3
