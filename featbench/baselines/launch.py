"""Further processes of a machine that train together: Lightning starts them, by running the same program again.

Each runs the program from its beginning, finds done what is done, and helps with the training that it was started
for. There it ends, so that what a script does with its results is done once. Processes that somebody else started
(torchrun, Slurm) stay, and all get the same results.
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
_HELPS = "FEATBENCH_HELPS"
_PATIENCE_S = 60.0
_started: list[list[subprocess.Popen[bytes]]] = []  # by this process; Lightning's own lists


def check_can_start(devices: int) -> None:
    """Check that this program can be run again by whoever starts further processes.

    Raises:
        UsageError: It is no file, but typed in.
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
    return _HELPS in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def remember(processes: list[subprocess.Popen[bytes]]) -> None:
    """Take note of processes that a training started; they help with those that follow, too."""
    _started.append(processes)


@contextmanager
def started_processes() -> Iterator[None]:
    """Train within this: the processes that are started for it end with it.

    Raises:
        ResultsError: One of them failed.
    """
    if "LOCAL_RANK" in os.environ:  # they were started already, and not from here
        yield
        return
    before = {name: os.environ.get(name) for name in _SET_BY_LIGHTNING}
    os.environ[_HELPS] = "1"
    patience_s = 0.0
    try:
        yield
        patience_s = _PATIENCE_S
    finally:
        if _started and dist.is_initialized():
            dist.destroy_process_group()
        codes = [code for code in _end(patience_s) if code]
        del os.environ[_HELPS]
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})
    if codes:
        raise ResultsError(
            f"{len(codes)} of the processes that helped to train failed, with exit code {codes[0]}; what they said is "
            "above. Each runs this program from its beginning, so it has to be one that can run twice at a time"
        )


def _end(patience_s: float) -> list[int]:
    """End the processes that were started, and return their exit codes."""
    processes = [process for each in _started for process in each]
    for each in _started:
        each.clear()  # Lightning's watcher has nothing left to watch; it would kill this process with a failed one
    _started.clear()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        process.kill()  # one that has ended is left alone
    return [process.wait() for process in processes]
