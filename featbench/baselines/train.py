"""Train one reference network and test it once.

Protocol: the network learns from the training rows; after each epoch the validation rows are scored. With a refit it is
trained again on both, and the network of the last epoch is the one that sees the test rows, once; without, that of the
best epoch by validation. `featbench baseline digits` runs this stage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featbench.backbones.load import Backbone
from featbench.baselines.fit import EVAL_BATCH, fit
from featbench.baselines.keep import Epoch, KeepBest
from featbench.baselines.learner import ACTIVATION_BYTES, Compute, Images, Parts, fold_scaling, make_learner
from featbench.baselines.module import ReferenceModule
from featbench.baselines.processes import ALONE, Processes
from featbench.baselines.rate import find_rate
from featbench.baselines.strategies import Recipe, candidates
from featbench.progress import Progress


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained reference network.

    Attributes:
        state: The weights, float32 on the CPU: of the whole network, or of the head alone for `linear_head`.
        params: The recipe, with the epoch that was kept, the number of trained parameters, whether frozen parts were
            computed once, and the results of searches.
        history: One entry an epoch, of the training that left out the validation rows.
        best: The epoch of these that was kept.
        probabilities: (n_test, n_classes) float32 on the test rows.
        finite: Whether the loss stayed a number.
        fit_s: Wall-clock seconds of training.
        predict_s: Wall-clock seconds of the test rows, from images on.
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
    find_lr: bool = False,
    tune: int = 0,
    processes: Processes = ALONE,
    spill_dir: Path | None = None,
    activation_bytes: int = ACTIVATION_BYTES,
) -> TrainedNetwork:
    """Train a backbone by a recipe; see the module's protocol. The backbone's network is changed in place.

    With `find_lr` a range test on the training rows replaces the recipe's rate. With `tune` as many trainings with
    other rates and epochs are compared by validation, and the best of them is the one that is tested.

    The checkpoint is written after every epoch; where it exists already, the training resumes from it and ends as if it
    had never been interrupted.

    Activations of a frozen part that take more than `activation_bytes` go into a file in `spill_dir` while one process
    trains.

    Raises:
        UsageError: The recipe does not fit the network.
        ResultsError: The checkpoint cannot be written or read.
    """
    started_s = time.perf_counter()
    backbone.network.to(device)

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")

    if processes.count > 1:
        spill_dir = None  # each would fill the disk for itself
    parts = Parts(train, val, test)
    compute = Compute(device, autocast, spill_dir, activation_bytes)
    learner = make_learner(backbone, recipe, parts, n_classes, seed, compute, progress)
    network = learner.trainable.network
    start = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def module_of(trial: Recipe) -> ReferenceModule:
        network.load_state_dict(start)
        return ReferenceModule(learner.trainable, learner.prepare, learner.run, trial, n_classes, seed, processes)

    found: dict[str, Any] = {"frozen_part": learner.frozen}
    if processes.count > 1:
        found["processes"] = asdict(processes)
    if find_lr:
        tested = find_rate(module_of(recipe), learner.parts.train, seed=seed, device=device, autocast=autocast)
        recipe = replace(recipe, lr=float(f"{tested.lr:.6g}"))
        found |= {"lr_by": "range test", "lr_range": [tested.rates[0], tested.rates[-1]]}

    def fit_on(trial: Recipe, train: Sequence[Images], val: Images | None, number: int, title: str) -> KeepBest:
        return fit(
            module_of(trial),
            train,
            val,
            seed=seed,
            device=device,
            precision=precision,
            progress=progress,
            checkpoint=None if checkpoint is None else _trial_file(checkpoint, number),
            label=f"{recipe.strategy}{title}",
        )

    trials: list[tuple[Recipe, KeepBest]] = []
    for number, trial in enumerate(candidates(recipe, tune)):
        title = f" {number + 1} of {tune}" if tune else ""
        trials.append((trial, fit_on(trial, [learner.parts.train], learner.parts.val, number, title)))
    recipe, keeper = max(trials, key=lambda trial: trial[1].score)  # the first of equals
    assert keeper.best is not None  # every training has at least one epoch
    keepers = [kept for _, kept in trials]
    if recipe.refit:
        rows = [learner.parts.train, learner.parts.val]
        keepers.append(fit_on(recipe, rows, None, len(trials), " on train and val"))
    fit_s = sum(kept.earlier_s for kept in keepers) + time.perf_counter() - started_s - learner.test_s
    final = keepers[-1] if recipe.refit else keeper
    if tune:
        scores = [[trial.lr, trial.epochs, round(kept.score[0], 6)] for trial, kept in trials]
        found["tuned"] = {"trainings": tune, "lr_epochs_val_accuracy": scores}
    module = module_of(recipe)
    network.load_state_dict(final.best_state)
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    started_s = time.perf_counter()
    with torch.inference_mode(), autocast():
        probabilities = _predict(module.to(device), learner.parts.test.images, device)
    return TrainedNetwork(
        state=final.best_state if learner.scaling is None else fold_scaling(final.best_state, learner.scaling),
        params=asdict(recipe) | found | {"best_epoch": keeper.best.epoch, "trained_parameters": learned},
        history=tuple(keeper.history),
        best=keeper.best,
        probabilities=probabilities,
        finite=all(math.isfinite(epoch.train_loss) for epoch in [*keeper.history, *final.history]),
        fit_s=fit_s,
        predict_s=time.perf_counter() - started_s + learner.test_s,
    )


def checkpoints_of(checkpoint: Path) -> list[Path]:
    """Return the existing checkpoint files of a network: this one, and those of its other trainings and of Ctrl-C."""
    return sorted(checkpoint.parent.glob(f"{checkpoint.stem}*.ckpt"))


def _trial_file(checkpoint: Path, number: int) -> Path:
    return checkpoint.with_suffix(f".{number}.ckpt") if number else checkpoint


def _predict(module: ReferenceModule, images: Tensor, device: torch.device) -> npt.NDArray[np.float32]:
    module.eval()
    outputs = [module(batch.to(device)).float().softmax(1).cpu() for batch in torch.split(images, EVAL_BATCH)]
    probabilities: npt.NDArray[np.float32] = torch.cat(outputs).numpy()
    return probabilities
