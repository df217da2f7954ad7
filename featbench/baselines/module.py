"""The Lightning module that trains one reference network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import MixUp

from featbench.baselines.augment import augment
from featbench.baselines.network import Trainable
from featbench.baselines.optimizers import Plateau, make_optimizer, make_schedule
from featbench.baselines.processes import ALONE, Processes
from featbench.baselines.strategies import Recipe

Run = Callable[[Tensor], Tensor]


class ReferenceModule(LightningModule):
    """Trains a network with cross-entropy by a recipe.

    Args:
        trainable: The network, and which part of it learns.
        prepare: Turns a batch as stored into inputs of `run`, on the training device.
        run: Turns these into logits: the network, or the part after the frozen one; None is the network.
        recipe: The settings.
        n_classes: Number of logits.
        seed: Draws the augmentation, and the order of the images.
        processes: Those that train it together.
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
        self.n_done_before = 0  # batches of this epoch that an earlier process trained on: they are only drawn

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
        """Return the loss of one batch; None for one that an earlier process trained on."""
        if batch_idx < self.n_done_before:
            return None
        return self.loss(*batch) * self.processes.loss_weight(len(batch[1]), self.device)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss that is minimised, of images as stored."""
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
        """Return the mean loss and the accuracy since the last call, and reset the sums."""
        # every process scores all validation rows
        combined = self.processes.summed if split == "train" else self.processes.from_main
        loss, correct, count = combined(self.sums.pop(split)).tolist()
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
        """Start the average of the weights."""
        if self.recipe.ema and self.averaged is None:
            self.averaged = Averaged(self.network, self.recipe.ema)

    def on_train_start(self) -> None:
        """Check that all processes begin alike, and move the average to the device of the weights.

        Raises:
            ResultsError: The processes have not found the same checkpoint.
        """
        self.processes.check_same_epoch(self.current_epoch, self.device)
        if self.averaged is not None:
            self.averaged.state = {name: tensor.to(self.device) for name, tensor in self.averaged.state.items()}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Give several processes their own random numbers from an epoch's first batch on.

        Not earlier: the loader draws before that, except in the epoch that a checkpoint is resumed with.
        """
        if batch_idx == 0:
            self.processes.seed_by_process(self.generator, self.seed, self.current_epoch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the step into the average."""
        if self.averaged is not None and batch_idx >= self.n_done_before:
            self.averaged.update()

    def scored_weights(self) -> AbstractContextManager[None]:
        """Put the weights that are scored and kept into the network for a while: the averaged ones, if any."""
        return nullcontext() if self.averaged is None else self.averaged.in_place()

    def on_validation_epoch_start(self) -> None:
        """Score the averaged weights."""
        self.processes.share_statistics(self.network)
        self._scoring = self.scored_weights()
        self._scoring.__enter__()

    def on_validation_epoch_end(self) -> None:
        """Put the network's own weights back."""
        self._scoring.__exit__(None, None, None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state that Lightning does not know of: generators, the average of the weights, the plateau.

        The generators are those of the augmentation, of the order, and the global one of dropout and mixup.
        """
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        checkpoint["random"] = [self.generator.get_state(), self.order.get_state(), torch.get_rng_state(), cuda]
        checkpoint["plateau"] = self.plateau.state()
        if self.averaged is not None:
            checkpoint["averaged"] = [self.averaged.state, self.averaged.steps]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        augmentation, order, dropout, cuda = checkpoint["random"]
        self.generator.set_state(augmentation)
        self.order.set_state(order)
        torch.set_rng_state(dropout)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self.device)
        self.plateau.restore(checkpoint["plateau"])
        if self.averaged is not None:
            self.averaged.restore(*checkpoint["averaged"])


class Averaged:
    """The average of a network's state (weights and batch-norm statistics; whole numbers are taken over).

    After step t the average moves by `1 - min(decay, (1 + t) / (10 + t))` of the difference, as TensorFlow's
    ExponentialMovingAverage does: with a constant decay a short training would keep much of its first weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.steps = 0
        self.state = _copy(network)

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after a step."""
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, weight)
            else:
                self.state[name].copy_(tensor)

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Restore the average from a checkpoint."""
        self.steps = steps
        for name, tensor in state.items():
            self.state[name].copy_(tensor)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averaged weights into the network within the context."""
        own = _copy(self.network)
        self.network.load_state_dict(self.state)
        try:
            yield
        finally:
            self.network.load_state_dict(own)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
