"""The Lightning module that trains one reference network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import MixUp

from featbench.baselines.augment import augment
from featbench.baselines.ema import Averaged
from featbench.baselines.network import Trainable
from featbench.baselines.optimizers import Plateau, make_optimizer, make_schedule
from featbench.baselines.processes import ALONE, Processes
from featbench.baselines.strategies import Recipe

Run = Callable[[Tensor], Tensor]


class ReferenceModule(LightningModule):
    """Trains a network with cross-entropy by a recipe.

    Args:
        trainable: The network, and which part of it learns.
        prepare: From a batch as stored to what `run` takes, on the training device.
        run: From that to logits; the network, or what is left of it where its frozen part was computed before.
        recipe: The settings.
        n_classes: Number of logits.
        seed: Draws the augmentation, and the order of the images.
        processes: That train it together.
    """

    def __init__(
        self,
        trainable: Trainable,
        prepare: Run,
        run: Run | None,
        recipe: Recipe,
        n_classes: int,
        seed: int,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self.network = trainable.network
        self.trainable = trainable
        self.prepare = prepare
        self.run = run or trainable.network.__call__  # a bound method: as a module its weights would be listed twice
        self.recipe = recipe
        self.seed = seed
        self.processes = processes
        self.mix = MixUp(alpha=recipe.mixup, num_classes=n_classes) if recipe.mixup else None
        self.plateau = Plateau(recipe.gamma, recipe.plateau_patience)
        self.averaged: Averaged | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.Generator().manual_seed(seed)
        self.sums: dict[str, Tensor] = {}
        self.passed_over = 0  # batches of this epoch that an earlier process trained on

    def forward(self, images: Tensor) -> Tensor:
        """(B, ...) as stored -> logits (B, n_classes)."""
        return self._logits(self.prepare(images))

    def _logits(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return self.run(inputs)

    def train(self, mode: bool = True) -> ReferenceModule:
        """Switch to training mode, except what is frozen."""
        super().train(mode)
        self.trainable.train(mode)
        return self

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        """Return the loss of one batch; None for one that is passed over."""
        if batch_idx < self.passed_over:
            return None
        return self.loss(*batch) * self.processes.weight_of(len(batch[1]), self.device)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return what a step lowers, for images as stored."""
        inputs, targets = self.prepare(augment(images, self.recipe.augment, self.generator)), labels
        if self.mix is not None:
            inputs, targets = self.mix(inputs, labels)
        logits = self._logits(inputs).float()
        loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)
        self._count("train", loss, logits, targets)
        if self.recipe.l1:
            loss = loss + self.recipe.l1 * sum(p.abs().sum() for p in self.parameters() if p.requires_grad)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count the loss and the hits of one batch."""
        logits = self(batch[0]).float()
        self._count("val", F.cross_entropy(logits, batch[1]), logits, batch[1])

    def _count(self, split: str, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        shares = targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1])  # mixed images have two classes
        hits = shares.gather(1, logits.argmax(1, keepdim=True)).sum()
        count = torch.tensor(float(len(logits)), device=logits.device)
        batch = torch.stack([loss.detach() * count, hits.float(), count])
        self.sums[split] = self.sums.get(split, 0) + batch

    def take_means(self, split: str) -> tuple[float, float]:
        """Return the mean loss and the accuracy since the last call, and start again."""
        share = (
            self.processes.summed if split == "train" else self.processes.as_in_main
        )  # every process scores all validation rows
        loss, correct, count = share(self.sums.pop(split)).tolist()
        return loss / count, correct / count

    def configure_optimizers(self) -> Any:
        """Make the recipe's optimizer and schedule."""
        optimizer = make_optimizer(self.trainable, self.recipe)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = make_schedule(optimizer, self.recipe, steps, self.plateau)
        if scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Begin the average of the weights."""
        if self.recipe.ema and self.averaged is None:
            self.averaged = Averaged(self.network, self.recipe.ema)

    def on_train_start(self) -> None:
        """Begin alike in all processes, and have the average where the weights are.

        Raises:
            ResultsError: The processes have not found the same checkpoint.
        """
        self.processes.check_alike(self.current_epoch, self.device)
        if self.averaged is not None:
            self.averaged.state = {name: tensor.to(self.device) for name, tensor in self.averaged.state.items()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Have several processes draw apart from an epoch's first batch on.

        Before it the loader has drawn too, but not in the epoch that a checkpoint is gone on with.
        """
        if batch_idx == 0:
            self.processes.seed_apart(self.generator, self.seed, self.current_epoch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the step into the average."""
        if self.averaged is not None and batch_idx >= self.passed_over:
            self.averaged.update()

    def scored_weights(self) -> AbstractContextManager[None]:
        """Have the network hold, for a while, the weights that are scored and kept: the averaged ones, if any."""
        return nullcontext() if self.averaged is None else self.averaged.in_place()

    def on_validation_epoch_start(self) -> None:
        """Score the averaged weights."""
        self.processes.share_statistics(self.network)
        self._scoring = self.scored_weights()
        self._scoring.__enter__()

    def on_validation_epoch_end(self) -> None:
        """Train on with the network's own."""
        self._scoring.__exit__(None, None, None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where everything stands that is no weight: random numbers, the average, the plateau.

        The random numbers are those of the augmentation, of the order, and of what dropout and mixup draw from.
        """
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        checkpoint["random"] = [self.generator.get_state(), self.order.get_state(), torch.get_rng_state(), cuda]
        checkpoint["plateau"] = self.plateau.state()
        if self.averaged is not None:
            checkpoint["averaged"] = [self.averaged.state, self.averaged.steps]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint stands."""
        augmentation, order, dropout, cuda = checkpoint["random"]
        self.generator.set_state(augmentation)
        self.order.set_state(order)
        torch.set_rng_state(dropout)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self.device)
        self.plateau.restore(checkpoint["plateau"])
        if self.averaged is not None:
            self.averaged.restore(*checkpoint["averaged"])
