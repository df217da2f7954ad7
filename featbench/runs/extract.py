"""`featbench extract`: the features of every backbone, into the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from featbench.backbones.load import Backbone, load_backbone
from featbench.classifiers.checks import check_trainable
from featbench.data.loader import image_shape
from featbench.data.splits import Skipped
from featbench.errors import CacheError
from featbench.features.cache import CacheInfo, CacheKey, read_info, read_labels
from featbench.features.extraction import Extraction, cache_keys, check_layers, extract_split, extraction_for
from featbench.results.feature_files import FeatureFile, write_feature_files
from featbench.runs.resolve import Job


@dataclass(frozen=True)
class Cached:
    """One `[[backbones]]` entry with the cache files of its splits."""

    backbone: Backbone
    extraction: Extraction
    keys: Mapping[str, CacheKey]
    infos: Mapping[str, CacheInfo]


def extract(job: Job) -> list[Cached]:
    """Make sure that the cache holds what the experiment needs, and list the images that were left out.

    Raises:
        DataError: Images of some class cannot be read.
    """
    plans = list(_plans(job))
    for backbone, extraction, _ in plans:  # a wrong layer of the last backbone should not cost the work of the first
        check_layers(backbone, extraction, job.dataset.splits["train"])
    for backbone, _, _ in plans:
        job.tell(backbone.notes)
    cached = []
    for backbone, extraction, keys in plans:
        infos = {
            name: extract_split(split, backbone, extraction, keys[name], job.progress)
            for name, split in job.dataset.splits.items()
        }
        cached.append(Cached(backbone, extraction, keys, infos))
    job.leave_out(
        Skipped(split, image, reason)
        for entry in cached
        for split, info in entry.infos.items()
        for image, reason in info.skipped
    )
    write_feature_files(job.results_dir, _feature_files(job, cached))
    _check_classes(job, cached)
    job.note({split: info.notes for entry in reversed(cached) for split, info in entry.infos.items()})
    job.warn_of_duplicates()
    return cached


def _feature_files(job: Job, cached: Sequence[Cached]) -> Iterator[FeatureFile]:
    for entry in cached:
        for split, info in entry.infos.items():
            for layer in entry.extraction.layers:
                yield FeatureFile(
                    backbone=entry.backbone.name,
                    weights=entry.backbone.weights,
                    layer=layer,
                    pooling=entry.extraction.pooling_of(layer),
                    split=split,
                    fingerprint=info.fingerprint,
                    path=entry.keys[split].path.relative_to(job.cache_dir).as_posix(),
                    width=info.widths[layer],
                    rows=info.n_rows,
                    seconds=info.extract_s[layer],
                )


def find_cached(job: Job) -> list[Cached]:
    """Find what `extract` has made, without running a network.

    Raises:
        CacheError: Some of it is missing; the message names the command that makes it.
        DataError: Images of some class cannot be read.
    """
    cached = []
    for backbone, extraction, keys in _plans(job):
        infos = {}
        for name, key in keys.items():
            info = read_info(key.path)
            if info is None or any(layer not in info.widths for layer in extraction.layers):
                raise CacheError(
                    f"the features of {backbone.name} ({name}) are not in {job.cache_dir}; run `featbench extract` "
                    "with the same experiment and options first"
                )
            infos[name] = info
        cached.append(Cached(backbone, extraction, keys, infos))
    _check_classes(job, cached)
    return cached


def _check_classes(job: Job, cached: Sequence[Cached]) -> None:
    """Check the classes again where images could not be read, before a model is made of what is left.

    Raises:
        DataError: A split has lost a class, or has too few images of it to train on.
    """
    for entry in cached:
        if any(info.skipped for info in entry.infos.values()):
            labels = {split: read_labels(key.path)[0] for split, key in entry.keys.items()}
            reasons = dict(skipped for info in entry.infos.values() for skipped in info.skipped)
            job.check_decoded(job.dataset.splits, labels, reasons)
            check_trainable(labels["train"], job.dataset.classes, job.experiment.evaluate, labels.get("val"))


def _plans(job: Job) -> Iterator[tuple[Backbone, Extraction, dict[str, CacheKey]]]:
    for config in job.experiment.backbones:
        backbone = load_backbone(config, seed=job.experiment.seed, offline=job.offline, channels=job.dataset.channels)
        shape = image_shape(job.dataset.splits["train"], backbone.preprocess)
        extraction = extraction_for(backbone, config, shape, job.device, job.experiment.dataset.on_bad_image)
        yield backbone, extraction, cache_keys(job.dataset, backbone, extraction, job.cache_dir)
