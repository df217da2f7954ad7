"""Several processes that train one network together, on one machine or on several.

Lightning starts the processes of a machine itself, each with the same command line; on several machines the command
is started on each, or by torchrun or Slurm for each process. All of them plan the same trainings; the main process
alone writes results.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from featbench.errors import ResultsError


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
