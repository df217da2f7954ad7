"""`featbench evaluate`: the classifiers, trained and tested on cached features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import featbench
from featbench.classifiers.engine import fit_engine
from featbench.classifiers.evaluate import Fitted, fit_and_test
from featbench.classifiers.models import save_model
from featbench.classifiers.rows import LabelledFeatures, Subset, train_subsets
from featbench.classifiers.table import candidates, get_classifier
from featbench.features.cache import load_features
from featbench.fingerprint import fingerprint
from featbench.results.cards import write_card
from featbench.results.row import Row, params_json, utc_now
from featbench.results.spread import IMAGES_PER_CLASS
from featbench.results.store import write_predictions, write_rows
from featbench.stages.extract import Cached, find_cached
from featbench.stages.job import Job


@dataclass(frozen=True)
class _Plan:
    """One classifier to train, on a subset of the training rows."""

    method: str
    subset: Subset
    fingerprint: str


def evaluate(job: Job) -> list[str]:
    """Train the classifiers whose rows are not in results.csv yet.

    Returns:
        The fingerprints of the experiment's classifier rows.

    Raises:
        CacheError: Features are missing; the message names the command that makes them.
        DataError: A class has too few images.
    """
    done: list[str] = []
    for cached in find_cached(job) if job.experiment.evaluate.classifiers else []:
        for layer in cached.extraction.layers:
            done += _evaluate_layer(job, cached, layer)
    return done


def _evaluate_layer(job: Job, cached: Cached, layer: str) -> list[str]:
    splits = {}
    for name, key in cached.keys.items():
        X, y, ids = load_features(key.path, layer)
        splits[name] = LabelledFeatures(X, y, tuple(ids))
    plans = list(_plans(job, cached, layer, splits["train"]))
    with job.progress.bar(f"{cached.backbone.name} {layer}", len(plans)) as advance:
        for plan in plans:
            if job.has_row(plan.fingerprint):
                job.progress.say(f"{plan.method} on {cached.backbone.name} {layer}: already in results.csv")
            else:
                _fit(job, cached, layer, splits, plan)
            advance(1, plan.method)
    return [plan.fingerprint for plan in plans]


def _plans(job: Job, cached: Cached, layer: str, train: LabelledFeatures) -> Iterator[_Plan]:
    config = job.experiment.evaluate
    for method in config.classifiers:
        seeded = get_classifier(method).seeded
        for subset in train_subsets(train.y, config.train_sizes, config.repeats, job.experiment.seed, seeded=seeded):
            content = {
                "features": {name: key.fingerprint for name, key in cached.keys.items()},
                "layer": layer,
                "method": method,
                "selection": config.selection,
                "folds": config.folds,
                "candidates": candidates(method, config),
                "engine": fit_engine(method, candidates(method, config), config),
                "subset": [subset.size, subset.repeat],
                "seed": subset.seed,
                "version": featbench.__version__,
            }
            yield _Plan(method, subset, fingerprint(content))


def _fit(job: Job, cached: Cached, layer: str, splits: dict[str, LabelledFeatures], plan: _Plan) -> None:
    classes = job.dataset.classes
    train, test = splits["train"].take(plan.subset.indices), splits["test"]
    fitted = fit_and_test(
        plan.method, train, splits.get("val"), test, job.experiment.evaluate, plan.subset.seed, len(classes)
    )
    row = _row(job, cached, layer, fitted, plan, train.X.shape[1])
    save_model(job.results_dir, row, fitted.model)
    write_card(
        job.results_dir,
        row,
        classes=classes,
        weights=cached.backbone.source,
        weights_hash=cached.keys["train"].content["weights"],
        seed=job.experiment.seed,
        preprocess=cached.backbone.preprocess.content(),
        array_shape=job.dataset.array_shape,
        store=cached.extraction.store,
    )
    write_predictions(job.results_dir, row, test.ids, test.y, fitted.predicted, fitted.scores, classes)
    write_rows(job.results_dir, [row])  # last, so that a row's files are there when the row is
    if fitted.converged is False:
        job.progress.warn(f"{plan.method} on {cached.backbone.name} {layer} did not converge; its row says so")


def _row(job: Job, cached: Cached, layer: str, fitted: Fitted, plan: _Plan, width: int) -> Row:
    return Row(
        experiment=job.experiment.name,
        dataset=job.dataset.name,
        n_classes=len(job.dataset.classes),
        backbone=cached.backbone.name,
        weights=cached.backbone.weights,
        layer=layer,
        pooling=cached.extraction.pooling,
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
        device="cpu",
        precision=cached.extraction.precision,
        extract_s=sum(info.extract_s[layer] for info in cached.infos.values()),
        fit_s=fitted.fit_s,
        predict_s=fitted.predict_s,
        fingerprint=plan.fingerprint,
        featbench_version=featbench.__version__,
        created_at=utc_now(),
    )


def _of_the_fit(fitted: Fitted, plan: _Plan) -> dict[str, int]:
    size = {} if plan.subset.size is None else {IMAGES_PER_CLASS: plan.subset.size}
    return {"candidates_not_converged": fitted.n_not_converged, **size}
