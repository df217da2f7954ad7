"""Medians of repeats that take turns."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable


def medians(jobs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Measure every job once a round, so that a change of the machine's pace meets all alike."""
    found: dict[str, list[float]] = {job: [] for job in jobs}
    for _ in range(repeats):
        for job, measure in jobs.items():
            found[job].append(measure())
            print(f"  {job}: {found[job][-1]:.2f}", file=sys.stderr, flush=True)
    return {job: statistics.median(figures) for job, figures in found.items()}
