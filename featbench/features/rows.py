"""Reading the rows of an open cache file, whose structure is right, and what cannot be seen before they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import h5py
import numpy as np
import numpy.typing as npt

from featbench.features.structure import CHECKSUM_BYTES, filters
from featbench.fingerprint import hash_array

_BLOCK_BYTES = 1 << 26

Features = npt.NDArray[np.float32] | npt.NDArray[np.float16]


def read_all(dataset: h5py.Dataset) -> Features:
    """Read all features of a layer.

    Raises:
        ValueError: As `read_rows`.
    """
    rows: Features = np.empty(dataset.shape, dataset.dtype)
    for start, stop in blocks(dataset):
        rows[start:stop] = read_rows(dataset, start, stop)
    return rows


def blocks(dataset: h5py.Dataset) -> Iterator[tuple[int, int]]:
    """Divide the rows so that what is checked is still in memory when it is read."""
    step = dataset.chunks[0] * max(1, _BLOCK_BYTES // (dataset.chunks[0] * dataset.shape[1] * dataset.dtype.itemsize))
    return ((start, start + step) for start in range(0, len(dataset), step))


def read_rows(dataset: h5py.Dataset, start: int, stop: int) -> Features:
    """Read some rows of features, those before `stop`.

    Raises:
        ValueError: They are damaged; HDF5 may raise OSError or RuntimeError instead, here and below.
    """
    _check_chunks(dataset, start, stop)
    rows: Features = dataset[start:stop]
    if not (np.isfinite(rows.min()) and np.isfinite(rows.max())):  # NaN is the smallest and the largest
        raise ValueError("a feature is not finite")
    return rows


def read_labels_and_ids(file: h5py.File) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Read the labels and ids of a cache file.

    Raises:
        ValueError: They are damaged.
    """
    for name in ("labels", "ids"):
        _check_chunks(file[name], 0, len(file[name]))
    labels, ids = file["labels"][:], file["ids"][:]
    checksums = json.loads(file.attrs.get("checksums", "{}"))
    for name, rows in (("labels", labels), ("ids", ids)):  # to HDF5's checksum two bytes of 0 are two of 255
        if checksums.get(name, hash_array(rows)) != hash_array(rows):
            raise ValueError(f"its {name} are not what was written")
    if labels.min() < 0:
        raise ValueError("a label is negative")
    return labels, [name.decode() for name in ids]


def _check_chunks(dataset: h5py.Dataset, start: int, stop: int) -> None:
    """Check the chunks with these rows, before their filters run.

    Bitshuffle takes a chunk at its word, and reads and writes past its end where its sizes are not true. HDF5's
    checksum does not find all of that: two bytes of 0 are to it two of 255.

    Raises:
        ValueError: A chunk has another size than the dataset declares; HDF5 may raise OSError or RuntimeError instead.
    """
    rows = dataset.chunks[0]
    n_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    compressed = len(filters(dataset)) > 1
    for row in range(start // rows * rows, min(stop, len(dataset)), rows):
        skipped, stored = dataset.id.read_direct_chunk((row, *[0] * (dataset.ndim - 1)))
        content = stored[:-CHECKSUM_BYTES]
        if compressed and skipped == 0:
            right = _is_bitshuffled(content, n_bytes, dataset.dtype.itemsize)
        else:  # a filter that is skipped has its bit; only bitshuffle, the first of two, may be
            right = skipped == compressed and len(content) == n_bytes
        if not right:
            raise ValueError(f"a chunk of {dataset.name.rpartition('/')[2]} is not of its size")


def _is_bitshuffled(content: bytes, n_bytes: int, itemsize: int) -> bool:
    """Say whether a chunk's parts are as long as bitshuffle will take them to be.

    Its size and that of a block, both unpacked, are followed by blocks of LZ4, each after its length; what does not
    fill eight values is at the end as it is.
    """
    block_bytes = int.from_bytes(content[8:12], "big")
    if int.from_bytes(content[:8], "big") != n_bytes or not block_bytes or block_bytes % (8 * itemsize):
        return False
    rest = n_bytes % (8 * itemsize)
    at = 12
    for _ in range(-(-(n_bytes - rest) // block_bytes)):
        at += 4 + int.from_bytes(content[at : at + 4], "big")
    return at + rest == len(content)
