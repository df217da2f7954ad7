"""Features in two dimensions, to look at: which classes a layer keeps apart.

Standardised, then PCA; and t-SNE (L. van der Maaten and G. Hinton, JMLR 9, 2008) where there are not too many rows, of
the first 50 principal components, as its authors do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

TSNE_ROWS = 1000
_TSNE_COMPONENTS = 50
_MIN_TSNE_ROWS = 10
_PERPLEXITY = 30.0

Points = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Positions of N rows: `pca` (N, 2) and the shares of variance of its axes; `tsne` (N, 2) or None."""

    pca: Points
    shares: tuple[float, float]
    tsne: Points | None


def map_features(X: npt.NDArray[np.floating], seed: int, tsne_rows: int = TSNE_ROWS) -> FeatureMap:
    """Map features to the plane.

    Args:
        X: (N, D) float, N at least 2.
        seed: Of PCA's randomised solver and of t-SNE.
        tsne_rows: With more rows there is no t-SNE, nor with fewer than 10.
    """
    scaled = StandardScaler().fit_transform(X.astype(np.float32))
    n_components = min(_TSNE_COMPONENTS, *scaled.shape)
    solver = PCA(n_components, svd_solver="randomized" if min(scaled.shape) > _TSNE_COMPONENTS else "full")
    solver.set_params(random_state=seed)
    with np.errstate(invalid="ignore"):  # equal features have no variance to share out
        components = solver.fit_transform(scaled)
    shares = np.nan_to_num(np.append(solver.explained_variance_ratio_, 0.0))
    pca = np.zeros((len(X), 2), np.float32)
    pca[:, : min(2, n_components)] = components[:, :2]
    fits = _MIN_TSNE_ROWS <= len(X) <= tsne_rows and components.std(axis=0).max() > 0
    init = "pca" if components.shape[1] > 1 else "random"
    tsne = TSNE(perplexity=min(_PERPLEXITY, (len(X) - 1) / 3), init=init, random_state=seed)
    embedded = tsne.fit_transform(components) if fits else None
    return FeatureMap(pca, (float(shares[0]), float(shares[1])), embedded)
