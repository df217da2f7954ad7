"""Small test images for the page and the plots; a results folder may come from somebody else."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image

from featbench.results.files import read_limited
from featbench.results.images import thumbnail_path

_MAX_BYTES = 2**18
_MAX_PX = 512


def read_thumbnail(folder: Path, dataset: str, image_id: str) -> bytes | None:
    """Return the small picture of a test image, as JPEG; None where there is none that featbench wrote."""
    try:
        content = read_limited(thumbnail_path(folder, dataset, image_id), _MAX_BYTES)
        with warnings.catch_warnings(action="error"):  # Pillow warns of a size that would fill the memory
            image = Image.open(BytesIO(content), formats=["JPEG"])
            if max(image.size) > _MAX_PX:
                return None
            image.load()
    except (OSError, ValueError, Warning, Image.DecompressionBombError):
        return None
    return content
