"""The Lightning module that trains one reference network, and what it keeps of each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from featbench.baselines.augment import augment
from featbench.baselines.network import Trainable
from featbench.baselines.strategies import Recipe
from featbench.progress import Advance


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


class ReferenceModule(LightningModule):
    """Trains a network with cross-entropy by a recipe.

    Args:
        trainable: The network, and which part of it learns.
        prepare: From a batch as stored to the network's input, on the training device.
        recipe: The settings.
        seed: Draws the augmentation, and the order of the images.
    """

    def __init__(self, trainable: Trainable, prepare: Callable[[Tensor], Tensor], recipe: Recipe, seed: int) -> None:
        super().__init__()
        self.network = trainable.network
        self.trainable = trainable
        self.prepare = prepare
        self.recipe = recipe
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.Generator().manual_seed(seed)
        self.sums: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """(B, ...) as stored -> logits (B, n_classes)."""
        inputs = self.prepare(images)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(inputs)
        return logits

    def train(self, mode: bool = True) -> ReferenceModule:
        """Switch to training mode, except what is frozen: its batch-norm statistics must not move."""
        super().train(mode)
        for name in self.trainable.frozen:
            self.network.get_submodule(name).eval()
        return self

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images, labels = batch
        loss, correct = self._loss(augment(images, self.recipe.augment, self.generator), labels)
        self._count("train", loss, correct, labels)
        if self.recipe.l1:
            loss = loss + self.recipe.l1 * sum(p.abs().sum() for p in self.parameters() if p.requires_grad)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count the loss and the hits of one batch."""
        self._count("val", *self._loss(*batch), batch[1])

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(images).float()
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    def _count(self, split: str, loss: Tensor, correct: Tensor, labels: Tensor) -> None:
        count = len(labels)
        batch = torch.stack([loss.detach() * count, correct.float(), torch.tensor(float(count), device=loss.device)])
        self.sums[split] = self.sums.get(split, 0) + batch

    def take_means(self, split: str) -> tuple[float, float]:
        """Return the mean loss and the accuracy since the last call, and start again."""
        loss, correct, count = self.sums.pop(split).tolist()
        return loss / count, correct / count

    def configure_optimizers(self) -> Any:
        """Give the head the recipe's rate and everything below it a share of that."""
        recipe = self.recipe
        body = self.trainable.body_parameters()
        factor = 1.0 if recipe.strategy == "scratch" else recipe.backbone_lr_factor
        groups: list[dict[str, Any]] = [{"params": self.trainable.head_parameters(), "lr": recipe.lr}]
        if body:
            groups.append({"params": body, "lr": recipe.lr * factor})
        optimizer: Optimizer
        if recipe.optimizer == "sgd":
            decay, momentum = recipe.weight_decay, recipe.momentum
            optimizer = SGD(groups, lr=recipe.lr, momentum=momentum, weight_decay=decay, nesterov=momentum > 0)
        else:
            optimizer = AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = _schedule(optimizer, recipe, steps)
        if scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the random numbers stand: of the augmentation, of the order, and of what dropout draws from."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        checkpoint["random"] = [self.generator.get_state(), self.order.get_state(), torch.get_rng_state(), cuda]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on drawing where the checkpoint stands."""
        augmentation, order, dropout, cuda = checkpoint["random"]
        self.generator.set_state(augmentation)
        self.order.set_state(order)
        torch.set_rng_state(dropout)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self.device)


def _schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler | None:
    rates = [group["lr"] for group in optimizer.param_groups]
    if recipe.schedule == "one_cycle":
        return OneCycleLR(optimizer, rates, total_steps=steps, cycle_momentum=recipe.optimizer == "sgd")
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    if recipe.schedule == "step":
        return StepLR(optimizer, max(1, steps // 3), gamma=0.1)
    return None


class KeepBest(Callback):
    """Keeps the history, and the weights of the best epoch by validation accuracy (then by validation loss).

    Args:
        advance: Told of each epoch.
        patience: How many epochs without a better one end the training.
        checkpoint: Written after every epoch: all that is needed to go on from there.
    """

    def __init__(self, advance: Advance, patience: int | None, checkpoint: Path | None) -> None:
        self.history: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_state: dict[str, Tensor] = {}
        self.advance = advance
        self.patience = patience
        self.checkpoint = checkpoint
        self.earlier_s = 0.0  # seconds of the epochs that an earlier process trained
        self._started_s = 0.0
        self._lr = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started_s = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note the rate; after the step the schedule has moved on, at the end of training to a rate never used."""
        self._lr = float(optimizer.param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch down, keep its weights if it is the best yet, stop if none is for long."""
        assert isinstance(pl_module, ReferenceModule)
        train_loss, train_accuracy = pl_module.take_means("train")
        val_loss, val_accuracy = pl_module.take_means("val")
        epoch = Epoch(
            epoch=trainer.current_epoch + 1,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=self._lr,
            seconds=time.perf_counter() - self._started_s,
        )
        self.history.append(epoch)
        if self.best is None or (val_accuracy, -val_loss) > (self.best.val_accuracy, -self.best.val_loss):
            self.best = epoch
            self.best_state = _on_cpu(pl_module.network)
        trainer.should_stop = self._stale()
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint)
        self.advance(1, f"val accuracy {val_accuracy:.4f}")

    def _stale(self) -> bool:
        if self.best is None or self.patience is None:
            return False
        return self.history[-1].epoch - self.best.epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Give the checkpoint what was kept so far."""
        best = None if self.best is None else self.best.epoch
        return {"history": [astuple(epoch) for epoch in self.history], "best": best, "best_state": self.best_state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self.history = [Epoch(*values) for values in state_dict["history"]]
        self.best = self.history[state_dict["best"] - 1]
        self.best_state = state_dict["best_state"]
        self.earlier_s = sum(epoch.seconds for epoch in self.history)
        self.advance(len(self.history), f"val accuracy {self.history[-1].val_accuracy:.4f}")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once where the training had ended."""
        trainer.should_stop = self._stale()


def _on_cpu(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
