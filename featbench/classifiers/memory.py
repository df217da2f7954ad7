"""How much memory features may take, and what happens with more: some solvers read them from disk, others refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from joblib import cpu_count

from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.spec import ClassifierSpec, planned_fit, planned_solver
from featbench.classifiers.transforms import STEPS, learns
from featbench.config import EvaluateConfig
from featbench.errors import UsageError
from featbench.solvers.memory import free_ram_bytes

_COPIES = 7.0  # of float32 features, including themselves, at the peak of a fit; linear_svc to knn had 4.5 to 6.3
_COPIES_PER_THREAD = 2.0  # beyond the first three, where candidates and folds are fitted side by side
_RAM_SHARE = 0.8  # of the free memory


def memory_budget(config: EvaluateConfig) -> float:
    """Return the bytes that features may take with the copies that a fit makes; infinite where nobody can tell."""
    return 1e9 * config.memory_gb if config.memory_gb is not None else _RAM_SHARE * free_ram_bytes()


def needed_bytes(n_rows: int, width: int) -> float:
    """Return what a fit takes at least that has these features in memory."""
    return 4.0 * n_rows * width * _COPIES


def streams(
    spec: ClassifierSpec, grid: Sequence[Mapping[str, Any]], steps: Sequence[str], config: EvaluateConfig
) -> bool:
    """Whether a classifier with parameters from this grid can be fitted on rows that stay on disk."""
    solver = planned_fit(spec, grid, config)
    return solver is not None and solver.disk_bytes is not None and not learns(steps)


def has_gpu_solver(spec: ClassifierSpec, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> bool:
    """Whether a classifier with parameters from this grid can be fitted on a GPU."""
    solver = planned_fit(spec, grid, config)
    return solver is not None and solver.uses_gpu


@contextmanager
def gpu_memory_named(name: str) -> Iterator[None]:
    """Turn torch's error about a full GPU into one that says what to do.

    Raises:
        UsageError: The GPU is full.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UsageError(f"{name} found no more memory on the GPU; --device cpu fits it on the CPU") from error


def check_memory(
    spec: ClassifierSpec,
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
        spec: The classifier.
        grid: Its candidates.
        steps: Transforms before it.
        config: The `[evaluate]` table.
        features: Name of the features, for the error.
        shape: (rows of all splits, features).
        budget: Bytes, of `memory_budget`.

    Raises:
        UsageError: It cannot.
    """
    needed = _peak_bytes(spec, grid, config, shape)
    if needed <= budget:
        return
    n_rows, width = shape
    allowed = f"{budget / 1e9:.3g} GB is {'what evaluate.memory_gb allows' if config.memory_gb else 'free for it'}"
    if not streams(spec, grid, steps, config):
        raise UsageError(
            f"{' '.join([*steps, spec.name])} on {features} takes about {needed / 1e9:.3g} GB of memory ({n_rows:,} "
            f"rows of {width:,} features, and copies), and {allowed}; set evaluate.memory_gb if there is more, or keep "
            f"fewer rows (dataset.limit_train, evaluate.train_sizes). {_readers_from_disk()}"
        )
    solver = planned_fit(spec, grid, config)
    at_least = n_rows * (solver.disk_bytes or 0) if solver else 0
    if at_least > budget:
        raise UsageError(
            f"{spec.name} on {features} takes {at_least / 1e9:.3g} GB of memory for each class even with the features "
            f"on disk ({n_rows:,} rows), and {allowed}; raise evaluate.memory_gb"
        )


def _peak_bytes(
    spec: ClassifierSpec, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig, shape: tuple[int, int]
) -> float:
    one_by_one = spec.all_cores or planned_solver(spec, grid, config) is not None
    threads = min(cpu_count(), max(1, len(grid)) * config.folds)
    copies = _COPIES if one_by_one else max(_COPIES, 3 + _COPIES_PER_THREAD * threads)
    return needed_bytes(*shape) / _COPIES * copies


def _readers_from_disk() -> str:
    names = [
        f"{spec.name} ({spec.solver.serves_text})" if spec.solver.serves_text else spec.name
        for spec in CLASSIFIERS.values()
        if spec.solver is not None and spec.solver.disk_bytes is not None
    ]
    steps = " and ".join(name for name, step in STEPS.items() if not step.learns)
    return (
        f'Features are read from disk only for {", ".join(names)}, with featbench\'s own solver (engine = "auto") '
        f"and no steps but {steps}."
    )
