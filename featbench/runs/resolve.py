"""From an experiment to a `Run`: what every stage, the plan and the pictures read, each looked up once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w
import torch

from featbench.backbones.device import resolve_device
from featbench.backbones.identity import KnownNetworks, Network
from featbench.backbones.load import check_backbone
from featbench.backbones.weights import BUNDLED, available_backbone
from featbench.baselines.processes import check_can_start
from featbench.classifiers.params import check_grids
from featbench.classifiers.registry import get_classifier
from featbench.classifiers.rows import check_trainable
from featbench.classifiers.spec import ClassifierSpec
from featbench.config import BackboneConfig, Experiment, is_folder, load_experiment
from featbench.config.toml import read_toml
from featbench.data.datasets import check_dataset, load_dataset
from featbench.data.splits import Dataset
from featbench.errors import UsageError
from featbench.features.cache import CacheKey, read_info
from featbench.features.extraction import Extraction, cache_keys, extraction_for
from featbench.places import data_sets, expand_user, feature_caches
from featbench.progress import Progress, Silent
from featbench.results.files import write_text
from featbench.results.store import ResultsTable, prepare_folder
from featbench.runs.environment import write_environment
from featbench.runs.image_report import ImageReport

EXPERIMENT = "experiment.toml"
_MORE_OF_BUNDLED = ('backbones.0.layers=["layer2", "layer3"]', "backbones.0.pooling=avg:4")  # its last layer is narrow


class PlannedExtraction(NamedTuple):
    """The features that one `[[backbones]]` entry asks for, and the cache file of each split."""

    network: Network
    extraction: Extraction
    keys: Mapping[str, CacheKey]

    def is_complete(self) -> bool:
        """Say whether the cache holds all of it."""
        infos = [read_info(key.path) for key in self.keys.values()]
        return all(info is not None and {*self.extraction.layers} <= {*info.widths} for info in infos)


@dataclass(frozen=True)
class Run:
    """One run of an experiment. What it consists of is looked up when it is first read, and kept.

    Attributes:
        experiment: What to do.
        results_dir: This run's own folder.
        cache_dir: Where feature caches are kept, shared by all runs.
        data_dir: torchvision's root for data sets.
        device: Where networks run.
        offline: Forbids downloads.
        progress: Takes messages and progress; `OnceOnly` says nothing twice.
    """

    experiment: Experiment
    results_dir: Path
    cache_dir: Path
    data_dir: Path
    device: torch.device
    offline: bool = False
    progress: Progress = field(default_factory=Silent)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set."""
        config = self.experiment.dataset
        memo_dir = self.cache_dir / ".hashes"
        return load_dataset(config, self.data_dir, seed=self.experiment.seed, offline=self.offline, memo_dir=memo_dir)

    @cached_property
    def images(self) -> ImageReport:
        """What was found out about the images of the data set."""
        return ImageReport(self.dataset, self.results_dir, self.progress)

    @cached_property
    def table(self) -> ResultsTable:
        """results.csv: the rows that exist, and where new ones go."""
        return ResultsTable(self.results_dir)

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The network of each `[[backbones]]` entry."""
        return tuple(self.network(config, self.experiment.seed) for config in self.experiment.backbones)

    @cached_property
    def extractions(self) -> tuple[PlannedExtraction, ...]:
        """The features of each `[[backbones]]` entry, with their cache files.

        Raises:
            UsageError: A layer does not exist, or cannot be pooled so.
            WeightsError: The weights of a network are missing or do not fit.
        """
        on_bad_image = self.experiment.dataset.on_bad_image
        planned = []
        for network in self.networks:
            extraction = extraction_for(network.config, network.layers, self.device, on_bad_image)
            keys = cache_keys(self.dataset, network.identity, extraction, self.cache_dir)
            planned.append(PlannedExtraction(network, extraction, keys))
        return tuple(planned)

    def network(self, config: BackboneConfig, seed: int) -> Network:
        """Return a network for the images of the data set; the seed draws its weights where they are random."""
        dataset = self.dataset
        return Network(config, dataset.splits["train"], dataset.channels, seed, self.offline, self._known_networks)

    @cached_property
    def _known_networks(self) -> KnownNetworks:
        return KnownNetworks(self.cache_dir / ".networks")

    @cached_property
    def classifiers(self) -> dict[str, ClassifierSpec]:
        """The classifiers of the experiment, by name; a user's own is imported when they are first needed."""
        return {name: get_classifier(name) for name in self.experiment.evaluate.classifiers}

    def prepare(self) -> None:
        """Refuse what cannot work before any work is done, and write down what is about to be done.

        Raises:
            UsageError: A name or a setting is wrong, or the results folder is another data set's.
            DataError: The images are missing or too few.
            ResultsError: The results folder cannot be written.
        """
        self.check_names()
        self.check_results_folder()
        self.check_images()  # first: the results folder may lie among the images, and is known by what is in it
        prepare_folder(self.results_dir)
        content = self.experiment.model_dump(mode="json", exclude_none=True)
        write_text(self.results_dir / EXPERIMENT, tomli_w.dumps(content))
        write_environment(self.results_dir, self.device)

    def check_names(self) -> None:
        """Check names and settings; nothing is read.

        Raises:
            UsageError: One is wrong.
        """
        check_dataset(self.experiment.dataset)
        for backbone in self.experiment.backbones:
            check_backbone(backbone)
        check_grids(self.classifiers.values(), self.experiment.evaluate)
        for baseline in self.experiment.baselines:
            check_can_start(baseline.devices)

    def check_results_folder(self) -> None:
        """Refuse a results folder of another data set, whose tables this run would replace.

        Raises:
            UsageError: It is one.
        """
        written = self.results_dir / EXPERIMENT
        try:
            before = read_toml(written).get("dataset")
        except UsageError:
            return  # there is none, or it is damaged
        mine, other = _which(self.experiment.dataset.model_dump(mode="json")), _which(before)
        if other is not None and mine != other:
            raise UsageError(
                f"{self.results_dir} holds the results of another data set, {other}, and this is {mine}: choose "
                f"another folder with --results DIR; where the same images only moved, remove {written} and run again"
            )

    def check_images(self) -> None:
        """Check that there are the images that every fit needs.

        Raises:
            UsageError: A training size is larger than a class.
            DataError: Images are missing or too few.
        """
        splits = self.dataset.splits
        val_labels = splits["val"].labels if "val" in splits else None
        check_trainable(
            self.classifiers.values(),
            splits["train"].labels,
            self.dataset.classes,
            self.experiment.evaluate,
            val_labels,
        )


