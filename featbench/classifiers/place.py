"""Where a classifier's solver computes: linear_svc on the GPU that the networks are on, all others on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from featbench.classifiers.engine import fit_engine
from featbench.config import EvaluateConfig
from featbench.errors import UsageError
from featbench.solvers.problem import free_bytes

_VALUE_BYTES = 16  # of the rows: they can be float64, and blocks of them are copied
_SHARE = 0.8  # of a GPU's free memory


def has_gpu_solver(name: str, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> bool:
    """Say whether a classifier with parameters from this grid can be fitted on a GPU."""
    return name == "linear_svc" and fit_engine(name, grid, config) == "featbench"


def fits_gpu(device: torch.device, shape: tuple[int, int]) -> bool:
    """Say whether (rows of all splits, features) fit what a GPU has free."""
    return _VALUE_BYTES * shape[0] * shape[1] <= _SHARE * free_bytes(device)


@contextmanager
def gpu_memory_named(name: str) -> Iterator[None]:
    """Turn torch's error about a full GPU into one that says what to do.

    Raises:
        UsageError: The GPU is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UsageError(f"{name} found no more memory on the GPU; --device cpu fits it on the CPU") from error
