"""The range test: a learning rate found by one short trial in which the rate rises from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from featbench.baselines.fit import batches
from featbench.baselines.learner import Autocast, Images
from featbench.baselines.module import ReferenceModule
from featbench.baselines.optimizers import make_optimizer

STEPS = 80
RATES = {"sgd": (1e-5, 10.0), "adam": (1e-7, 1.0), "adamw": (1e-7, 1.0)}
_SMOOTHING = 0.9  # decay of the running mean of the loss
_DIVERGED = 4.0  # the test ends at so many times the lowest loss
_DIVISOR = 10.0  # of the rate with the lowest loss


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        lr: The rate to train with: a tenth of the one at which the smoothed loss was lowest.
        rates: The rates that were tried, rising geometrically, until the loss had diverged.
        losses: The smoothed training loss after each.
    """

    lr: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]


def find_rate(
    module: ReferenceModule,
    train: Images,
    *,
    seed: int,
    device: torch.device,
    autocast: Autocast,
    steps: int = STEPS,
) -> RangeTest:
    """Find the head's learning rate; weights and generators are restored afterwards.

    The test is that of Smith 2017, "Cyclical Learning Rates for Training Neural Networks", and the choice that of
    Howard and Gugger's fastai: a tenth of the rate at which the loss is lowest. Only training rows are seen.
    """
    recipe = module.recipe
    kept = {name: tensor.detach().clone() for name, tensor in module.network.state_dict().items()}
    drawn = module.generator.get_state()
    lowest, highest = RATES[recipe.optimizer]
    rates: list[float] = []
    losses: list[float] = []
    module.to(device).train()
    optimizer = make_optimizer(module.trainable, replace(recipe, lr=1.0))
    shares = [group["lr"] for group in optimizer.param_groups]
    mean = 0.0
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        stream = batches(train, recipe.batch_size, torch.Generator().manual_seed(seed))
        for step in range(steps):
            rates.append(lowest * (highest / lowest) ** (step / (steps - 1)))
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = share * rates[-1]
            images, labels = next(stream)
            with autocast():
                loss = module.loss(images.to(device), labels.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
            optimizer.step()
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * float(loss.detach())
            losses.append(mean / (1 - _SMOOTHING ** (step + 1)))
            if not losses[-1] <= _DIVERGED * min(losses):
                break
    module.sums.clear()
    module.generator.set_state(drawn)
    module.network.load_state_dict(kept)
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return RangeTest(rates[finite.index(min(finite))] / _DIVISOR, tuple(rates), tuple(losses))
