"""Gaussian kernels of two classes at a time, in blocks, so that pairs which have a class in common share its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn.metrics.pairwise import euclidean_distances

from featbench.solvers.memory import KERNEL_BYTES
from featbench.solvers.rbf import Floats, kernel_of

_STRIP = 128  # columns that are transposed at a time, so that they stay in the processor's cache


class ClassKernels:
    """The kernels of the rows of each class among themselves, kept as far as they stay within `KERNEL_BYTES`.

    They are kept in float32, to which libsvm rounds all kernels.

    Args:
        parts: The rows of each class, (n, D) float64.
        gammas: What kernels are wanted for.
        jobs: Classes at a time.
    """

    def __init__(self, parts: Sequence[Floats], gammas: Sequence[float], jobs: int) -> None:
        self._parts = parts
        self._gammas = gammas
        sizes = np.cumsum([4 * len(gammas) * len(part) ** 2 for part in parts])
        n_kept = int((sizes <= KERNEL_BYTES).sum()) if len(parts) > 2 else 0  # a lone pair shares with none
        self._kept = Parallel(n_jobs=jobs, prefer="threads")(delayed(self._within)(rows) for rows in parts[:n_kept])

    def _within(self, rows: Floats) -> list[npt.NDArray[np.float32]]:
        distances = euclidean_distances(rows, squared=True)
        kernel = np.empty_like(distances)
        return [kernel_of(distances, gamma, kernel).astype(np.float32) for gamma in self._gammas]

    def of_pair(self, a: int, b: int) -> Iterator[Floats]:
        """Yield the kernel (n, n) float64 of two classes for each gamma, in the same memory, the first's rows first."""
        first, second = self._parts[a], self._parts[b]
        n = len(first)
        across = euclidean_distances(first, second, squared=True)
        own = {
            number: euclidean_distances(self._parts[number], squared=True)
            for number in (a, b)
            if number >= len(self._kept)
        }
        kernel = np.empty((n + len(second), n + len(second)))
        for place, gamma in enumerate(self._gammas):
            for number, block in ((a, slice(n)), (b, slice(n, None))):
                if number in own:
                    kernel_of(own[number], gamma, kernel[block, block])
                else:
                    kernel[block, block] = self._kept[number][place]
            kernel_of(across, gamma, kernel[:n, n:])
            for start in range(n, len(kernel), _STRIP):
                kernel[start : start + _STRIP, :n] = kernel[:n, start : start + _STRIP].T
            yield kernel
