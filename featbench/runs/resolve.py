"""What every stage of a run shares: the experiment, where its files go, and the data set."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np
import tomli_w
import torch

import featbench
from featbench.backbones.load import check_backbone
from featbench.baselines.launch import check_can_start
from featbench.classifiers.checks import check_trainable
from featbench.classifiers.registry import check_grids
from featbench.config import Experiment
from featbench.config.toml import read_toml
from featbench.data.datasets import check_dataset, load_dataset
from featbench.data.duplicates import describe_duplicates
from featbench.data.notes import NOTES, Notes, add_notes
from featbench.data.splits import Dataset, Labels, Skipped, Split
from featbench.errors import DataError, UsageError
from featbench.progress import Progress, Silent
from featbench.results.files import write_text
from featbench.results.images import write_notes, write_skipped
from featbench.results.store import RESULTS_CSV, load_results, prepare_folder

EXPERIMENT = "experiment.toml"
_PACKAGES = ("h5py", "lightning", "numpy", "pandas", "pillow", "scikit-learn", "torchvision")


@dataclass(frozen=True)
class Job:
    """One run of an experiment.

    Attributes:
        experiment: What to do.
        results_dir: This run's own folder.
        cache_dir: Where feature caches are kept, shared by all runs.
        data_dir: torchvision's root for data sets.
        device: Where networks run.
        offline: Forbids downloads.
        progress: Takes messages and progress.
    """

    experiment: Experiment
    results_dir: Path
    cache_dir: Path
    data_dir: Path
    device: torch.device
    offline: bool = False
    progress: Progress = field(default_factory=Silent)
    _left_out: dict[str, Skipped] = field(default_factory=dict)
    _notes: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, read when it is first needed."""
        config = self.experiment.dataset
        memo_dir = self.cache_dir / ".hashes"
        return load_dataset(config, self.data_dir, seed=self.experiment.seed, offline=self.offline, memo_dir=memo_dir)

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
        self.tell(self.dataset.remarks)
        content = self.experiment.model_dump(mode="json", exclude_none=True)
        write_text(self.results_dir / EXPERIMENT, tomli_w.dumps(content))
        write_text(self.results_dir / "environment.json", json.dumps(self._environment(), indent=2) + "\n")

    def check_names(self) -> None:
        """Check names and settings; nothing is read.

        Raises:
            UsageError: One is wrong.
        """
        check_dataset(self.experiment.dataset)
        for backbone in self.experiment.backbones:
            check_backbone(backbone)
        check_grids(self.experiment.evaluate)
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
            return  # there is none, or nothing can be told from it
        mine, others = _which(self.experiment.dataset.model_dump(mode="json")), _which(before)
        if others is not None and mine != others:
            raise UsageError(
                f"{self.results_dir} holds the results of another data set, {others}, and this is {mine}: choose "
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
        check_trainable(splits["train"].labels, self.dataset.classes, self.experiment.evaluate, val_labels)

    def new_remarks(self) -> list[str]:
        """Return what was decided about the data set that the user may not expect; once."""
        return self._untold(self.dataset.remarks)

    def leave_out(self, skipped: Iterable[Skipped]) -> None:
        """Write skipped.csv: the files that the data set left out, and these images; say so when there are more."""
        count = len(self._left_out)
        for image in (*self.dataset.skipped, *skipped):
            self._left_out.setdefault(image.id, image)
        rows = [(image.split, image.id, image.reason) for image in self._left_out.values()]
        path = write_skipped(self.results_dir, rows)
        if len(rows) > count:
            files = "1 file was" if len(rows) == 1 else f"{len(rows)} files were"
            self.progress.warn(f"{files} left out; {path} says which and why")

    def check_decoded(
        self, splits: Mapping[str, Split], labels: Mapping[str, Labels], reasons: Mapping[str, str]
    ) -> None:
        """Check that every class is still there where images of it cannot be read.

        Args:
            splits: With all images.
            labels: Of those that were read.
            reasons: Why others were not, by id.

        Raises:
            DataError: A split has lost a class.
        """
        for name, split in splits.items():
            for label in np.setdiff1d(split.labels, labels[name]):
                ids = [split.ids[row] for row in np.flatnonzero(split.labels == label)]
                why = f"{ids[0]}: {reasons.get(ids[0], 'left out')}"
                raise DataError(
                    f"no image of class {self.dataset.classes[label]!r} in {name} can be read, of {len(ids)} ({why}); "
                    "add some that can, or leave the class out: a folder whose name begins with a dot is not read"
                )

    def note(self, found: Mapping[str, Notes]) -> None:
        """Write notes.csv: what is said of the images of each split; say so, once, with the count.

        Where the data set has no val, images held out for it are those of train.
        """
        by_split: dict[str, Notes] = {}
        for split, notes in found.items():
            name = split if split in self.dataset.splits else "train"
            by_split[name] = add_notes(by_split.get(name, {}), notes)
        for split, notes in by_split.items():
            for kind, counted in notes.items():
                if kind in NOTES:  # a later version may know more
                    self._notes.setdefault((split, kind), counted)
        rows = [(split, NOTES[kind], *counted) for (split, kind), counted in self._notes.items()]
        path = write_notes(self.results_dir, rows)
        for kind in dict.fromkeys(kind for _, kind in self._notes):
            count, example = add_notes(*({k: of} for (_, k), of in self._notes.items()))[kind]
            images = "1 image is" if count == 1 else f"{count:,} images are"
            self._warn([f"{images} {NOTES[kind]} (the first: {example}; {path.name} counts them)"])

    def warn_of_duplicates(self) -> None:
        """Warn, once, of images that are in two splits or under two classes; call it when all were read."""
        self._warn(describe_duplicates(self.dataset.splits, self._left_out))

    def tell(self, sentences: Iterable[str]) -> None:
        """Say each of some sentences, once in a run."""
        for sentence in self._untold(sentences):
            self.progress.say(sentence)

    def _warn(self, sentences: Iterable[str]) -> None:
        for sentence in self._untold(sentences):
            self.progress.warn(sentence)

    def _untold(self, sentences: Iterable[str]) -> list[str]:
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._told]
        self._told.update(new)
        return new

    def has_row(self, fingerprint: str) -> bool:
        """Say whether results.csv has the row with this fingerprint already."""
        if not (self.results_dir / RESULTS_CSV).exists():
            return False
        return bool((load_results(self.results_dir)["fingerprint"] == fingerprint).any())

    def _environment(self) -> dict[str, object]:
        cuda = self.device.type == "cuda"
        return {
            "versions": {"featbench": featbench.__version__, "torch": torch.__version__}
            | {name: metadata.version(name) for name in _PACKAGES},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name(self.device) if cuda else platform.machine(),
            "cpu_threads": torch.get_num_threads(),
            "git_commit": _git_commit(),
        }


def _which(dataset: object) -> str | None:
    """Return which data set a `[dataset]` table means: its name or, of a folder, its path."""
    if not isinstance(dataset, dict) or not isinstance(dataset.get("name"), str):
        return None
    root = dataset.get("root")
    return os.path.realpath(root) if isinstance(root, str) else str(dataset["name"])


def _git_commit() -> str | None:
    """Return the commit of featbench's own checkout; None where it is installed otherwise."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return None
    return done.stdout.strip() or None
