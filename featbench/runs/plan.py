"""What a run is going to do: printed before it, or instead of it (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from featbench.backbones.architectures import get_architecture
from featbench.backbones.load import describe_weights, weights_name
from featbench.baselines.strategies import STRATEGIES, make_recipe
from featbench.config import BackboneConfig
from featbench.errors import DataError, list_names
from featbench.runs.duration import describe_duration
from featbench.runs.resolve import Run


def describe_plan(run: Run, stages: Sequence[str], *, measure: bool = False) -> list[str]:
    """Describe a run in a few lines; nothing is written.

    Args:
        run: The run.
        stages: Which of "extract", "evaluate", "baseline" and "report" it consists of.
        measure: Add how long its networks will take, as a few of its images tell; nothing is downloaded then.

    Raises:
        UsageError: A name or a setting is wrong, or the results folder is another data set's.
        DataError: The images are too few.
    """
    run.check_names()
    run.check_results_folder()
    experiment = run.experiment
    lines = [f"experiment   {experiment.name}, into {run.results_dir}"]
    if measure:  # instead of the run
        run = replace(run, offline=True)
    try:
        dataset = run.dataset
    except DataError as error:
        if experiment.dataset.name == "folder":
            raise
        return [*lines, f"images       {experiment.dataset.name}, which is not complete here: {error}"]
    run.check_images()
    counts = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    n_out = len(dataset.skipped)
    out = f"; {n_out} file{'s' * (n_out > 1)} left out" if n_out else ""
    lines.append(f"images       {dataset.name}: {counts}{out}")
    lines += [f"note         {remark}" for remark in dataset.remarks]
    lines.append(f"classes      {len(dataset.classes)}: {list_names(dataset.classes, 8)}")
    for config in experiment.backbones:
        lines += _features(config)
    if "evaluate" in stages and experiment.evaluate.classifiers:
        lines.append(f"classifiers  {', '.join(experiment.evaluate.classifiers)} on each")
    if "baseline" in stages:
        for baseline in experiment.baselines:
            curve = bool(experiment.evaluate.train_sizes)
            recipe = make_recipe(baseline, len(dataset.splits["train"]), learning_curve=curve)
            again = ", and again with the validation images" if recipe.refit else ""
            summary = STRATEGIES[baseline.strategy].summary
            lines.append(f"reference    {baseline.method}: {summary}, {recipe.epochs} epochs{again}")
    return [*lines, *describe_duration(run, stages)] if measure else lines


def _features(config: BackboneConfig) -> list[str]:
    if config.name == "pixels":
        return ["features     pixels, the control"]
    architecture = get_architecture(config.name)
    weights = weights_name(architecture, config)
    notes = describe_weights(architecture, config)
    layers = ", ".join(config.layers)
    return [f"features     {config.name}, weights {weights}: {layers}", *(f"weights      {note}" for note in notes)]
