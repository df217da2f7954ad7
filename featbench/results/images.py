"""Files about single images: those left out, notes on others, small pictures of test images, maps of the features."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from featbench.results.files import write_csv

SKIPPED_CSV = "skipped.csv"
SKIPPED_COLUMNS = ("split", "id", "reason")
NOTES_CSV = "notes.csv"
NOTE_COLUMNS = ("split", "note", "images", "example")
MAPS = "maps.csv"
MAP_COLUMNS = (
    *("dataset", "backbone", "weights", "layer", "pooling", "fingerprint", "n_test", "id", "label"),
    *("pca_1", "pca_2", "pca_1_share", "pca_2_share", "tsne_1", "tsne_2"),
)
THUMBNAILS = "thumbnails"


def thumbnails(folder: Path) -> list[Path]:
    """List the files of the thumbnails folder that `thumbnail_path` names; other files are not featbench's."""
    files = (folder / THUMBNAILS).glob("*.jpg")
    return [file for file in files if re.fullmatch("[0-9a-f]{16}", file.stem) and file.is_file()]


def thumbnail_path(folder: Path, dataset: str, image_id: str) -> Path:
    """Return where the small picture of a test image lies, whatever characters its id has."""
    name = hashlib.sha256("\0".join((dataset, image_id)).encode()).hexdigest()[:16]
    return folder / THUMBNAILS / f"{name}.jpg"


def write_skipped(folder: Path, skipped: Sequence[tuple[str, str, str]]) -> Path:
    """Write skipped.csv, the images that were left out: (split, id, reason) of each.

    Raises:
        ResultsError: The file cannot be written.
    """
    write_csv(folder / SKIPPED_CSV, SKIPPED_COLUMNS, skipped)
    return folder / SKIPPED_CSV


def write_notes(folder: Path, notes: Sequence[tuple[str, str, int, str]]) -> Path:
    """Write notes.csv, remarks on images that were read: (split, note, number of images, id of one) of each.

    Raises:
        ResultsError: The file cannot be written.
    """
    write_csv(folder / NOTES_CSV, NOTE_COLUMNS, notes)
    return folder / NOTES_CSV
