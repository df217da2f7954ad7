"""`featbench extract`: the features of every backbone, into the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from featbench.classifiers.rows import check_trainable
from featbench.data.splits import Skipped
from featbench.errors import CacheError
from featbench.features.cache import read_info, read_labels
from featbench.features.extraction import check_layers, extract_split, reuse_split
from featbench.results.feature_files import FeatureFile, write_feature_files
from featbench.runs.feature_sets import CachedNetwork
from featbench.runs.resolve import Run


def extract(run: Run) -> list[CachedNetwork]:
    """Make sure that the cache holds what the experiment needs, and list the images that were left out.

    Raises:
        DataError: Images of some class cannot be read.
    """
    splits = run.dataset.splits
    for plan in run.extractions:  # a wrong layer of the last should not cost the work of the first
        if not plan.is_complete():
            check_layers(plan.network.backbone, plan.extraction, splits["train"])
        for note in plan.network.identity.notes:
            run.progress.say(note)
    cached = []
    for network, extraction, keys in run.extractions:
        infos = {
            name: reuse_split(extraction, keys[name], run.progress)
            or extract_split(split, network.backbone, extraction, keys[name], run.progress)
            for name, split in splits.items()
        }
        network.release()
        cached.append(CachedNetwork(network.identity, extraction, keys, infos))
    run.images.skip(
        Skipped(split, image, reason)
        for entry in cached
        for split, info in entry.infos.items()
        for image, reason in info.skipped
    )
    write_feature_files(run.results_dir, _feature_files(run, cached))
    _check_classes(run, cached)
    run.images.note({split: info.notes for entry in reversed(cached) for split, info in entry.infos.items()})
    run.images.warn_of_duplicates()
    return cached


def _feature_files(run: Run, cached: Sequence[CachedNetwork]) -> Iterator[FeatureFile]:
    for entry in cached:
        for split, info in entry.infos.items():
            for layer in entry.extraction.layers:
                yield FeatureFile(
                    backbone=entry.identity.name,
                    weights=entry.identity.weights,
                    layer=layer,
                    pooling=entry.extraction.pooling_of(layer),
                    split=split,
                    fingerprint=info.fingerprint,
                    path=entry.keys[split].path.relative_to(run.cache_dir).as_posix(),
                    width=info.widths[layer],
                    rows=info.n_rows,
                    seconds=info.extract_s[layer],
                )


def find_cached(run: Run) -> list[CachedNetwork]:
    """Find what `extract` has made, without computing anything.

    Raises:
        CacheError: Some of it is missing; the message names the command that makes it.
        DataError: Images of some class cannot be read.
    """
    cached = []
    for network, extraction, keys in run.extractions:
        infos = {}
        for name, key in keys.items():
            info = read_info(key.path)
            if info is None or any(layer not in info.widths for layer in extraction.layers):
                raise CacheError(
                    f"the features of {network.name} ({name}) are not in {run.cache_dir}; run `featbench extract` "
                    "with the same experiment and options first"
                )
            infos[name] = info
        cached.append(CachedNetwork(network.identity, extraction, keys, infos))
    _check_classes(run, cached)
    return cached


def _check_classes(run: Run, cached: Sequence[CachedNetwork]) -> None:
    """Check the classes again where images could not be read, before a model is made of the others.

    Raises:
        DataError: A split has lost a class, or has too few images of it to train on.
    """
    for entry in cached:
        if any(info.skipped for info in entry.infos.values()):
            labels = {split: read_labels(key.path)[0] for split, key in entry.keys.items()}
            reasons = dict(skipped for info in entry.infos.values() for skipped in info.skipped)
            run.images.check_classes(run.dataset.splits, labels, reasons)
            check_trainable(
                run.classifiers.values(),
                labels["train"],
                run.dataset.classes,
                run.experiment.evaluate,
                labels.get("val"),
            )
