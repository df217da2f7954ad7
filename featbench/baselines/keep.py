"""What is kept of a training: the figures of each epoch, the weights of one, and a checkpoint to continue from."""

from __future__ import annotations

import math
import pickle
import time
import zipfile
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from featbench.baselines.module import ReferenceModule
from featbench.errors import ResultsError
from featbench.progress import Advance
from featbench.results.files import replacing

_NOTE_EVERY_S = 0.5  # between two progress notes on a running epoch


@dataclass(frozen=True)
class Epoch:
    """One pass: mean losses, accuracies in [0, 1], the head's learning rate in its last step, wall-clock seconds."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    seconds: float


class KeepBest(Callback):
    """Keeps the history, and the weights of the best epoch by validation accuracy (then by validation loss).

    Args:
        advance: Called after each epoch, and with notes on the running one.
        patience: The training ends after so many epochs without a better one.
        checkpoint: File for the state of the training, written after every epoch; None keeps nothing.
        last: Keep the weights of the last epoch instead, whatever its validation accuracy.
    """

    def __init__(self, advance: Advance, patience: int | None, checkpoint: Path | None, *, last: bool) -> None:
        self.history: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_state: dict[str, Tensor] = {}
        self.advance = advance
        self.last = last
        self.patience = patience
        self.checkpoint = checkpoint
        self.earlier_s = 0.0  # seconds of the epochs that an earlier process trained
        self._started_s = 0.0
        self._noted_s = 0.0
        self._lr = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started_s = self._noted_s = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note the rate; after the step the schedule has moved on, at the end of training to a rate never used."""
        self._lr = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show how the epoch goes, twice a second at most: reading the sums waits for a GPU."""
        assert isinstance(pl_module, ReferenceModule)
        if time.perf_counter() - self._noted_s > _NOTE_EVERY_S and "train" in pl_module.sums:
            self._noted_s = time.perf_counter()
            loss, hits, count = pl_module.sums["train"].tolist()
            self.advance(0, f"{loss / count:.3f} loss, {hits / count:.3f} train accuracy{self._note()}")

    @property
    def score(self) -> tuple[float, float]:
        """Validation accuracy, then minus the validation loss: trainings and epochs are chosen by it, the highest."""
        assert self.best is not None
        return _score(self.best)

    def epoch_s(self) -> float:
        """Return the seconds of the running epoch."""
        return time.perf_counter() - self._started_s

    def add_seconds(self, seconds: float) -> None:
        """Count the seconds that an earlier process spent on the running epoch."""
        self._started_s -= seconds
        self.earlier_s += seconds

    def _note(self) -> str:
        if self.best is None:
            return ""
        now = self.history[-1].val_accuracy
        if math.isnan(now):
            return ""
        best = "" if self.last else f" (best {self.best.val_accuracy:.3f} in epoch {self.best.epoch})"
        return f", {now:.3f} val accuracy{best}"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch, keep its weights if it is the best yet, stop if none was better for `patience` epochs."""
        assert isinstance(pl_module, ReferenceModule)
        train_loss, train_accuracy = pl_module.take_means("train")
        val_loss, val_accuracy = pl_module.take_means("val") if "val" in pl_module.sums else (math.nan, math.nan)
        epoch = Epoch(
            epoch=trainer.current_epoch + 1,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=self._lr,
            seconds=self.epoch_s(),
        )
        self.history.append(epoch)
        if self.last or self.best is None or _score(epoch) > _score(self.best):
            self.best = epoch
            with pl_module.scored_weights():
                self.best_state = _on_cpu(pl_module.network)
        if pl_module.recipe.schedule == "plateau":
            pl_module.plateau.step(val_loss, trainer.optimizers[0])
        trainer.should_stop = self._stale()
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint)
        self.advance(1, f"{train_loss:.3f} loss, {train_accuracy:.3f} train accuracy{self._note()}")

    def _stale(self) -> bool:
        if self.best is None or self.patience is None:
            return False
        return self.history[-1].epoch - self.best.epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what was kept so far, for the checkpoint."""
        best = None if self.best is None else self.best.epoch
        return {"history": [astuple(epoch) for epoch in self.history], "best": best, "best_state": self.best_state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what a checkpoint kept."""
        self.history = [Epoch(*values) for values in state_dict["history"]]
        self.best = self.history[state_dict["best"] - 1]
        self.best_state = state_dict["best_state"]
        self.earlier_s = sum(epoch.seconds for epoch in self.history)
        self.advance(len(self.history), self._note().removeprefix(", "))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once where the training had ended."""
        trainer.should_stop = self._stale()


def _score(epoch: Epoch) -> tuple[float, float]:
    return epoch.val_accuracy, -epoch.val_loss


def _on_cpu(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning writes and reads a checkpoint: whole or not at all, and without executing code in it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint in place of the last one.

        Raises:
            ResultsError: The file cannot be written.
        """
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint; only tensors and plain values are taken from the file.

        Raises:
            ResultsError: The file is damaged.
        """
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ResultsError(
                f"the checkpoint {path} is damaged; remove it, and the training starts from the beginning"
            ) from error
        return content
