"""`featbench baseline`: the reference networks, trained on the same splits as the classifiers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from featbench.baselines.keep import Epoch
from featbench.baselines.learner import Images
from featbench.baselines.processes import Processes, is_helper, started_processes
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
from featbench.results.row import Row
from featbench.runs.resolve import Run
from featbench.runs.rows import make_row
from featbench.runs.trainings import Subset, Training, splits_of, trainings_of


def train(run: Run) -> list[str]:
    """Train the reference networks whose rows are not in results.csv yet.

    Returns:
        The fingerprints of the experiment's baseline rows.

    Raises:
        SystemExit: This process was started to help with one of them, and has done so.
        ResultsError: Such a process failed, or the results folder cannot be written.
        DataError: No image of a split can be read.
    """
    if not run.experiment.baselines:
        return []
    if not is_main_process(run):
        run = replace(run, progress=Silent())
    several = any(each.processes > 1 for each in run.experiment.baselines)
    with started_processes() if several else nullcontext():
        return _train_all(run)


def is_main_process(run: Run) -> bool:
    """Say whether this process is the one that writes; the others help it to train."""
    return all(Processes(each.processes).is_main() for each in run.experiment.baselines)


def _train_all(run: Run) -> list[str]:
    main, helped = is_main_process(run), False
    splits = splits_of(run)
    images: dict[Preprocess, dict[str, tuple[Images, list[str]]]] = {}
    done: dict[str, None] = {}
    for training in trainings_of(run, splits):
        if training.fingerprint in done:
            continue  # two [[backbones]] entries that differ in weights alone share their network from scratch
        done[training.fingerprint] = None
        if not main and training.processes.count == 1:
            continue  # the main process trains it alone
        with _locked(run, training):
            if run.table.has(training.fingerprint):
                run.progress.say(f"{training.title}: already in results.csv")
                continue
            preprocess = training.network.identity.preprocess
            if preprocess not in images:
                batches = {name: _decode(run, split, preprocess) for name, split in splits.items()}
                labels = {name: splits[name].labels[batch.rows] for name, batch in batches.items()}
                reasons = {image.id: image.reason for batch in batches.values() for image in batch.skipped}
                run.images.check_classes(splits, labels, reasons)
                run.images.note({name: batch.notes for name, batch in batches.items()})
                images = {preprocess: {name: _labelled(splits[name], batch) for name, batch in batches.items()}}
                run.images.warn_of_duplicates()
            _train(run, training, images[preprocess])
            training.processes.wait_for_all()  # until the row is there
            helped = not main
    if helped and is_helper():
        raise SystemExit(0)
    return list(done)


@contextmanager
def _locked(run: Run, training: Training) -> Iterator[None]:
    """Wait for another run that trains the same network into the same folder: its checkpoint has one writer."""
    if not training.processes.is_main():
        yield
        return
    path = _checkpoint(run, training).with_suffix(".lock")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = wait_for(path, lambda why: run.progress.say(f"{training.title}: {why}"))
    try:
        yield
        with suppress(OSError):  # the row exists by now, so that whoever gets the lock next has nothing to train
            Path(lock.lock_file).unlink()
    finally:
        lock.release()


def _checkpoint(run: Run, training: Training) -> Path:
    return run.results_dir / "checkpoints" / f"{training.fingerprint}.ckpt"


def _decode(run: Run, split: Split, preprocess: Preprocess) -> Batch:
    batch = read_all(split, preprocess, on_bad_image=run.experiment.dataset.on_bad_image)
    if not len(batch.rows):
        raise DataError(f"none of the {len(split)} images of {split.name} can be read: {batch.skipped[0].reason}")
    run.images.skip(batch.skipped)
    return batch


def _labelled(split: Split, batch: Batch) -> tuple[Images, list[str]]:
    labels = torch.from_numpy(split.labels[batch.rows])
    return Images(batch.images, labels), [split.ids[row] for row in batch.rows]


def _subset_of(train: Images, ids: list[str], subset: Subset) -> Images:
    """Return the images of a subset, without those that cannot be read."""
    rows = torch.tensor([row for row, name in enumerate(ids) if name in subset.ids])
    return Images(train.images[rows], train.labels[rows])


def _train(run: Run, training: Training, data: dict[str, tuple[Images, list[str]]]) -> None:
    images = {name: part for name, (part, _) in data.items()}
    if training.subset is not None:
        images["train"] = _subset_of(*data["train"], training.subset)
    checkpoint = _checkpoint(run, training)
    if checkpoints_of(checkpoint):
        run.progress.say(f"{training.title}: continues from its checkpoint")
    trained = train_network(
        training.network.backbone,
        training.recipe,
        images["train"],
        images["val"],
        images["test"],
        n_classes=len(run.dataset.classes),
        seed=training.seed,
        device=run.device,
        precision=training.precision,
        progress=run.progress,
        checkpoint=checkpoint,
        find_lr=training.find_lr,
        tune=training.tune,
        processes=training.processes,
        spill_dir=run.cache_dir,
    )
    training.network.release()
    gc.collect()  # Lightning's circles of references hold the activations, in memory or on disk
    if not training.processes.is_main():
        return
    labels = images["test"].labels.numpy()
    predicted = trained.probabilities.argmax(1)
    row = _row(run, training, trained, images, labels, predicted)
    _save(run, training, trained, row)
    write_predictions(
        run.results_dir, row, data["test"][1], labels, predicted, trained.probabilities, run.dataset.classes
    )
    run.table.add(row)  # last, so that a row's files are there when the row is
    for file in checkpoints_of(checkpoint):
        file.unlink()
    if not trained.finite:
        run.progress.warn(f"{training.title} diverged; try a smaller lr")


def _row(
    run: Run, training: Training, trained: TrainedNetwork, images: dict[str, Images], labels: Any, predicted: Any
) -> Row:
    return make_row(
        run.experiment.name,
        run.dataset,
        labels,
        predicted,
        params={name: value for name, value in trained.params.items() if value is not None},
        images_per_class=None if training.subset is None else training.subset.size,
        backbone=training.network.name,
        weights=training.network.identity.weights,
        method=training.method,
        kind="baseline",
        selection="holdout",
        seed=training.seed,
        n_train=len(images["train"].labels) + (len(images["val"].labels) if training.recipe.refit else 0),
        n_val=len(images["val"].labels),
        val_accuracy=trained.best.val_accuracy,
        converged=None if trained.finite else False,
        engine="lightning",
        device=str(run.device),
        precision=training.precision,
        fit_s=trained.fit_s,
        predict_s=trained.predict_s,
        fingerprint=training.fingerprint,
    )


def _save(run: Run, training: Training, trained: TrainedNetwork, row: Row) -> None:
    with replacing(artifact_path(run.results_dir, MODELS, row, ".safetensors")) as temporary:
        temporary.write_bytes(safetensors.torch.save({name: t.contiguous() for name, t in trained.state.items()}))
    write_card(
        run.results_dir,
        row,
        classes=run.dataset.classes,
        weights=training.network.identity.source,
        weights_hash=training.network.identity.weights_hash if training.recipe.strategy == "linear_head" else None,
        seed=training.seed,
        preprocess=training.network.identity.preprocess.content(),
        array_shape=run.dataset.array_shape,
        recipe=trained.params,
    )
    columns = [field.name for field in fields(Epoch)]
    rounded = [[f"{v:.6g}" if isinstance(v, float) else v for v in astuple(epoch)] for epoch in trained.history]
    write_csv(artifact_path(run.results_dir, "history", row, ".csv"), columns, rounded)
