"""Train one reference network and test it once.

Protocol: the network learns from the training rows; after each epoch the validation rows are scored; the weights of
the best epoch by validation are the ones that see the test rows, once. `featbench baseline digits` runs this stage.
"""

from __future__ import annotations

import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from featbench.backbones.load import Backbone
from featbench.backbones.tracing import PENULTIMATE
from featbench.baselines.checkpoint import CheckpointFiles
from featbench.baselines.module import Epoch, KeepBest, ReferenceModule
from featbench.baselines.network import Trainable, with_new_head
from featbench.baselines.strategies import Recipe
from featbench.progress import Progress

_TEST_BATCH = 256


@dataclass(frozen=True)
class Images:
    """Fitted images and labels in memory: `images` (N, C, h, w) uint8, `labels` (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainedNetwork:
    """A reference network after its best epoch.

    Attributes:
        state: The weights, float32 on the CPU: of the whole network, or of the head alone for `linear_head`.
        params: The recipe, with the best epoch and how many parameters learned.
        history: One entry an epoch.
        best: The epoch that was kept.
        probabilities: (n_test, n_classes) float32 on the test rows.
        finite: Whether the loss stayed a number.
        fit_s: Wall-clock seconds of training.
        predict_s: Wall-clock seconds of the test rows.
    """

    state: dict[str, Tensor]
    params: dict[str, Any]
    history: tuple[Epoch, ...]
    best: Epoch
    probabilities: npt.NDArray[np.float32]
    finite: bool
    fit_s: float
    predict_s: float


def train_network(
    backbone: Backbone,
    recipe: Recipe,
    train: Images,
    val: Images,
    test: Images,
    *,
    n_classes: int,
    seed: int,
    device: torch.device,
    precision: Literal["float32", "bfloat16"],
    progress: Progress,
    checkpoint: Path | None = None,
) -> TrainedNetwork:
    """Train a backbone by a recipe; see the module's protocol. The backbone's network is changed in place.

    The checkpoint is written after every epoch; where it is there already, the training goes on from it and ends as if
    it had never been interrupted.

    Raises:
        UsageError: The recipe does not fit the network.
        ResultsError: The checkpoint cannot be written or read.
    """
    started_s = time.perf_counter()
    backbone.network.to(device)
    if recipe.strategy == "linear_head":
        body = backbone.features([PENULTIMATE], "avg").module.to(device)
        parts = [_frozen_features(body, backbone, part, device, precision) for part in (train, val, test)]
        mean, std = parts[0].images.mean(0), parts[0].images.std(0).clamp_min(1e-6)
        train, val, test = (Images((part.images - mean) / std, part.labels) for part in parts)
        trainable = _linear_head(train.images.shape[1], n_classes, recipe.dropout, seed)
        module = ReferenceModule(trainable, torch.nn.Identity(), recipe, seed)
    else:
        trainable = with_new_head(
            backbone.traced, n_classes, dropout=recipe.dropout, seed=seed, freeze_until=recipe.freeze_until
        )
        module = ReferenceModule(trainable, backbone.preprocess.normalise, recipe, seed)
    keeper = _fit(
        module, train, val, seed=seed, device=device, precision=precision, progress=progress, checkpoint=checkpoint
    )
    fit_s = keeper.earlier_s + time.perf_counter() - started_s
    assert keeper.best is not None  # every training has at least one epoch
    module.network.load_state_dict(keeper.best_state)
    state = keeper.best_state
    if recipe.strategy == "linear_head":
        state = _fold_scaling(state, mean, std)
    learned = sum(p.numel() for p in module.parameters() if p.requires_grad)
    started_s = time.perf_counter()
    probabilities = _predict(module.to(device), test.images, device, precision)
    return TrainedNetwork(
        state=state,
        params=asdict(recipe) | {"best_epoch": keeper.best.epoch, "trained_parameters": learned},
        history=tuple(keeper.history),
        best=keeper.best,
        probabilities=probabilities,
        finite=all(math.isfinite(epoch.train_loss) for epoch in keeper.history),
        fit_s=fit_s,
        predict_s=time.perf_counter() - started_s,
    )


def _fit(
    module: ReferenceModule,
    train: Images,
    val: Images,
    *,
    seed: int,
    device: torch.device,
    precision: Literal["float32", "bfloat16"],
    progress: Progress,
    checkpoint: Path | None,
) -> KeepBest:
    recipe = module.recipe
    dropout_devices = [device] if device.type == "cuda" else []  # dropout draws from the global generator
    with (
        progress.bar(recipe.strategy, recipe.epochs) as advance,
        torch.random.fork_rng(dropout_devices),
        _quiet_lightning(),
    ):
        torch.manual_seed(seed)
        keeper = KeepBest(advance, recipe.early_stopping, checkpoint)
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            max_epochs=recipe.epochs,
            callbacks=[keeper],
            plugins=[CheckpointFiles()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        module.train().to(memory_format=torch.channels_last)
        on_interrupt = signal.getsignal(signal.SIGINT)
        resumed = checkpoint if checkpoint is not None and checkpoint.exists() else None
        try:
            trainer.fit(
                module,
                _loader(train, recipe.batch_size, module.order),
                _loader(val, _TEST_BATCH, None),
                ckpt_path=resumed,
            )
        except SystemExit:  # Lightning's way to end after Ctrl-C, which it also switches off
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from None
    return keeper


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advertisements and its advice on worker processes (there is nothing left to load) to itself."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode")  # the frozen ones
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")
            yield
    finally:
        logger.setLevel(level)


class _Rows(Dataset[tuple[Tensor, Tensor]]):
    """Hands out whole batches: an item is the rows of a list of numbers."""

    def __init__(self, data: Images) -> None:
        self.data = data

    def __getitem__(self, rows: Any) -> tuple[Tensor, Tensor]:
        return self.data.images[rows], self.data.labels[rows]

    def __len__(self) -> int:
        return len(self.data.labels)


def _loader(data: Images, batch_size: int, shuffle: torch.Generator | None) -> DataLoader[tuple[Tensor, Tensor]]:
    rows = _Rows(data)
    order = RandomSampler(rows, generator=shuffle) if shuffle else SequentialSampler(rows)
    lone = shuffle is not None and len(rows) % batch_size == 1  # batch norm cannot train on one image
    return DataLoader(rows, batch_size=None, sampler=BatchSampler(order, batch_size, drop_last=lone))


def _linear_head(width: int, n_classes: int, dropout: float, seed: int) -> Trainable:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(width, n_classes)
    return Trainable(nn.Sequential(nn.Dropout(dropout), head), "1")


def _fold_scaling(state: dict[str, Tensor], mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Turn a head on standardised features into the same head on the features themselves."""
    weight = state["1.weight"] / std
    return {"weight": weight, "bias": state["1.bias"] - weight @ mean}


def _frozen_features(body: nn.Module, backbone: Backbone, data: Images, device: torch.device, precision: str) -> Images:
    """Compute what the frozen part gives for each image, once: (N, D) float32 on the CPU."""
    outputs = []
    with torch.inference_mode(), _autocast(device, precision):
        for images in torch.split(data.images, _TEST_BATCH):
            outputs.append(body(backbone.preprocess.normalise(images.to(device)))[0].float().cpu())
    return Images(torch.cat(outputs).clone(), data.labels)


def _predict(module: ReferenceModule, images: Tensor, device: torch.device, precision: str) -> npt.NDArray[np.float32]:
    module.eval()
    outputs = []
    with torch.inference_mode(), _autocast(device, precision):
        for batch in torch.split(images, _TEST_BATCH):
            outputs.append(module(batch.to(device)).float().softmax(1).cpu())
    probabilities: npt.NDArray[np.float32] = torch.cat(outputs).numpy()
    return probabilities


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
