"""Features that do not fit the memory: from the compressed caches into one plain file, whose rows are read at will.

The solvers pass over the rows many times, and from a plain file nothing has to be decompressed each time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featbench.classifiers.rows import LabelledFeatures
from featbench.errors import CacheError
from featbench.runs.feature_sets import FeatureSet
from featbench.solvers.streamed import BLOCK_VALUES, StreamedRows
from featbench.spill import make_room, spill


def load_on_disk(source: FeatureSet, folder: Path, memory_bytes: float) -> dict[str, LabelledFeatures]:
    """Put the features of all splits into a file, as they are stored, float16 or float32.

    Args:
        source: The features.
        folder: Where there is room for the file.
        memory_bytes: What a fit on them may take.

    Raises:
        CacheError: There is no room, or a cache is damaged.
        DataError: The parts of a fusion hold different images.
    """
    labels = {split: source.labels(split) for split in source.splits}
    shape = sum(len(y) for y, _ in labels.values()), source.width
    dtype = np.result_type(*[cached.extraction.store for cached, _ in source.parts])
    n_bytes = shape[0] * shape[1] * dtype.itemsize
    n_rows = max(1, BLOCK_VALUES // source.width)
    try:
        make_room(folder, n_bytes)
        mapped = spill((np.asarray(b, dtype) for split in source.splits for b in source.blocks(split, n_rows)), folder)
    except OSError as error:
        raise CacheError(
            f"the features of {source.backbone} {source.layer} do not fit the memory, and {n_bytes / 1e9:.3g} GB of "
            f"them cannot be put into {folder}: {error.strerror or error}; free some space, use --cache, or raise "
            "evaluate.memory_gb"
        ) from error
    mapped.flags.writeable = False
    splits, start = {}, 0
    for split, (y, ids) in labels.items():
        rows = StreamedRows(mapped, np.arange(start, start + len(y)), memory_bytes)
        splits[split] = LabelledFeatures(rows, y, tuple(ids))
        start += len(y)
    return splits
