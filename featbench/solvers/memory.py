"""What fits the memory: columns fitted at once, kernels, features in RAM and on a GPU. Budgets are arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

COLUMN_BYTES = 128  # a row and column: twelve float64 of costs, values and what becomes of them; the rest for factors
KERNEL_BYTES = 2**31  # distances and one kernel, of training and held-out rows; as much for blocks that pairs share
FACTOR_BYTES = 2**30  # of Hessians and their factors
_CPU_COLUMN_BYTES = 2**30  # of columns fitted at a time
_GPU_COLUMN_SHARE = 0.5  # of a GPU's free memory
_GPU_ROW_SHARE = 0.8  # of a GPU's free memory
_GPU_VALUE_BYTES = 16  # of the features: they can be float64, and blocks of them are copied
_CGROUP = Path("/sys/fs/cgroup")


def columns_at_once(n_rows: int, device: torch.device, budget_bytes: float | None = None) -> int:
    """Return how many columns of n rows are fitted at a time, the rows being on the device already.

    Args:
        n_rows: Rows of a column.
        device: Where they are fitted.
        budget_bytes: Their memory budget; a gigabyte on a CPU where None, else half of what the GPU has free.
    """
    if budget_bytes is None:
        budget_bytes = _CPU_COLUMN_BYTES if device.type == "cpu" else _GPU_COLUMN_SHARE * free_bytes(device)
    return max(1, int(budget_bytes / (COLUMN_BYTES * n_rows)))


def kernels_fit(
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]],
    memory_bytes: float = KERNEL_BYTES,
) -> bool:
    """Whether the kernels of every split fit the memory, of all its rows or at least of two classes at a time."""
    return all(
        split_kernel_bytes(len(kept), len(held_out)) <= memory_bytes or pair_kernel_bytes(y[kept]) <= memory_bytes
        for kept, held_out in splits
    )


def split_kernel_bytes(n_train: int, n_held_out: int) -> int:
    """Return the size of distances and one kernel, within the training rows and from held-out rows to them."""
    return 2 * 8 * n_train * (n_train + n_held_out)


def pair_kernel_bytes(y: npt.NDArray[np.int64]) -> int:
    """Return the size of distances and one kernel of the two largest classes; labels (N,) start at 0."""
    return 2 * 8 * int(np.sort(np.bincount(y))[-2:].sum()) ** 2


def fits_gpu(device: torch.device, shape: tuple[int, int], free: float | None = None) -> bool:
    """Whether (rows of all splits, features) fit the bytes that are free; those of the GPU where None."""
    free = free_bytes(device) if free is None else free
    return _GPU_VALUE_BYTES * shape[0] * shape[1] <= _GPU_ROW_SHARE * free


def free_bytes(device: torch.device) -> int:
    """Return what a GPU has free for tensors."""
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def free_ram_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> float:
    """Return what the system, or the container, has free for a program; infinite where nobody can tell."""
    limit, used = (_number(cgroup / f"memory.{name}") for name in ("max", "current"))
    inside = float("inf") if limit is None or used is None else limit - used + _file_cache_bytes(cgroup)
    try:
        lines = meminfo.read_text("ascii").splitlines()
        (available,) = (float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):  # not Linux
        available = _installed_bytes() / 2
    return min(inside, available)


def _file_cache_bytes(cgroup: Path) -> float:
    """Return the container's file cache, which the system gives up when a program needs the memory."""
    try:
        pairs = (line.split() for line in (cgroup / "memory.stat").read_text("ascii").splitlines())
        return float(dict(pairs).get("inactive_file", 0))
    except (OSError, ValueError):
        return 0.0


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text("ascii"))
    except (OSError, ValueError):  # "max": there is no limit
        return None


def _installed_bytes() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return float("inf")
