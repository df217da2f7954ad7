"""How long the linear SVC's grid takes on a GPU, and what share of the GPU's matrix rate that is.

    python -m tests.speed.gpu [--device cuda] [--scale 1.0] [--sizes 0 1]

1. 50,000 rows x 4,096 features x 10 classes, five folds.
2. 1,280,000 x 2,048 x 1,000, one held-out split: as ImageNet's features of a ResNet-50. The features are 10 GB, and the
   machine has to have memory for some copies.

Features are made up: rectified, correlated, their spectrum falling as that of a network's features does. Seconds are of
the search over seven C and the final fit, by the wall, from features in the machine's memory. The matrix rate is that
of square products in float32 in the same run; the share counts the products of rows with weights and back, no others.
--scale takes that part of the rows, to try the script: with --device cpu it runs anywhere.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.select import fit, select
from featbench.config import EvaluateConfig
from featbench.solvers.products import SharedRows

CS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SIZES = ((50_000, 4096, 10, "cv"), (1_280_000, 2048, 1000, "holdout"))
TEST_ROWS = 10_000
BLOCK = 2**14


def make(n: int, d: int, n_classes: int, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    y = np.random.default_rng(0).permutation(np.arange(n) % n_classes)
    mixing = normal(d, d) * torch.arange(1, d + 1, device=device) ** -0.7
    centres = 4 * d**-0.5 * normal(n_classes, d)  # far apart in many dimensions, but not that far
    X = np.empty((n, d), np.float32)
    for start in range(0, n, BLOCK):
        labels = torch.from_numpy(y[start : start + BLOCK]).to(device)
        latent = normal(len(labels), d) + centres[labels]
        X[start : start + BLOCK] = (latent @ mixing.T).clamp_(min=0).cpu().numpy()
    return X, y


def matrix_rate(device: torch.device) -> float:
    """Return the multiplications and additions a second of float32 products, the best of ten."""
    size = 8192 if device.type == "cuda" else 2048
    A, taken = torch.randn(size, size, device=device), []
    for _ in range(10):
        started_s = time.perf_counter()
        (A @ A)[0, 0].item()  # which waits for the GPU
        taken.append(time.perf_counter() - started_s)
    return 2 * size**3 / min(taken)


@contextmanager
def counted() -> Iterator[list[float]]:
    """Collect the multiplications and additions of the products with the rows."""
    plain, counts = SharedRows.blockwise_product, []

    def counting(self: SharedRows, V: torch.Tensor, middle: Any) -> torch.Tensor:
        counts.append(4.0 * len(self.X) * V.shape[0] * V.shape[1])
        return plain(self, V, middle)

    SharedRows.blockwise_product = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        SharedRows.blockwise_product = plain  # type: ignore[method-assign]


def grid(X: np.ndarray, y: np.ndarray, selection: str, device: str) -> Any:
    config = EvaluateConfig(classifiers=("linear_svc",), selection=selection, grids={"linear_svc": {"C": CS}})
    chosen = select(CLASSIFIERS["linear_svc"], X, y, len(y), config, seed=0, device=device)
    return fit(CLASSIFIERS["linear_svc"], chosen.params, X, y, 0, chosen.solver, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--sizes", type=int, nargs="*", default=range(len(SIZES)), choices=range(len(SIZES)))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured.")
        return
    rate = matrix_rate(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}: {rate / 1e12:.2f} TFLOP/s in float32\n")
    print("| rows | features | classes | search | seconds | TFLOP | share of the rate | GPU memory, GB | accuracy |")
    print("| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for n, d, n_classes, selection in (SIZES[number] for number in arguments.sizes):
        n = int(n * arguments.scale)
        X, y = make(n + TEST_ROWS, d, n_classes, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with counted() as counts:
            started_s = time.perf_counter()
            model = grid(X[:n], y[:n], selection, str(device))
            taken_s = time.perf_counter() - started_s
        peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")
        flops, accuracy = sum(counts), model.score(X[n:], y[n:])
        print(
            f"| {n:,} | {d:,} | {n_classes:,} | {selection}, {len(CS)} C | {taken_s:.1f} | {flops / 1e12:.1f} "
            f"| {flops / taken_s / rate:.0%} | {peak:.1f} | {accuracy:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
