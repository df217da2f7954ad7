"""Train one reference network and test it once.

Protocol: the network learns from the training rows; after each epoch the validation rows are scored; the weights of
the best epoch by validation are the ones that see the test rows, once. `featbench baseline digits` runs this stage.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featbench.backbones.load import Backbone
from featbench.baselines.fit import EVAL_BATCH, fit
from featbench.baselines.keep import Epoch
from featbench.baselines.learner import Images, Parts, fold_scaling, make_learner
from featbench.baselines.module import ReferenceModule
from featbench.baselines.strategies import Recipe
from featbench.progress import Progress


@dataclass(frozen=True)
class TrainedNetwork:
    """A reference network after its best epoch.

    Attributes:
        state: The weights, float32 on the CPU: of the whole network, or of the head alone for `linear_head`.
        params: The recipe, with the best epoch, how many parameters learned, and how often frozen parts were computed.
        history: One entry an epoch.
        best: The epoch that was kept.
        probabilities: (n_test, n_classes) float32 on the test rows.
        finite: Whether the loss stayed a number.
        fit_s: Wall-clock seconds of training.
        predict_s: Wall-clock seconds of the test rows, without a frozen part that was computed before.
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

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")

    learner = make_learner(backbone, recipe, Parts(train, val, test), n_classes, seed, device, autocast)
    module = ReferenceModule(learner.trainable, learner.prepare, learner.run, recipe, n_classes, seed)
    keeper = fit(
        module,
        learner.parts.train,
        learner.parts.val,
        seed=seed,
        device=device,
        precision=precision,
        progress=progress,
        checkpoint=checkpoint,
    )
    fit_s = keeper.earlier_s + time.perf_counter() - started_s
    assert keeper.best is not None  # every training has at least one epoch
    module.network.load_state_dict(keeper.best_state)
    state = keeper.best_state
    if learner.scaling is not None:
        state = fold_scaling(state, learner.scaling)
    found = {
        "best_epoch": keeper.best.epoch,
        "trained_parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "frozen_part": learner.frozen,
    }
    started_s = time.perf_counter()
    with torch.inference_mode(), autocast():
        probabilities = _predict(module.to(device), learner.parts.test.images, device)
    return TrainedNetwork(
        state=state,
        params=asdict(recipe) | found,
        history=tuple(keeper.history),
        best=keeper.best,
        probabilities=probabilities,
        finite=all(math.isfinite(epoch.train_loss) for epoch in keeper.history),
        fit_s=fit_s,
        predict_s=time.perf_counter() - started_s,
    )


def _predict(module: ReferenceModule, images: Tensor, device: torch.device) -> npt.NDArray[np.float32]:
    module.eval()
    outputs = [module(batch.to(device)).float().softmax(1).cpu() for batch in torch.split(images, EVAL_BATCH)]
    probabilities: npt.NDArray[np.float32] = torch.cat(outputs).numpy()
    return probabilities
