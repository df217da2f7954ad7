"""How much memory features may take, and what is done with more: the linear SVC reads them from disk, others refuse."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import cpu_count

from featbench.classifiers.engine import fit_engine, streams
from featbench.classifiers.registry import get_classifier
from featbench.config import EvaluateConfig
from featbench.errors import UsageError
from featbench.solvers.problem import COLUMN_BYTES

_COPIES = 7.0  # of float32 features, themselves among them, at the peak of a fit; linear_svc to knn had 4.5 to 6.3
_COPIES_A_THREAD = 2.0  # beyond the first three, where candidates and folds are fitted side by side
_SHARE = 0.8  # of the free memory
_CGROUP = Path("/sys/fs/cgroup")


def memory_budget(config: EvaluateConfig) -> float:
    """Return the bytes that features may take with the copies that a fit makes; infinite where nobody can tell."""
    return 1e9 * config.memory_gb if config.memory_gb is not None else _SHARE * _free_bytes()


def needed_bytes(n_rows: int, width: int) -> float:
    """Return what a fit takes at least that has these features in memory."""
    return 4.0 * n_rows * width * _COPIES


def _needed_by(name: str, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig, shape: tuple[int, int]) -> float:
    one_by_one = (
        get_classifier(name).all_cores
        or fit_engine(name, grid, config) == "featbench"
        or (name == "ridge" and config.engine == "auto")
    )
    threads = min(cpu_count(), max(1, len(grid)) * config.folds)
    copies = _COPIES if one_by_one else max(_COPIES, 3 + _COPIES_A_THREAD * threads)
    return needed_bytes(*shape) / _COPIES * copies


def check_memory(
    name: str,
    grid: Sequence[Mapping[str, Any]],
    steps: Sequence[str],
    config: EvaluateConfig,
    *,
    features: str,
    shape: tuple[int, int],
    budget: float,
) -> None:
    """Check, before any work is done, that a classifier can be fitted within the memory.

    Args:
        name: The classifier.
        grid: Its candidates.
        steps: Before it.
        config: The `[evaluate]` table.
        features: What the rows are called.
        shape: (rows of all splits, features).
        budget: Bytes, of `memory_budget`.

    Raises:
        UsageError: It cannot.
    """
    needed = _needed_by(name, grid, config, shape)
    if needed <= budget:
        return
    n_rows, width = shape
    allowed = f"{budget / 1e9:.3g} GB is {'what evaluate.memory_gb allows' if config.memory_gb else 'free for it'}"
    if not streams(name, grid, steps, config):
        raise UsageError(
            f"{' '.join([*steps, name])} on {features} takes about {needed / 1e9:.3g} GB of memory ({n_rows:,} rows of "
            f"{width:,} features, and copies), and {allowed}; set evaluate.memory_gb if there is more, or keep fewer "
            "rows (dataset.limit_train, evaluate.train_sizes). Only linear_svc reads such features from disk, with "
            'featbench\'s own solver (engine = "auto", C up to 10) and no steps but l2 and power.'
        )
    least = COLUMN_BYTES * n_rows
    if least > budget:
        raise UsageError(
            f"{name} on {features} takes {least / 1e9:.3g} GB of memory for each class even with the features on disk "
            f"({n_rows:,} rows), and {allowed}; raise evaluate.memory_gb"
        )


def _free_bytes() -> float:
    """Return what the system, or the container, has free for a program."""
    limit, used = (_number(_CGROUP / f"memory.{name}") for name in ("max", "current"))
    inside = float("inf") if limit is None or used is None else limit - used + _reclaimable()
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        (available,) = (float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):  # not Linux
        available = _installed_bytes() / 2
    return min(inside, available)


def _reclaimable() -> float:
    """Return the file cache of the container, which gives way."""
    try:
        pairs = (line.split() for line in (_CGROUP / "memory.stat").read_text("ascii").splitlines())
        return float(dict(pairs).get("inactive_file", 0))
    except (OSError, ValueError):
        return 0.0


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text("ascii"))
    except (OSError, ValueError):  # there is no such limit: "max"
        return None


def _installed_bytes() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return float("inf")
