"""About how long the networks of a run will take, measured on a few of its images (`--dry-run`)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from featbench.backbones.device import with_channels_last
from featbench.backbones.load import RANDOM, Backbone
from featbench.baselines.network import with_new_head
from featbench.baselines.strategies import make_recipe
from featbench.config import BackboneConfig
from featbench.data.loader import image_shape, read_batches
from featbench.data.splits import Split
from featbench.features.extraction import plan_extraction
from featbench.features.forward import Forward, best_precision
from featbench.progress import Silent
from featbench.runs.resolve import Run

_MEASURED_PIXELS = 16 * 224 * 224  # after as many that warm up; few small images would tell of the set-up only
_MEASURED_IMAGES = 256  # at most


def describe_duration(run: Run, stages: Sequence[str]) -> list[str]:
    """Return a line with the minutes of extraction and of the reference networks; none where no network runs.

    Networks are timed with random weights, which take as long, so that nothing is downloaded.
    """
    seconds = [_seconds(run, config, stages) for config in run.experiment.backbones if config.name != "pixels"]
    extract_s, train_s = (sum(part) for part in zip(*seconds, strict=True)) if seconds else (0.0, 0.0)
    parts = [f"features {_time(extract_s)}"] if extract_s else []
    parts += [f"reference networks {_time(train_s)}"] if train_s else []
    measured = f"time         {', '.join(parts)}, measured on a few images on {run.device}; the classifiers come on top"
    return [measured] if parts else []


def _seconds(run: Run, config: BackboneConfig, stages: Sequence[str]) -> tuple[float, float]:
    """Estimate the seconds of extraction and of the reference networks of one backbone."""
    splits = run.dataset.splits
    n_images, n_train = sum(map(len, splits.values())), len(splits["train"])
    untrained = config.model_copy(update={"weights": RANDOM})
    backbone = run.network(untrained, seed=0).backbone
    _, height, width = image_shape(splits["train"], backbone.preprocess)
    measured = min(_MEASURED_IMAGES, max(1, _MEASURED_PIXELS // (height * width)))
    rows = np.random.default_rng(0).permutation(n_train)[: 2 * measured]
    sample = splits["train"].subset(np.sort(rows))
    extract_s = n_images * _forward_s(run, config, backbone, sample, measured) if "extract" in stages else 0.0
    train_s = 0.0
    wanted = [baseline for baseline in run.experiment.baselines if baseline.backbone in (None, config.name)]
    if "baseline" in stages and wanted:
        forward_s, step_s = _training_s(run, config, backbone, sample, measured)
        for baseline in wanted:
            recipe = make_recipe(baseline, n_train, learning_curve=bool(run.experiment.evaluate.train_sizes))
            epochs = recipe.epochs * (2 if recipe.refit else 1)
            once = baseline.strategy == "linear_head"  # it trains on features that are computed once
            train_s += baseline.repeats * (n_images * forward_s if once else epochs * n_train * step_s)
    return extract_s, train_s


def _forward_s(run: Run, config: BackboneConfig, backbone: Backbone, sample: Split, measured: int) -> float:
    """Measure the seconds an image takes from its file to its features."""
    shape = image_shape(sample, backbone.preprocess)
    extraction = plan_extraction(
        config.model_copy(update={"layers": backbone.expand(config.layers, shape)}), run.device, "skip"
    )
    forward = Forward(
        backbone.features(extraction.layers, config.pooling, shape),
        backbone.preprocess,
        device=run.device,
        precision=extraction.precision,
        batch_size=measured,
        image_shape=shape,
        n_images=len(sample),
        progress=Silent(),
    )
    started_s, count = time.perf_counter(), 0
    for number, batch in enumerate(read_batches(sample, backbone.preprocess, measured, device=run.device)):
        forward.start(batch.images)()
        if number == 0 and len(sample) > measured:
            started_s = time.perf_counter()  # the first warms up
        else:
            count += len(batch.rows)
    return (time.perf_counter() - started_s) / max(count, 1)


def _training_s(
    run: Run, config: BackboneConfig, backbone: Backbone, sample: Split, measured: int
) -> tuple[float, float]:
    """Measure the seconds an image takes: forward alone, and forward and backward with every weight learning."""
    precision = best_precision(run.device) if config.precision == "auto" else config.precision
    (batch, *_) = read_batches(sample, backbone.preprocess, measured)
    network = with_new_head(backbone.traced, 2, dropout=0.0, seed=0, freeze_until=None).network.to(run.device)
    with_channels_last(network.train())
    seconds = {False: math.inf, True: math.inf}
    for learning in seconds:
        for _ in range(3):  # the first warms up, and the shortest is the least disturbed
            started_s = time.perf_counter()
            autocast = torch.autocast(run.device.type, torch.bfloat16, enabled=precision == "bfloat16")
            with torch.set_grad_enabled(learning), autocast:
                output: Any = network(backbone.preprocess.normalise(batch.images.to(run.device)))
                logits = output if isinstance(output, torch.Tensor) else output[0]
                if learning:
                    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=run.device))
                    torch.autograd.backward(loss)
            float(logits.detach().sum())  # waits for a GPU
            taken_s = (time.perf_counter() - started_s) / max(len(batch.rows), 1)
            seconds[learning] = min(seconds[learning], taken_s)
    return seconds[False], seconds[True]


def _time(seconds: float) -> str:
    if seconds < 60:
        return "less than 1 min"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
