"""One training by Lightning: batches of rows in memory, a checkpoint after every epoch, Ctrl-C."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from featbench.backbones.device import with_channels_last
from featbench.baselines.interrupt import StopAfterBatch
from featbench.baselines.keep import CheckpointFiles, KeepBest
from featbench.baselines.learner import Images
from featbench.baselines.module import ReferenceModule
from featbench.baselines.processes import ALONE, Processes, remember
from featbench.progress import Progress

EVAL_BATCH = 256


def fit(
    module: ReferenceModule,
    train: Sequence[Images],
    val: Images | None,
    *,
    seed: int,
    device: torch.device,
    precision: Literal["float32", "bfloat16"],
    progress: Progress,
    checkpoint: Path | None,
    label: str,
) -> KeepBest:
    """Train a module on one or more sets of rows, from the checkpoint on where there is one.

    Returns:
        The history, and the weights of the best epoch, or of the last where the recipe has a refit.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        ResultsError: The checkpoint cannot be written or read.
    """
    recipe, processes = module.recipe, module.processes
    dropout_devices = [device] if device.type == "cuda" else []  # dropout draws from the global generator
    with (
        progress.bar(label, recipe.epochs) as advance,
        torch.random.fork_rng(dropout_devices),
        _quiet_lightning(),
    ):
        torch.manual_seed(seed)
        keeper = KeepBest(advance, recipe.early_stopping, checkpoint, last=recipe.refit)
        stopper = StopAfterBatch(keeper, checkpoint, progress, processes)
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" and processes.devices == 1 else processes.devices,
            num_nodes=processes.num_nodes,
            strategy="auto" if processes.count == 1 else processes.distributed,
            sync_batchnorm=processes.count > 1 and device.type == "cuda",
            use_distributed_sampler=False,  # every process takes its share of the same batches
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            max_epochs=recipe.epochs,
            callbacks=[stopper, keeper],
            plugins=[CheckpointFiles()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=recipe.clip_norm,
        )
        with_channels_last(module.train())
        resumed = checkpoint if checkpoint is not None and checkpoint.exists() else None
        with stopper:
            try:
                trainer.fit(
                    module,
                    _loader(train, recipe.batch_size, module.order, processes),
                    None if val is None else _loader([val], EVAL_BATCH, None),
                    ckpt_path=resumed,
                )
            except SystemExit:  # Lightning's way to end after Ctrl-C
                raise KeyboardInterrupt from None
            finally:
                remember(getattr(trainer.strategy.launcher, "procs", []))
        if stopper.stop_requested:  # in the last epoch, which is complete
            raise KeyboardInterrupt
    return keeper


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advertisements, and its advice on worker processes: all rows are in memory already."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode")  # the frozen ones
            warnings.filterwarnings("ignore", message=".*training_step.* returned .*None")  # of a batch done before
            warnings.filterwarnings("ignore", message=".*have no `val_dataloader`")  # a refit has none
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")
            yield
    finally:
        logger.setLevel(level)


class _Rows(Dataset[tuple[Tensor, Tensor]]):
    """Gives whole batches: an item is the rows of a list of numbers, counted through all sets."""

    def __init__(self, sets: Sequence[Images], processes: Processes) -> None:
        self.sets = sets
        self.processes = processes

    def __getitem__(self, rows: Any) -> tuple[Tensor, Tensor]:
        own = self.processes.own_share(rows)
        if len(self.sets) == 1:
            return self.sets[0].images[own], self.sets[0].labels[own]
        numbers, start = torch.tensor(own), 0
        taken, images, labels = [], [], []
        for data in self.sets:  # one by one: activations on disk must not be joined in memory
            here = torch.nonzero((numbers >= start) & (numbers < start + len(data.labels))).flatten()
            taken.append(here)
            images.append(data.images[numbers[here] - start])
            labels.append(data.labels[numbers[here] - start])
            start += len(data.labels)
        order = torch.cat(taken).argsort()
        return torch.cat(images)[order], torch.cat(labels)[order]

    def __len__(self) -> int:
        return sum(len(data.labels) for data in self.sets)


def _loader(
    sets: Sequence[Images], batch_size: int, shuffle: torch.Generator | None, processes: Processes = ALONE
) -> DataLoader[tuple[Tensor, Tensor]]:
    rows = _Rows(sets, processes)
    order = RandomSampler(rows, generator=shuffle) if shuffle else SequentialSampler(rows)
    # batch norm cannot train on one image a process
    drop_last = shuffle is not None and 0 < len(rows) % batch_size < 2 * processes.count
    return DataLoader(rows, batch_size=None, sampler=BatchSampler(order, batch_size, drop_last=drop_last))


def batches(data: Images, batch_size: int, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield training batches without end."""
    while True:
        yield from _loader([data], batch_size, order)
