"""What a run found out about the images: which were left out, what is noted of others, which are there twice.

Stages report what they decode; skipped.csv and notes.csv hold all of it, and each warning is shown once a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from featbench.data.duplicates import describe_duplicates
from featbench.data.notes import NOTES, Notes, add_notes
from featbench.data.splits import Dataset, Labels, Skipped, Split
from featbench.errors import DataError
from featbench.progress import Progress
from featbench.results.images import write_notes, write_skipped


class ImageReport:
    """The images of one run.

    Args:
        dataset: The data set.
        results_dir: Where skipped.csv and notes.csv go.
        progress: Takes the warnings; one that says each once, as `OnceOnly`.
    """

    def __init__(self, dataset: Dataset, results_dir: Path, progress: Progress) -> None:
        self._dataset = dataset
        self._results_dir = results_dir
        self._progress = progress
        self._skipped: dict[str, Skipped] = {image.id: image for image in dataset.skipped}
        self._n_reported = 0
        self._notes: dict[tuple[str, str], tuple[int, str]] = {}

    def skip(self, images: Iterable[Skipped]) -> None:
        """Add images that could not be read, and write skipped.csv; warn where there are more than before."""
        for image in images:
            self._skipped.setdefault(image.id, image)
        rows = [(image.split, image.id, image.reason) for image in self._skipped.values()]
        path = write_skipped(self._results_dir, rows)
        if len(rows) > self._n_reported:
            files = "1 file was" if len(rows) == 1 else f"{len(rows)} files were"
            self._progress.warn(f"{files} left out; {path} says which and why")
        self._n_reported = len(rows)

    def note(self, found: Mapping[str, Notes]) -> None:
        """Add what is noted of the images of each split, write notes.csv, and warn of each kind with its count.

        Images held out of train, where the data set has no val, count as those of train.
        """
        by_split: dict[str, Notes] = {}
        for split, notes in found.items():
            name = split if split in self._dataset.splits else "train"
            by_split[name] = add_notes(by_split.get(name, {}), notes)
        for split, notes in by_split.items():
            for kind, counted in notes.items():
                if kind in NOTES:  # a later version may know more
                    self._notes.setdefault((split, kind), counted)
        rows = [(split, NOTES[kind], *counted) for (split, kind), counted in self._notes.items()]
        path = write_notes(self._results_dir, rows)
        for kind in dict.fromkeys(kind for _, kind in self._notes):
            count, example = add_notes(*({k: of} for (_, k), of in self._notes.items()))[kind]
            images = "1 image is" if count == 1 else f"{count:,} images are"
            self._progress.warn(f"{images} {NOTES[kind]} (the first: {example}; {path.name} counts them)")

    def warn_of_duplicates(self) -> None:
        """Warn of images that are in two splits or under two classes; call it when all were read."""
        for sentence in describe_duplicates(self._dataset.splits, self._skipped):
            self._progress.warn(sentence)

    def check_classes(
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
                    f"no image of class {self._dataset.classes[label]!r} in {name} can be read, of {len(ids)} ({why}); "
                    "add some that can, or leave the class out: a folder whose name begins with a dot is not read"
                )
