"""What a run is going to do, and about how long that takes: said before, or instead (`--dry-run`)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from featbench.backbones.architectures import get_architecture
from featbench.backbones.device import with_channels_last
from featbench.backbones.load import RANDOM, Backbone, describe_weights, load_backbone, weights_name
from featbench.baselines.network import with_new_head
from featbench.baselines.strategies import STRATEGIES, make_recipe
from featbench.config import BackboneConfig
from featbench.data.loader import image_shape, read_batches
from featbench.data.splits import Split
from featbench.errors import DataError
from featbench.features.extraction import plan_extraction
from featbench.features.forward import Forward, best_precision
from featbench.progress import Silent
from featbench.runs.classifier_time import classifier_seconds
from featbench.runs.resolve import Job

_MEASURED_PIXELS = 16 * 224 * 224  # after as many that warm up; a small image of few would tell of the set-up only
_MEASURED = 256  # images at most


def describe_plan(job: Job, stages: Sequence[str]) -> list[str]:
    """Describe a run in a few lines; the speed of networks is measured on a few of its images.

    Nothing is downloaded or written: networks are timed with random weights, which take as long.

    Raises:
        UsageError: A name or a setting is wrong, or the results folder is another data set's.
        DataError: The images are too few.
    """
    job.check_names()
    job.check_results_folder()
    experiment = job.experiment
    networks = [config for config in experiment.backbones if config.name != "pixels"]
    lines = [f"experiment   {experiment.name}, into {job.results_dir}"]
    job = replace(job, offline=True)
    try:
        dataset = job.dataset
    except DataError as error:
        if experiment.dataset.name == "folder":
            raise
        return [*lines, f"images       {experiment.dataset.name}, which is not complete here: {error}"]
    job.check_images()
    counts = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    n_out = len(dataset.skipped)
    out = f"; {n_out} file{'s' * (n_out > 1)} left out" if n_out else ""
    lines.append(f"images       {dataset.name}: {counts}{out}")
    lines += [f"note         {remark}" for remark in job.new_remarks()]
    lines.append(f"classes      {len(dataset.classes)}: {_some(dataset.classes)}")
    for config in experiment.backbones:
        lines += _features(config)
    if "evaluate" in stages and experiment.evaluate.classifiers:
        lines.append(f"classifiers  {', '.join(experiment.evaluate.classifiers)} on each")
    if "baseline" in stages:
        for asked in experiment.baselines:
            curve = bool(experiment.evaluate.train_sizes)
            recipe = make_recipe(asked, len(dataset.splits["train"]), learning_curve=curve)
            again = ", and again with the validation images" if recipe.refit else ""
            lines.append(
                f"reference    {asked.method}: {STRATEGIES[asked.strategy].summary}, {recipe.epochs} epochs{again}"
            )
    seconds = [_seconds(job, config, stages) for config in networks]
    extract_s, train_s = (sum(part) for part in zip(*seconds, strict=True)) if seconds else (0.0, 0.0)
    evaluated = "evaluate" in stages and experiment.evaluate.classifiers
    parts = [f"features {_time(extract_s)}"] if "extract" in stages else []
    parts += [f"classifiers {_time(classifier_seconds(job))}"] if evaluated else []
    parts += [f"reference networks {_time(train_s)}"] if train_s else []
    if parts:
        lines.append(
            f"time         {', '.join(parts)}, as a few images and small fits on {job.device} tell"
            + ("; learning curves come on top" if evaluated and experiment.evaluate.train_sizes else "")
            + "; what is done already is not done again"
        )
    return lines


def _features(config: BackboneConfig) -> list[str]:
    if config.name == "pixels":
        return ["features     pixels, the control"]
    architecture = get_architecture(config.name)
    weights = weights_name(architecture, config)
    notes = describe_weights(architecture, config)
    layers = ", ".join(config.layers)
    return [f"features     {config.name}, weights {weights}: {layers}", *(f"weights      {note}" for note in notes)]


def _seconds(job: Job, config: BackboneConfig, stages: Sequence[str]) -> tuple[float, float]:
    """Estimate the seconds of extraction and of the reference networks of one backbone."""
    splits = job.dataset.splits
    n_images, n_train = sum(map(len, splits.values())), len(splits["train"])
    backbone = _untrained(job, config)
    _, height, width = image_shape(splits["train"], backbone.preprocess)
    measured = min(_MEASURED, max(1, _MEASURED_PIXELS // (height * width)))
    rows = np.random.default_rng(0).permutation(n_train)[: 2 * measured]
    sample = splits["train"].subset(np.sort(rows))
    extract_s = n_images * _forward_s(job, config, backbone, sample, measured) if "extract" in stages else 0.0
    train_s = 0.0
    wanted = [asked for asked in job.experiment.baselines if asked.backbone in (None, config.name)]
    if "baseline" in stages and wanted:
        forward_s, step_s = _training_s(job, config, backbone, sample, measured)
        for asked in wanted:
            recipe = make_recipe(asked, n_train, learning_curve=bool(job.experiment.evaluate.train_sizes))
            epochs = recipe.epochs * (2 if recipe.refit else 1)
            once = asked.strategy == "linear_head"  # it trains on features that are computed once
            train_s += asked.repeats * (n_images * forward_s if once else epochs * n_train * step_s)
    return extract_s, train_s


def _untrained(job: Job, config: BackboneConfig) -> Backbone:
    return load_backbone(
        config.model_copy(update={"weights": RANDOM}),
        seed=0,
        offline=True,
        channels=job.dataset.channels,
    )


def _forward_s(job: Job, config: BackboneConfig, backbone: Backbone, sample: Split, measured: int) -> float:
    """Measure the seconds an image takes from its file to its features."""
    shape = image_shape(sample, backbone.preprocess)
    extraction = plan_extraction(
        config.model_copy(update={"layers": backbone.expand(config.layers, shape)}), job.device, "skip"
    )
    forward = Forward(
        backbone.features(extraction.layers, config.pooling, shape),
        backbone.preprocess,
        device=job.device,
        precision=extraction.precision,
        batch_size=measured,
        image_shape=shape,
        n_images=len(sample),
        progress=Silent(),
    )
    started_s, count = time.perf_counter(), 0
    for number, batch in enumerate(read_batches(sample, backbone.preprocess, measured, device=job.device)):
        forward.start(batch.images)()
        if number == 0 and len(sample) > measured:
            started_s = time.perf_counter()  # the first warms up
        else:
            count += len(batch.rows)
    return (time.perf_counter() - started_s) / max(count, 1)


def _training_s(
    job: Job, config: BackboneConfig, backbone: Backbone, sample: Split, measured: int
) -> tuple[float, float]:
    """Measure the seconds an image takes: forward alone, and forward and backward with every weight learning."""
    precision = best_precision(job.device) if config.precision == "auto" else config.precision
    (batch, *_) = read_batches(sample, backbone.preprocess, measured)
    network = with_new_head(backbone.traced, 2, dropout=0.0, seed=0, freeze_until=None).network.to(job.device)
    with_channels_last(network.train())
    seconds = {False: math.inf, True: math.inf}
    for learning in seconds:
        for _ in range(3):  # the first warms up, and the shortest is the least disturbed
            started_s = time.perf_counter()
            autocast = torch.autocast(job.device.type, torch.bfloat16, enabled=precision == "bfloat16")
            with torch.set_grad_enabled(learning), autocast:
                output: Any = network(backbone.preprocess.normalise(batch.images.to(job.device)))
                logits = output if isinstance(output, torch.Tensor) else output[0]
                if learning:
                    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=job.device))
                    torch.autograd.backward(loss)
            float(logits.detach().sum())  # waits for a GPU
            taken_s = (time.perf_counter() - started_s) / max(len(batch.rows), 1)
            seconds[learning] = min(seconds[learning], taken_s)
    return seconds[False], seconds[True]


def _time(seconds: float) -> str:
    if seconds < 60:
        return "less than 1 min"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _some(names: Sequence[str], limit: int = 8) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
