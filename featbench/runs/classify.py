"""`featbench evaluate`: the classifiers, trained and tested on cached features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import featbench
from featbench.classifiers.fit_and_test import Fitted, fit_and_test
from featbench.classifiers.memory import (
    check_memory,
    gpu_memory_named,
    has_gpu_solver,
    memory_budget,
    needed_bytes,
)
from featbench.classifiers.params import candidates
from featbench.classifiers.rows import LabelledFeatures, Subset, train_subsets
from featbench.classifiers.saved_models import NotKeptError, save_model
from featbench.classifiers.spec import ClassifierSpec, fit_engine
from featbench.classifiers.transforms import label
from featbench.fingerprint import fingerprint
from featbench.results.artifacts import write_predictions
from featbench.results.cards import write_card
from featbench.results.row import Row, params_json
from featbench.runs.extract import find_cached
from featbench.runs.feature_sets import CachedNetwork, FeatureSet, feature_sets
from featbench.runs.on_disk import load_on_disk
from featbench.runs.resolve import Run
from featbench.runs.rows import make_row
from featbench.solvers.memory import fits_gpu
from featbench.solvers.streamed import StreamedRows


@dataclass(frozen=True)
class _Task:
    """One classifier to train, on a subset of the training rows."""

    spec: ClassifierSpec
    steps: tuple[str, ...]
    subset: Subset
    fingerprint: str


def classify(run: Run, cached: Sequence[CachedNetwork] | None = None) -> list[str]:
    """Train the classifiers whose rows are not in results.csv yet.

    Args:
        run: The run.
        cached: What `extract` returned; found in the cache where it is None.

    Returns:
        The fingerprints of the experiment's classifier rows.

    Raises:
        CacheError: Features are missing; the message names the command that makes them.
        DataError: A class has too few images.
        UsageError: A classifier needs more memory than it may take.
    """
    config = run.experiment.evaluate
    if not config.classifiers:
        return []
    budget = memory_budget(config)
    planned = [
        (source, list(_tasks(run, source))) for source in feature_sets(cached or find_cached(run), config.fusions)
    ]
    for source, tasks in planned:  # what the last one lacks should not cost the work of the first
        for task in tasks:
            if not run.table.has(task.fingerprint):
                _check_memory(run, source, task, budget)
    for source, tasks in planned:
        _classify_on(run, source, tasks, budget)
    return [task.fingerprint for _, tasks in planned for task in tasks]


def _classify_on(run: Run, source: FeatureSet, tasks: Sequence[_Task], budget: float) -> None:
    splits: dict[str, LabelledFeatures] = {}
    with run.progress.bar(f"{source.backbone} {source.layer}", len(tasks)) as advance:
        for task in tasks:
            if run.table.has(task.fingerprint):
                run.progress.say(f"{task.spec.name} on {source.backbone} {source.layer}: already in results.csv")
            else:
                splits = splits or _load(run, source, budget)
                _fit(run, source, splits, task, budget)
            advance(1, task.spec.name)


def _load(run: Run, source: FeatureSet, budget: float) -> dict[str, LabelledFeatures]:
    """Read the features of all splits, or put them on disk where they do not fit the memory."""
    needed = needed_bytes(sum(map(source.n_rows, source.splits)), source.width)
    if needed <= budget:
        return {name: source.load(name) for name in source.splits}
    run.progress.say(
        f"{source.backbone} {source.layer}: {needed / 1e9:.3g} GB with copies is beyond the {budget / 1e9:.3g} GB that "
        "features may take; they are read from disk in blocks of rows"
    )
    return load_on_disk(source, run.cache_dir, budget)


def _check_memory(run: Run, source: FeatureSet, task: _Task, budget: float) -> None:
    config = run.experiment.evaluate
    check_memory(
        task.spec,
        candidates(task.spec, config),
        task.steps,
        config,
        features=f"{source.backbone} {source.layer}",
        shape=(_rows_of(source, task), source.width),
        budget=budget,
    )


def _rows_of(source: FeatureSet, task: _Task) -> int:
    return len(task.subset.indices) + sum(source.n_rows(name) for name in source.splits if name != "train")


def _tasks(run: Run, source: FeatureSet) -> Iterator[_Task]:
    config = run.experiment.evaluate
    labels, _ = source.labels("train")
    for spec, steps in product(run.classifiers.values(), config.steps):
        for subset in train_subsets(
            labels, config.train_sizes, config.repeats, run.experiment.seed, seeded=spec.seeded
        ):
            content = source.content() | {
                "method": spec.name,
                "selection": config.selection,
                "folds": config.folds,
                "candidates": candidates(spec, config),
                "engine": fit_engine(spec, candidates(spec, config), config),
                "subset": [subset.size, subset.repeat],
                "seed": subset.seed,
                "version": featbench.__version__,
            }
            extra = {"steps": list(steps), "source": spec.source}
            content |= {key: value for key, value in extra.items() if value}
            yield _Task(spec, steps, subset, fingerprint(content))


def _fit(run: Run, source: FeatureSet, splits: Mapping[str, LabelledFeatures], task: _Task, budget: float) -> None:
    classes = run.dataset.classes
    splits = {**splits, "train": splits["train"].take(task.subset.indices)}
    if needed_bytes(_rows_of(source, task), source.width) <= budget:
        splits = {name: split.in_memory() for name, split in splits.items()}
    train, test = splits["train"], splits["test"]
    device = _device(run, source, task, train)
    with gpu_memory_named(task.spec.name):
        fitted = fit_and_test(
            task.spec,
            train,
            splits.get("val"),
            test,
            run.experiment.evaluate,
            task.subset.seed,
            len(classes),
            task.steps,
            device,
        )
    row = _row(run, source, fitted, task, splits, device)
    try:
        save_model(run.results_dir, row, fitted.model)
    except NotKeptError as error:
        row = replace(row, params=params_json(json.loads(row.params) | {"model_not_kept": str(error)}))
        run.progress.warn(f"the model of {task.spec.name} on {source.backbone} {source.layer} is not kept: {error}")
    else:
        write_card(
            run.results_dir,
            row,
            classes=run.dataset.classes,
            seed=run.experiment.seed,
            array_shape=run.dataset.array_shape,
            temperature=fitted.temperature,
            **source.card(),
        )
    write_predictions(run.results_dir, row, test.ids, test.y, fitted.predicted, fitted.scores, classes)
    run.table.add(row)  # last, so that a row's files are there when the row is
    if fitted.converged is False:
        run.progress.warn(f"{task.spec.name} on {source.backbone} {source.layer} did not converge; its row says so")


def _device(run: Run, source: FeatureSet, task: _Task, train: LabelledFeatures) -> str:
    """Return where to fit a classifier; rows that stay on disk are for the CPU."""
    config = run.experiment.evaluate
    wanted = has_gpu_solver(task.spec, candidates(task.spec, config), config)
    if run.device.type == "cpu" or not wanted or isinstance(train.X, StreamedRows):
        return "cpu"
    if not fits_gpu(run.device, (_rows_of(source, task), source.width)):
        run.progress.say(
            f"{task.spec.name} on {source.backbone} {source.layer} is fitted on the CPU: its rows do not fit the GPU"
        )
        return "cpu"
    return str(run.device)


def _row(
    run: Run,
    source: FeatureSet,
    fitted: Fitted,
    task: _Task,
    splits: Mapping[str, LabelledFeatures],
    device: str,
) -> Row:
    return make_row(
        run.experiment.name,
        run.dataset,
        splits["test"].y,
        fitted.predicted,
        params=fitted.params | {"candidates": fitted.n_tried, "candidates_not_converged": fitted.n_not_converged},
        images_per_class=task.subset.size,
        backbone=source.backbone,
        weights=source.weights,
        layer=source.layer,
        pooling=source.pooling,
        feature_dim=splits["train"].X.shape[1],
        method=task.spec.name,
        kind="classifier",
        selection=fitted.selection,
        seed=task.subset.seed,
        n_train=fitted.n_train,
        n_val=fitted.n_val,
        val_accuracy=fitted.val_accuracy,
        converged=fitted.converged,
        engine=fitted.engine,
        device=device,
        precision=source.precision,
        extract_s=source.extract_s,
        fit_s=fitted.fit_s,
        predict_s=fitted.predict_s,
        fingerprint=task.fingerprint,
        steps=label(task.steps),
    )