def resolve(
    experiment: str | Path | Mapping[str, Any] | Experiment,
    *,
    results: str | Path | None = None,
    cache: str | Path | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
    offline: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Make a `Run` from the arguments of `featbench.run`; nothing is read or written but the experiment.

    A folder of images takes the pretrained backbone that is at hand, unless an override names one.

    Raises:
        UsageError: The experiment or an argument is wrong.
    """
    progress = progress or Silent()
    if is_folder(experiment) and not any(override.startswith("backbones") for override in overrides):
        name, why = available_backbone(offline=offline)
        progress.say(f"backbone     {name}: {why}; --set backbones.0.name=NAME takes another")
        overrides = [*(_MORE_OF_BUNDLED if name == BUNDLED else ()), f"backbones.0.name={name}", *overrides]
    loaded = load_experiment(experiment, overrides)
    return Run(
        experiment=loaded,
        results_dir=expand_user(results) if results is not None else Path("results") / loaded.name,
        cache_dir=feature_caches(cache),
        data_dir=data_sets(data),
        device=resolve_device(device),
        offline=offline,
        progress=progress,
    )


def _which(dataset: object) -> str | None:
    """Return which data set a `[dataset]` table means: its name or, of a folder, its path."""
    if not isinstance(dataset, dict) or not isinstance(dataset.get("name"), str):
        return None
    root = dataset.get("root")
    return os.path.realpath(root) if isinstance(root, str) else str(dataset["name"])
