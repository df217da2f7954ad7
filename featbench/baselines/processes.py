"""Several processes that train one network together, on one machine or on several.

Lightning starts the processes of a machine itself, each with the same command line; on several machines the command
is started on each, or by torchrun or Slurm for each process. All of them plan the same trainings; the main process
alone writes results.

A helper that Lightning started runs the program from its beginning, skips what is done already, and takes part in the
training that it was started for. Then it ends, so that what a script does with its results is done once. Processes that
somebody else started (torchrun, Slurm) go on, and all get the same results.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from featbench.errors import ResultsError, UsageError

_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
_HELPER = "FEATBENCH_HELPER"
_END_WITHIN_S = 60.0
_started: list[list[subprocess.Popen[bytes]]] = []  # by this process; Lightning's own lists


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and by which of Lightning's strategies."""

    devices: int = 1
    num_nodes: int = 1
    distributed: str = "ddp"

    @property
    def count(self) -> int:
        """How many there are in all."""
        return self.devices * self.num_nodes

    def is_main(self) -> bool:
        """Say whether this process is the one that writes results."""
        return self.count == 1 or getattr(rank_zero_only, "rank", 0) == 0

    def own_share(self, rows: list[int]) -> list[int]:
        """Return this process's rows of a batch: every n-th."""
        return rows if self.count == 1 else rows[dist.get_rank() :: self.count]

    def loss_weight(self, n_rows: int, device: torch.device) -> float | Tensor:
        """Return the factor of a mean loss over own rows that makes the mean over processes that over all rows."""
        if self.count == 1:
            return 1.0
        total = torch.tensor(float(n_rows), device=device)
        dist.all_reduce(total)
        return n_rows * self.count / total

    def summed(self, sums: Tensor) -> Tensor:
        """Add up what every process counted on its own rows."""
        if self.count > 1:
            dist.all_reduce(sums)
        return sums

    def from_main(self, sums: Tensor) -> Tensor:
        """Return the main process's sums, so that all processes decide alike."""
        if self.count > 1:
            dist.broadcast(sums, 0)
        return sums

    def check_same_epoch(self, epoch: int, device: torch.device) -> None:
        """Check that all processes begin with the same epoch.

        Raises:
            ResultsError: They found different checkpoints.
        """
        if self.count > 1:
            ends = torch.tensor([epoch, -epoch], device=device)
            dist.all_reduce(ends, dist.ReduceOp.MAX)
            last, first = int(ends[0]), -int(ends[1])
            if first != last:
                raise ResultsError(
                    f"one process would go on after epoch {last} and another after epoch {first}: all have to see the "
                    "same results folder, with its checkpoints"
                )

    def share_statistics(self, network: nn.Module) -> None:
        """Give every process the batch-norm statistics of the main one."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def wait_for_all(self) -> None:
        """Return when every process is here."""
        if self.count > 1 and dist.is_initialized():
            dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == "nccl" else None)

    def seed_by_process(self, generator: torch.Generator, seed: int, epoch: int) -> None:
        """Give each of several processes its own augmentation and dropout in an epoch."""
        if self.count > 1:
            own = hash((seed, epoch, dist.get_rank())) % 2**32
            generator.manual_seed(own)
            torch.manual_seed(own)


ALONE = Processes()


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
