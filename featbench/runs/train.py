"""`featbench baseline`: the reference networks, trained on the same splits as the classifiers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, astuple, fields, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import featbench
from featbench.baselines.keep import Epoch
from featbench.baselines.launch import is_helper, started_processes
from featbench.baselines.learner import Images
from featbench.baselines.processes import Processes
from featbench.baselines.train import TrainedNetwork, checkpoints_of, train_network
from featbench.data.loader import Batch, read_all
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split
from featbench.errors import DataError
from featbench.locks import wait_for
from featbench.progress import Silent
from featbench.results.artifacts import artifact_path, write_predictions
from featbench.results.cards import MODELS, write_card
from featbench.results.files import replacing, write_csv, writing_to
from featbench.results.row import Row, params_json, utc_now
from featbench.results.store import write_rows
from featbench.runs.resolve import Job
from featbench.runs.trainings import Plan, Subset, plans_of, splits_of
from featbench.stats.metrics import classification_metrics, wilson_interval
from featbench.stats.spread import IMAGES_PER_CLASS


def baseline(job: Job) -> list[str]:
    """Train the reference networks whose rows are not in results.csv yet.

    Returns:
        The fingerprints of the experiment's baseline rows.

    Raises:
        SystemExit: This process was started to help with one of them, and has done so.
        ResultsError: Such a process failed, or the results folder cannot be written.
        DataError: No image of a split can be read.
    """
    if not job.experiment.baselines:
        return []
    if not is_main(job):
        job = replace(job, progress=Silent())
    several = any(each.processes > 1 for each in job.experiment.baselines)
    with started_processes() if several else nullcontext():
        return _train_all(job)


def is_main(job: Job) -> bool:
    """Say whether this process is the one that writes; the others help it to train."""
    return all(Processes(each.processes).is_main() for each in job.experiment.baselines)


def _train_all(job: Job) -> list[str]:
    helps = not is_main(job)
    helped = False
    splits = splits_of(job)
    images: dict[Preprocess, dict[str, tuple[Images, list[str]]]] = {}
    done: dict[str, None] = {}
    for plan in plans_of(job, splits):
        if plan.fingerprint in done:
            continue  # the same network asked for by two [[backbones]] entries, as scratch is
        done[plan.fingerprint] = None
        if helps and plan.processes.count == 1:
            continue
        with _alone(job, plan):
            if job.has_row(plan.fingerprint):
                job.progress.say(f"{plan.title}: already in results.csv")
                continue
            preprocess = plan.backbone.preprocess
            if preprocess not in images:
                batches = {name: _decode(job, split, preprocess) for name, split in splits.items()}
                labels = {name: splits[name].labels[batch.rows] for name, batch in batches.items()}
                reasons = {image.id: image.reason for batch in batches.values() for image in batch.skipped}
                job.check_decoded(splits, labels, reasons)
                job.note({name: batch.notes for name, batch in batches.items()})
                images = {preprocess: {name: _labelled(splits[name], batch) for name, batch in batches.items()}}
                job.warn_of_duplicates()
            _train(job, plan, images[preprocess])
            plan.processes.wait_for_all()  # until the row is there
            helped = helps
    if helped and is_helper():
        raise SystemExit(0)
    return list(done)


@contextmanager
def _alone(job: Job, plan: Plan) -> Iterator[None]:
    """Wait for another run that trains the same network into the same folder: its checkpoint has one writer."""
    if not plan.processes.is_main():
        yield
        return
    path = _checkpoint(job, plan).with_suffix(".lock")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = wait_for(path, lambda why: job.progress.say(f"{plan.title}: {why}"))
    try:
        yield
        with suppress(OSError):  # the row is there: whoever waits for this file or makes another has nothing to train
            Path(lock.lock_file).unlink()
    finally:
        lock.release()


def _checkpoint(job: Job, plan: Plan) -> Path:
    return job.results_dir / "checkpoints" / f"{plan.fingerprint}.ckpt"


def _decode(job: Job, split: Split, preprocess: Preprocess) -> Batch:
    batch = read_all(split, preprocess, on_bad_image=job.experiment.dataset.on_bad_image)
    if not len(batch.rows):
        raise DataError(f"none of the {len(split)} images of {split.name} can be read: {batch.skipped[0].reason}")
    job.leave_out(batch.skipped)
    return batch


def _labelled(split: Split, batch: Batch) -> tuple[Images, list[str]]:
    labels = torch.from_numpy(split.labels[batch.rows])
    return Images(batch.images, labels), [split.ids[row] for row in batch.rows]


def _taken(train: Images, ids: list[str], subset: Subset) -> Images:
    """Return the images of a subset, without those that cannot be read."""
    rows = torch.tensor([row for row, name in enumerate(ids) if name in subset.ids])
    return Images(train.images[rows], train.labels[rows])


def _train(job: Job, plan: Plan, data: dict[str, tuple[Images, list[str]]]) -> None:
    images = {name: part for name, (part, _) in data.items()}
    if plan.subset is not None:
        images["train"] = _taken(*data["train"], plan.subset)
    checkpoint = _checkpoint(job, plan)
    if checkpoints_of(checkpoint):
        job.progress.say(f"{plan.title}: goes on from where it was")
    trained = train_network(
        plan.backbone,
        plan.recipe,
        images["train"],
        images["val"],
        images["test"],
        n_classes=len(job.dataset.classes),
        seed=plan.seed,
        device=job.device,
        precision=plan.precision,
        progress=job.progress,
        checkpoint=checkpoint,
        find_lr=plan.find_lr,
        tune=plan.tune,
        processes=plan.processes,
        spill_dir=job.cache_dir,
    )
    gc.collect()  # Lightning's circles of references hold the activations, in memory or on disk
    if not plan.processes.is_main():
        return
    labels = images["test"].labels.numpy()
    predicted = trained.probabilities.argmax(1)
    row = _row(job, plan, trained, images, labels, predicted)
    _save(job, plan, trained, row)
    write_predictions(
        job.results_dir, row, data["test"][1], labels, predicted, trained.probabilities, job.dataset.classes
    )
    write_rows(job.results_dir, [row])  # last, so that a row's files are there when the row is
    for file in checkpoints_of(checkpoint):
        file.unlink()
    if not trained.finite:
        job.progress.warn(f"{plan.title} diverged; try a smaller lr")


def _row(job: Job, plan: Plan, trained: TrainedNetwork, images: dict[str, Images], labels: Any, predicted: Any) -> Row:
    metrics = classification_metrics(labels, predicted, len(job.dataset.classes))
    size = {IMAGES_PER_CLASS: None if plan.subset is None else plan.subset.size}
    low, high = wilson_interval(int((labels == predicted).sum()), len(labels))
    return Row(
        experiment=job.experiment.name,
        dataset=job.dataset.name,
        n_classes=len(job.dataset.classes),
        backbone=plan.backbone.name,
        weights=plan.backbone.weights,
        method=plan.method,
        kind="baseline",
        params=params_json({name: value for name, value in (trained.params | size).items() if value is not None}),
        selection="holdout",
        seed=plan.seed,
        n_train=len(images["train"].labels) + (len(images["val"].labels) if plan.recipe.refit else 0),
        n_val=len(images["val"].labels),
        n_test=len(labels),
        val_accuracy=trained.best.val_accuracy,
        **asdict(metrics),
        accuracy_low=low,
        accuracy_high=high,
        converged=None if trained.finite else False,
        engine="lightning",
        device=str(job.device),
        precision=plan.precision,
        fit_s=trained.fit_s,
        predict_s=trained.predict_s,
        fingerprint=plan.fingerprint,
        featbench_version=featbench.__version__,
        created_at=utc_now(),
    )


def _save(job: Job, plan: Plan, trained: TrainedNetwork, row: Row) -> None:
    with replacing(artifact_path(job.results_dir, MODELS, row, ".safetensors")) as temporary:
        temporary.write_bytes(safetensors.torch.save({name: t.contiguous() for name, t in trained.state.items()}))
    write_card(
        job.results_dir,
        row,
        classes=job.dataset.classes,
        weights=plan.backbone.source,
        weights_hash=plan.weights_hash if plan.recipe.strategy == "linear_head" else None,
        seed=plan.seed,
        preprocess=plan.backbone.preprocess.content(),
        array_shape=job.dataset.array_shape,
        recipe=trained.params,
    )
    columns = [field.name for field in fields(Epoch)]
    rounded = [[f"{v:.6g}" if isinstance(v, float) else v for v in astuple(epoch)] for epoch in trained.history]
    write_csv(artifact_path(job.results_dir, "history", row, ".csv"), columns, rounded)
