"""Names of what a run leaves for pictures: small test images, and maps of the features."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

MAPS = "maps.csv"
MAP_COLUMNS = (
    *("dataset", "backbone", "weights", "layer", "pooling", "fingerprint", "n_test", "id", "label"),
    *("pca_1", "pca_2", "pca_1_share", "pca_2_share", "tsne_1", "tsne_2"),
)
THUMBNAILS = "thumbnails"


def thumbnails(folder: Path) -> list[Path]:
    """List the files of the thumbnails folder that `thumbnail_path` names; others, and folders, are somebody's own."""
    files = (folder / THUMBNAILS).glob("*.jpg")
    return [file for file in files if re.fullmatch("[0-9a-f]{16}", file.stem) and file.is_file()]


def thumbnail_path(folder: Path, dataset: str, image_id: str) -> Path:
    """Return where the small picture of a test image lies, whatever characters its id has."""
    name = hashlib.sha256("\0".join((dataset, image_id)).encode()).hexdigest()[:16]
    return folder / THUMBNAILS / f"{name}.jpg"
