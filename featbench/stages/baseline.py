"""`featbench baseline`: the reference networks, trained on the same splits as the classifiers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import safetensors.torch
import torch

import featbench
from featbench.backbones.load import RANDOM, Backbone, load_backbone
from featbench.baselines.keep import Epoch
from featbench.baselines.learner import Images
from featbench.baselines.strategies import STRATEGIES, Recipe, make_recipe
from featbench.baselines.train import TrainedNetwork, train_network
from featbench.config import BackboneConfig, BaselineConfig
from featbench.data.loader import read_all
from featbench.data.preprocess import Preprocess
from featbench.data.splits import Split, held_out_rows
from featbench.errors import DataError
from featbench.fingerprint import fingerprint
from featbench.results.cards import MODELS, write_card
from featbench.results.files import replacing, write_csv
from featbench.results.metrics import classification_metrics, wilson_interval
from featbench.results.row import Row, params_json, utc_now
from featbench.results.store import artifact_path, write_predictions, write_rows
from featbench.stages.job import Job


@dataclass(frozen=True)
class _Plan:
    """One network to train."""

    backbone: Backbone
    config: BackboneConfig
    recipe: Recipe
    method: str
    seed: int
    weights_hash: str
    fingerprint: str

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.method} of {self.backbone.name}"


def baseline(job: Job) -> list[str]:
    """Train the reference networks whose rows are not in results.csv yet.

    Returns:
        The fingerprints of the experiment's baseline rows.
    """
    if not job.experiment.baselines:
        return []
    splits = _splits(job)
    digests = {name: split.digest() for name, split in splits.items()}
    images: dict[Preprocess, dict[str, tuple[Images, list[str]]]] = {}
    done: dict[str, None] = {}
    for plan in _plans(job, splits, digests):
        if plan.fingerprint in done:
            continue  # the same network asked for by two [[backbones]] entries, as scratch is
        done[plan.fingerprint] = None
        if job.has_row(plan.fingerprint):
            job.progress.say(f"{plan.title}: already in results.csv")
            continue
        preprocess = plan.backbone.preprocess
        if preprocess not in images:
            images = {preprocess: {name: _decode(job, split, preprocess) for name, split in splits.items()}}
            job.warn_of_duplicates()
        _train(job, plan, images[preprocess])
    return list(done)


def _splits(job: Job) -> dict[str, Split]:
    """Return train, val and test; where the data set has no val, one is held out of train."""
    splits = dict(job.dataset.splits)
    if "val" not in splits:
        train = splits["train"]
        kept, held = held_out_rows(train.labels, job.experiment.dataset.val_fraction, job.experiment.seed)
        splits |= {"train": train.subset(kept), "val": train.subset(held, "val")}
    return splits


def _plans(job: Job, splits: dict[str, Split], digests: dict[str, str]) -> Iterator[_Plan]:
    for config in job.experiment.backbones:
        for asked in job.experiment.baselines:
            if config.name == "pixels" or asked.backbone not in (None, config.name):
                continue
            for repeat in range(asked.repeats):
                yield _plan(job, config, asked, job.experiment.seed + repeat, splits, digests)


def _plan(
    job: Job,
    config: BackboneConfig,
    asked: BaselineConfig,
    seed: int,
    splits: dict[str, Split],
    digests: dict[str, str],
) -> _Plan:
    if not STRATEGIES[asked.strategy].pretrained:
        config = config.model_copy(update={"weights": RANDOM})
    backbone = load_backbone(config, seed=seed, offline=job.offline, channels=job.dataset.channels)
    recipe = make_recipe(asked, len(splits["train"]), job.experiment.dataset.name)
    weights_hash = backbone.weights_hash()
    content = {
        "backbone": backbone.name,
        "weights": weights_hash,
        "preprocess": backbone.preprocess.content(),
        "precision": _precision(config),
        "rows": digests,
        "recipe": asdict(recipe),
        "seed": seed,
        "version": featbench.__version__,
    }
    if asked.label is not None:
        content["label"] = asked.label
    return _Plan(backbone, config, recipe, asked.method, seed, weights_hash, fingerprint(content))


def _precision(config: BackboneConfig) -> Any:
    return "bfloat16" if config.precision == "bfloat16" else "float32"


def _decode(job: Job, split: Split, preprocess: Preprocess) -> tuple[Images, list[str]]:
    batch = read_all(split, preprocess, on_bad_image=job.experiment.dataset.on_bad_image)
    if not len(batch.rows):
        raise DataError(f"none of the {len(split)} images of {split.name} can be read: {batch.skipped[0].reason}")
    job.leave_out(batch.skipped)
    labels = torch.from_numpy(split.labels[batch.rows])
    return Images(batch.images, labels), [split.ids[row] for row in batch.rows]


def _train(job: Job, plan: _Plan, data: dict[str, tuple[Images, list[str]]]) -> None:
    images = {name: part for name, (part, _) in data.items()}
    checkpoint = job.results_dir / "checkpoints" / f"{plan.fingerprint}.ckpt"
    if checkpoint.exists():
        job.progress.say(f"{plan.title}: goes on from its last checkpoint")
    trained = train_network(
        plan.backbone,
        plan.recipe,
        images["train"],
        images["val"],
        images["test"],
        n_classes=len(job.dataset.classes),
        seed=plan.seed,
        device=job.device,
        precision=_precision(plan.config),
        progress=job.progress,
        checkpoint=checkpoint,
    )
    labels = images["test"].labels.numpy()
    predicted = trained.probabilities.argmax(1)
    row = _row(job, plan, trained, images, labels, predicted)
    _save(job, plan, trained, row)
    write_predictions(
        job.results_dir, row, data["test"][1], labels, predicted, trained.probabilities, job.dataset.classes
    )
    write_rows(job.results_dir, [row])  # last, so that a row's files are there when the row is
    checkpoint.unlink()
    if not trained.finite:
        job.progress.warn(f"{plan.title} diverged; try a smaller lr")


def _row(job: Job, plan: _Plan, trained: TrainedNetwork, images: dict[str, Images], labels: Any, predicted: Any) -> Row:
    metrics = classification_metrics(labels, predicted, len(job.dataset.classes))
    low, high = wilson_interval(int((labels == predicted).sum()), len(labels))
    return Row(
        experiment=job.experiment.name,
        dataset=job.dataset.name,
        n_classes=len(job.dataset.classes),
        backbone=plan.backbone.name,
        weights=plan.backbone.weights,
        method=plan.method,
        kind="baseline",
        params=params_json({name: value for name, value in trained.params.items() if value is not None}),
        selection="holdout",
        seed=plan.seed,
        n_train=len(images["train"].labels),
        n_val=len(images["val"].labels),
        n_test=len(labels),
        val_accuracy=trained.best.val_accuracy,
        **asdict(metrics),
        accuracy_low=low,
        accuracy_high=high,
        converged=None if trained.finite else False,
        engine="lightning",
        device=str(job.device),
        precision=_precision(plan.config),
        fit_s=trained.fit_s,
        predict_s=trained.predict_s,
        fingerprint=plan.fingerprint,
        featbench_version=featbench.__version__,
        created_at=utc_now(),
    )


def _save(job: Job, plan: _Plan, trained: TrainedNetwork, row: Row) -> None:
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
