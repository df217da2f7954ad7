"""Ctrl-C: a training stops after the batch, saves its state within the epoch, and continues from there.

Lightning resumes at whole epochs. The state within an interrupted epoch is saved beside its checkpoint; the next
process draws the same batches again without training on them, and then restores the state. Several processes are not at
the same batch when Ctrl-C comes: the main one ends them, and they repeat the epoch.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from featbench.baselines.keep import CheckpointFiles, KeepBest
from featbench.baselines.module import ReferenceModule
from featbench.baselines.processes import Processes
from featbench.progress import Progress


def within_epoch(checkpoint: Path) -> Path:
    """Return the file for the state within an epoch."""
    return checkpoint.with_suffix(".batch.ckpt")


class StopAfterBatch(Callback):
    """Ends a training after the batch in which Ctrl-C came; a second Ctrl-C ends it at once.

    Args:
        keeper: Counts the seconds of the epoch.
        checkpoint: That of the whole epochs; None keeps nothing.
        progress: Shows where the training stopped.
        processes: Those that train together.
    """

    def __init__(self, keeper: KeepBest, checkpoint: Path | None, progress: Progress, processes: Processes) -> None:
        self.keeper = keeper
        self.file = None if checkpoint is None or processes.count > 1 else within_epoch(checkpoint)
        self.progress = progress
        self.processes = processes
        self.stop_requested = False
        self._state: dict[str, Any] | None = None
        self._before: Any = None

    def __enter__(self) -> StopAfterBatch:
        # a shell ignores Ctrl-C for jobs in the background; that stays so
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            handler = self._request_stop if self.processes.is_main() else signal.SIG_IGN
            self._before = signal.signal(signal.SIGINT, handler)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True
        signal.signal(signal.SIGINT, self._before)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the state of an interrupted epoch."""
        assert isinstance(pl_module, ReferenceModule)
        if self.file is None or not self.file.exists():
            return
        state = CheckpointFiles().load_checkpoint(self.file)
        if state["epoch"] == trainer.current_epoch:  # else another process has trained further since
            self._state = state
            pl_module.n_done_before = state["batches"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore an interrupted epoch where it stopped; stop where Ctrl-C came in the batch before."""
        assert isinstance(pl_module, ReferenceModule)
        if self._state is not None and batch_idx == self._state["batches"]:
            self._restore(trainer, pl_module, self._state)
            self._state = None
        if self.stop_requested and self._state is None:
            if self.file is not None and batch_idx:
                CheckpointFiles().save_checkpoint(self._state_after(trainer, pl_module, batch_idx), self.file)
            epoch, count = trainer.current_epoch + 1, trainer.num_training_batches
            repeated = "; several processes repeat that epoch from its start" if self.processes.count > 1 else ""
            self.progress.say(f"stopped after batch {batch_idx} of {count} in epoch {epoch}{repeated}")
            raise KeyboardInterrupt

    def _state_after(self, trainer: Trainer, module: ReferenceModule, batches: int) -> dict[str, Any]:
        state: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "batches": batches,
            "network": module.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "sums": module.sums["train"],
            "seconds": self.keeper.epoch_s(),
        }
        module.on_save_checkpoint(state)
        return state

    def _restore(self, trainer: Trainer, module: ReferenceModule, state: dict[str, Any]) -> None:
        module.network.load_state_dict(state["network"])
        for optimizer, kept in zip(trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for config, kept in zip(trainer.lr_scheduler_configs, state["schedules"], strict=True):
            config.scheduler.load_state_dict(kept)
        module.sums["train"] = state["sums"].to(module.device)
        module.on_load_checkpoint(state)
        module.n_done_before = 0
        self.keeper.add_seconds(state["seconds"])
