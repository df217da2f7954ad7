"""`featbench evaluate`: the classifiers, trained and tested on cached features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import featbench
from featbench.classifiers.engine import fit_engine
from featbench.classifiers.fit_and_test import Fitted, fit_and_test
from featbench.classifiers.memory import check_memory, memory_budget, needed_bytes
from featbench.classifiers.place import fits_gpu, gpu_memory_named, has_gpu_solver
from featbench.classifiers.registry import candidates, get_classifier
from featbench.classifiers.rows import LabelledFeatures, Subset, train_subsets
from featbench.classifiers.saved_models import NotKeptError, save_model
from featbench.classifiers.transforms import label
from featbench.fingerprint import fingerprint
from featbench.results.artifacts import write_predictions
from featbench.results.cards import write_card
from featbench.results.row import Row, params_json, utc_now
from featbench.results.store import write_rows
from featbench.runs.extract import find_cached
from featbench.runs.feature_sets import FeatureSet, feature_sets
from featbench.runs.on_disk import load_on_disk
from featbench.runs.resolve import Job
from featbench.solvers.streamed import StreamedRows
from featbench.stats.spread import IMAGES_PER_CLASS


@dataclass(frozen=True)
class _Plan:
    """One classifier to train, on a subset of the training rows."""

    method: str
    steps: tuple[str, ...]
    subset: Subset
    fingerprint: str


def evaluate(job: Job) -> list[str]:
    """Train the classifiers whose rows are not in results.csv yet.

    Returns:
        The fingerprints of the experiment's classifier rows.

    Raises:
        CacheError: Features are missing; the message names the command that makes them.
        DataError: A class has too few images.
        UsageError: A classifier needs more memory than it may take.
    """
    config = job.experiment.evaluate
    if not config.classifiers:
        return []
    budget = memory_budget(config)
    planned = [(source, list(_plans(job, source))) for source in feature_sets(find_cached(job), config.fusions)]
    for source, plans in planned:  # what the last one lacks should not cost the work of the first
        for plan in plans:
            if not job.has_row(plan.fingerprint):
                _check_memory(job, source, plan, budget)
    for source, plans in planned:
        _evaluate_on(job, source, plans, budget)
    return [plan.fingerprint for _, plans in planned for plan in plans]


def _evaluate_on(job: Job, source: FeatureSet, plans: Sequence[_Plan], budget: float) -> None:
    splits: dict[str, LabelledFeatures] = {}
    with job.progress.bar(f"{source.backbone} {source.layer}", len(plans)) as advance:
        for plan in plans:
            if job.has_row(plan.fingerprint):
                job.progress.say(f"{plan.method} on {source.backbone} {source.layer}: already in results.csv")
            else:
                splits = splits or _load(job, source, budget)
                _fit(job, source, splits, plan, budget)
            advance(1, plan.method)


def _load(job: Job, source: FeatureSet, budget: float) -> dict[str, LabelledFeatures]:
    """Read the features of all splits, or put them on disk where they do not fit the memory."""
    needed = needed_bytes(sum(map(source.n_rows, source.splits)), source.width)
    if needed <= budget:
        return {name: source.load(name) for name in source.splits}
    job.progress.say(
        f"{source.backbone} {source.layer}: {needed / 1e9:.3g} GB with copies is beyond the {budget / 1e9:.3g} GB that "
        "features may take; they are read from disk in blocks of rows"
    )
    return load_on_disk(source, job.cache_dir, budget)


def _check_memory(job: Job, source: FeatureSet, plan: _Plan, budget: float) -> None:
    config = job.experiment.evaluate
    check_memory(
        plan.method,
        candidates(plan.method, config),
        plan.steps,
        config,
        features=f"{source.backbone} {source.layer}",
        shape=(_rows_of(source, plan), source.width),
        budget=budget,
    )


def _rows_of(source: FeatureSet, plan: _Plan) -> int:
    return len(plan.subset.indices) + sum(source.n_rows(name) for name in source.splits if name != "train")


def _plans(job: Job, source: FeatureSet) -> Iterator[_Plan]:
    config = job.experiment.evaluate
    labels, _ = source.labels("train")
    for method, steps in product(config.classifiers, config.steps):
        spec = get_classifier(method)
        for subset in train_subsets(
            labels, config.train_sizes, config.repeats, job.experiment.seed, seeded=spec.seeded
        ):
            content = source.content() | {
                "method": method,
                "selection": config.selection,
                "folds": config.folds,
                "candidates": candidates(method, config),
                "engine": fit_engine(method, candidates(method, config), config),
                "subset": [subset.size, subset.repeat],
                "seed": subset.seed,
                "version": featbench.__version__,
            }
            extra = {"steps": list(steps), "source": spec.source}
            content |= {key: value for key, value in extra.items() if value}
            yield _Plan(method, steps, subset, fingerprint(content))


def _fit(job: Job, source: FeatureSet, splits: Mapping[str, LabelledFeatures], plan: _Plan, budget: float) -> None:
    classes = job.dataset.classes
    splits = {**splits, "train": splits["train"].take(plan.subset.indices)}
    if needed_bytes(_rows_of(source, plan), source.width) <= budget:
        splits = {name: split.in_memory() for name, split in splits.items()}
    train, test = splits["train"], splits["test"]
    device = _device(job, source, plan, train)
    with gpu_memory_named(plan.method):
        fitted = fit_and_test(
            plan.method,
            train,
            splits.get("val"),
            test,
            job.experiment.evaluate,
            plan.subset.seed,
            len(classes),
            plan.steps,
            device,
        )
    row = _row(job, source, fitted, plan, train.X.shape[1], device)
    try:
        save_model(job.results_dir, row, fitted.model)
    except NotKeptError as error:
        row = replace(row, params=params_json(json.loads(row.params) | {"model_not_kept": str(error)}))
        job.progress.warn(f"the model of {plan.method} on {source.backbone} {source.layer} is not kept: {error}")
    else:
        write_card(
            job.results_dir,
            row,
            classes=job.dataset.classes,
            seed=job.experiment.seed,
            array_shape=job.dataset.array_shape,
            temperature=fitted.temperature,
            **source.card(),
        )
    write_predictions(job.results_dir, row, test.ids, test.y, fitted.predicted, fitted.scores, classes)
    write_rows(job.results_dir, [row])  # last, so that a row's files are there when the row is
    if fitted.converged is False:
        job.progress.warn(f"{plan.method} on {source.backbone} {source.layer} did not converge; its row says so")


def _device(job: Job, source: FeatureSet, plan: _Plan, train: LabelledFeatures) -> str:
    """Return where to fit a classifier; rows that stay on disk are for the CPU."""
    config = job.experiment.evaluate
    wanted = has_gpu_solver(plan.method, candidates(plan.method, config), config)
    if job.device.type == "cpu" or not wanted or isinstance(train.X, StreamedRows):
        return "cpu"
    if not fits_gpu(job.device, (_rows_of(source, plan), source.width)):
        job.progress.say(
            f"{plan.method} on {source.backbone} {source.layer} is fitted on the CPU: its rows do not fit the GPU"
        )
        return "cpu"
    return str(job.device)


def _row(job: Job, source: FeatureSet, fitted: Fitted, plan: _Plan, width: int, device: str) -> Row:
    return Row(
        experiment=job.experiment.name,
        dataset=job.dataset.name,
        n_classes=len(job.dataset.classes),
        backbone=source.backbone,
        weights=source.weights,
        layer=source.layer,
        pooling=source.pooling,
        feature_dim=width,
        method=plan.method,
        kind="classifier",
        params=params_json(fitted.params | _of_the_fit(fitted, plan)),
        selection=fitted.selection,
        seed=plan.subset.seed,
        n_train=fitted.n_train,
        n_val=fitted.n_val,
        n_test=len(fitted.predicted),
        val_accuracy=fitted.val_accuracy,
        **asdict(fitted.metrics),
        accuracy_low=fitted.interval[0],
        accuracy_high=fitted.interval[1],
        converged=fitted.converged,
        engine=fitted.engine,
        device=device,
        precision=source.precision,
        extract_s=source.extract_s,
        fit_s=fitted.fit_s,
        predict_s=fitted.predict_s,
        fingerprint=plan.fingerprint,
        featbench_version=featbench.__version__,
        created_at=utc_now(),
        steps=label(plan.steps),
    )


def _of_the_fit(fitted: Fitted, plan: _Plan) -> dict[str, int]:
    size = {} if plan.subset.size is None else {IMAGES_PER_CLASS: plan.subset.size}
    return {"candidates": fitted.n_tried, "candidates_not_converged": fitted.n_not_converged, **size}
