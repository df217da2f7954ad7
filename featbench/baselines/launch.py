"""Helper processes on this machine: Lightning starts them by running the same program again.

Each helper runs the program from its beginning, skips what is done already, and takes part in the training that it was
started for. Then it ends, so that what a script does with its results is done once. Processes that somebody else
started (torchrun, Slurm) go on, and all get the same results.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch.distributed as dist

from featbench.errors import ResultsError, UsageError

_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
_HELPER = "FEATBENCH_HELPER"
_END_WITHIN_S = 60.0
_started: list[list[subprocess.Popen[bytes]]] = []  # by this process; Lightning's own lists


def check_can_start(devices: int) -> None:
    """Check that this program can be run again for helper processes.

    Raises:
        UsageError: It cannot, since its lines were typed in.
    """
    main = sys.modules["__main__"]
    is_program = getattr(main, "__spec__", None) is not None or Path(sys.argv[0]).is_file()
    if devices > 1 and "LOCAL_RANK" not in os.environ and (hasattr(sys, "ps1") or not is_program):
        raise UsageError(
            f"devices = {devices} starts this program again for each further process, so it has to be a file: put "
            "these lines into a script, or run `featbench baseline`"
        )


def is_helper() -> bool:
    """Say whether Lightning started this process, for featbench."""
    return _HELPER in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def remember(processes: list[subprocess.Popen[bytes]]) -> None:
    """Remember helpers that a training started; they take part in the following ones, too."""
    _started.append(processes)


@contextmanager
def started_processes() -> Iterator[None]:
    """Train within this context: helpers end with it.

    Raises:
        ResultsError: A helper failed.
    """
    if "LOCAL_RANK" in os.environ:  # this is a helper, or torchrun or Slurm started it
        yield
        return
    before = {name: os.environ.get(name) for name in _SET_BY_LIGHTNING}
    os.environ[_HELPER] = "1"
    wait_s = 0.0
    try:
        yield
        wait_s = _END_WITHIN_S
    finally:
        if _started and dist.is_initialized():
            dist.destroy_process_group()
        codes = [code for code in _end(wait_s) if code]
        del os.environ[_HELPER]
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})
    if codes:
        raise ResultsError(
            f"{len(codes)} of the processes that helped to train failed, with exit code {codes[0]}; their messages "
            "are above. Each runs this program from its beginning, so two runs of it must be able to work at a time"
        )


def _end(wait_s: float) -> list[int]:
    """End the helpers, after waiting so long for each, and return their exit codes."""
    processes = [process for each in _started for process in each]
    for each in _started:
        each.clear()  # Lightning's watcher has nothing left to watch; it would kill this process with a failed one
    _started.clear()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.kill()  # one that has ended is left alone
    return [process.wait() for process in processes]
