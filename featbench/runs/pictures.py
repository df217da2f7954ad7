"""What the page shows of images and features: small files, so that a results folder alone is enough to make it.

| file | what |
| --- | --- |
| `thumbnails/` | the test images of mistakes.csv, small |
| `maps.csv` | positions of test images by their features, by layer and fusion; see `featbench.features.map` |
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from featbench.data.decode import UnreadableImageError
from featbench.data.images import ArrayImages
from featbench.data.splits import Split
from featbench.errors import ResultsError
from featbench.features.map import map_features
from featbench.results.files import read_csv, replacing, write_csv
from featbench.results.images import MAP_COLUMNS, MAPS, thumbnail_path, thumbnails
from featbench.runs.extract import find_cached
from featbench.runs.feature_sets import CachedNetwork, FeatureSet, feature_sets
from featbench.runs.resolve import Run
from featbench.stats.mistakes import MISTAKES
from featbench.stats.statistics import Statistics

THUMBNAIL_PX = 128
MAP_ROWS = 1000
_QUALITY = 85
_BLOCK_ROWS = 4096


def write_pictures(run: Run, statistics: Statistics, cached: Sequence[CachedNetwork] | None = None) -> None:
    """Write the thumbnails of mistakes.csv, and the maps of the features in the cache.

    Args:
        run: The run.
        statistics: Of its rows, with the mistakes.
        cached: What `extract` returned; found in the cache where it is None.

    Raises:
        CacheError: Features are missing.
        ResultsError: A file cannot be written.
    """
    _write_thumbnails(run, statistics.tables[MISTAKES])
    if run.experiment.evaluate.classifiers:
        _write_maps(run, cached or find_cached(run))


def _write_thumbnails(run: Run, mistakes: pd.DataFrame) -> None:
    wanted = set(mistakes.loc[mistakes["dataset"] == run.dataset.name, "id"])
    split = run.dataset.splits["test"]
    rows = [row for row, image_id in enumerate(split.ids) if image_id in wanted]
    paths = {row: thumbnail_path(run.results_dir, run.dataset.name, split.ids[row]) for row in rows}
    for path in thumbnails(run.results_dir):
        if path not in paths.values():
            path.unlink(missing_ok=True)
    for row, path in paths.items():
        with suppress(UnreadableImageError), replacing(path) as temporary:  # it could be read before
            _shrink(_image(split, row)).save(temporary, format="JPEG", quality=_QUALITY)


def _image(split: Split, row: int) -> Image.Image:
    if isinstance(split.images, ArrayImages):
        pixels = split.images.pixels[row]
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    return split.images.read(row)


def _shrink(image: Image.Image) -> Image.Image:
    """Fit an image into the square of a thumbnail; small ones grow by a whole factor, so that pixels stay pixels."""
    factor = THUMBNAIL_PX // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image = image.copy()
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return image


def _write_maps(run: Run, cached: Sequence[CachedNetwork]) -> None:
    old = _old_maps(run)
    lines: list[list[Any]] = []
    for source in feature_sets(cached, run.experiment.evaluate.fusions):
        key = (source.fingerprint("test"), source.layer)
        lines += old[key] if key in old else _map(run, source)
    write_csv(run.results_dir / MAPS, MAP_COLUMNS, lines)


def _old_maps(run: Run) -> dict[tuple[str, str], list[list[Any]]]:
    """Read the maps of an earlier run: (fingerprint, layer) -> lines. A file that is damaged is written anew."""
    try:
        table = read_csv(run.results_dir / MAPS, MAP_COLUMNS)
    except ResultsError:
        return {}
    groups = table.groupby(["fingerprint", "layer"], sort=False)
    return {(str(key[0]), str(key[1])): group.to_numpy(dtype=object).tolist() for key, group in groups}


def _map(run: Run, source: FeatureSet) -> list[list[Any]]:
    seed, (y, ids) = run.experiment.seed, source.labels("test")
    rows = np.arange(len(y))
    if len(y) > MAP_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAP_ROWS, replace=False))
    if len(rows) < 2:
        return []
    placed = map_features(_read_rows(source, rows), seed)
    head = [run.dataset.name, source.backbone, source.weights, source.layer, source.pooling, source.fingerprint("test")]
    shares = [f"{share:.4g}" for share in placed.shares]
    lines = []
    for place, row in enumerate(rows.tolist()):
        pca = [f"{value:.4g}" for value in placed.pca[place]]
        tsne = [None, None] if placed.tsne is None else [f"{value:.4g}" for value in placed.tsne[place]]
        lines.append([*head, len(y), ids[row], run.dataset.classes[y[row]], *pca, *shares, *tsne])
    return lines


def _read_rows(source: FeatureSet, rows: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Read some test rows, ascending, and hold no others: the features need not fit the memory."""
    parts, start = [], 0
    for block in source.blocks("test", _BLOCK_ROWS):
        parts.append(block[rows[(rows >= start) & (rows < start + len(block))] - start])
        start += len(block)
    return np.concatenate(parts)
