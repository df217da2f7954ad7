from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from featbench.classifiers import class_kernels
from featbench.solvers.class_kernels import ClassKernels

GAMMAS = [0.01, 0.3]


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_the_kernels_of_pairs_are_scikit_learns(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 5)) for n in (300, 1, 140)]
    sizes = np.cumsum([4 * len(GAMMAS) * len(part) ** 2 for part in parts])
    monkeypatch.setattr(class_kernels, "KERNEL_BYTES", int(sizes[kept - 1]) if kept else 0)
    kernels = ClassKernels(parts, GAMMAS, jobs=2)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        rows = np.concatenate([parts[a], parts[b]])
        for gamma, kernel in zip(GAMMAS, kernels.of_pair(a, b), strict=True):
            np.testing.assert_allclose(kernel, rbf_kernel(rows, gamma=gamma), rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
            assert kernel.flags.c_contiguous
            assert kernel.dtype == np.float64


def test_what_is_kept_is_rounded_as_libsvm_does() -> None:
    parts = [np.random.default_rng(number).normal(size=(40, 3)) for number in range(3)]
    (kernel,) = ClassKernels(parts, [0.2], jobs=1).of_pair(0, 1)
    within = kernel[:40, :40]
    assert np.array_equal(within, within.astype(np.float32))
    assert (np.diag(kernel) == 1).all()
