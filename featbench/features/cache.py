"""The cache file: features of one split by one backbone, in HDF5, for any program that reads HDF5.

    <cache>/<dataset>/<backbone>/<split>-<fingerprint>.h5
        labels             (N,) int64
        ids                (N,) UTF-8 strings
        features/<layer>   (N, D) float32 or float16, in checksummed chunks of whole rows; attribute extract_s
        attributes         format, fingerprint, content (JSON: all that the fingerprint covers), versions (JSON),
                           skipped (JSON: images not read, and why), notes (JSON: counts of odd images), complete,
                           checksums (JSON: of labels, ids and the other texts)

The fingerprint covers everything the numbers depend on, so a file is never stale; it is written under another name
and takes its own when it is whole, so a file under its own name is always complete.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from featbench.data.notes import Notes, add_notes
from featbench.errors import CacheError, UsageError, unknown
from featbench.features.opening import ForeignCacheError, NoCacheError, open_cache
from featbench.features.rows import Features, blocks, read_all, read_labels_and_ids, read_rows
from featbench.features.steady import SteadyFile
from featbench.features.structure import FORMAT, text_checksums
from featbench.fingerprint import fingerprint, hash_array

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class CacheKey:
    """Which cache file: where it lies, and everything its fingerprint covers."""

    cache_dir: Path
    dataset: str
    backbone: str
    split: str
    content: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the content."""
        return fingerprint(self.content)

    @property
    def path(self) -> Path:
        """The file's final name."""
        backbone = self.backbone.replace(":", "-")  # as in timm:NAME; some file systems have no colons
        return self.cache_dir / self.dataset / backbone / f"{self.split}-{self.fingerprint}.h5"


@dataclass(frozen=True)
class CacheInfo:
    """The description in a complete cache file; `widths` and `extract_s` go by layer, `skipped` is (id, reason)."""

    path: Path
    fingerprint: str
    n_rows: int
    widths: Mapping[str, int]
    extract_s: Mapping[str, float]
    skipped: tuple[tuple[str, str], ...]
    notes: Notes = field(default_factory=dict)


def read_layer(path: Path, layer: str | None) -> tuple[Features, npt.NDArray[np.int64], list[str]]:
    """Read one layer of a cache file; None is its only one.

    Returns:
        X (N, D) float32 or float16, y (N,) int64, and N ids; row i of each belongs to one image.

    Raises:
        CacheError: The file is missing, damaged or not a cache file.
        UsageError: It has no such layer, or several and none is named.
    """
    with open_cache(path) as file:
        layers = list(file["features"])
        if layer is None and len(layers) > 1:
            raise UsageError(f"{path.name} has more than one layer; give layer=, one of {', '.join(layers)}")
        if layer is not None and layer not in layers:
            raise unknown(f"layer of {path.name}", layer, layers)
        return (read_all(file["features"][layer or layers[0]]), *read_labels_and_ids(file))


def read_labels(path: Path) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Read the labels (N,) int64 and the N ids of a cache file, without its features.

    Raises:
        CacheError: The file is missing, damaged or not a cache file.
    """
    with open_cache(path) as file:
        return read_labels_and_ids(file)


def read_blocks(path: Path, layer: str, block_rows: int) -> Iterator[Features]:
    """Read a layer that the file has, so many rows at a time.

    Raises:
        CacheError: The file is missing, damaged or not a cache file.
    """
    with open_cache(path) as file:
        features = file["features"][layer]
        for start in range(0, len(features), block_rows):
            yield read_rows(features, start, start + block_rows)


def read_info(path: Path) -> CacheInfo | None:
    """Read the description of a cache file; None where there is no such file.

    Raises:
        CacheError: The file is damaged or not a cache file, or has the name of other features.
    """
    try:
        return describe_cache(path)[0]
    except NoCacheError:
        return None


def describe_cache(path: Path) -> tuple[CacheInfo, dict[str, Any]]:
    """Read the description of a cache file, and everything that its fingerprint covers.

    Raises:
        CacheError: The file is missing, damaged or not a cache file, or has the name of other features.
    """
    with open_cache(path) as file:
        layers = file["features"]
        info = CacheInfo(
            path=path,
            fingerprint=str(file.attrs["fingerprint"]),
            n_rows=len(file["labels"]),
            widths={layer: int(layers[layer].shape[1]) for layer in layers},
            extract_s={layer: float(layers[layer].attrs["extract_s"]) for layer in layers},
            skipped=tuple((i, reason) for i, reason in json.loads(file.attrs["skipped"])),
            notes=add_notes(json.loads(file.attrs.get("notes", "{}"))),  # files of earlier versions have none
        )
        content = json.loads(file.attrs["content"])
    if not path.stem.endswith(f"-{info.fingerprint}"):
        raise ForeignCacheError(
            f"{path} has the name of other features than it holds, whose fingerprint is {info.fingerprint}; "
            "move it away, or use another --cache"
        )
    return info, content


def check_cache(path: Path) -> None:
    """Read a whole cache file against its checksums, and its name against its content.

    Raises:
        CacheError: Something is wrong with it.
    """
    describe_cache(path)
    with open_cache(path) as file:
        read_labels_and_ids(file)
        for dataset in file["features"].values():
            for start, stop in blocks(dataset):
                read_rows(dataset, start, stop)


class CacheWriter:
    """Writes the layers of one split batch by batch; `write_cache` makes and finishes it."""

    def __init__(self, file: h5py.File, disk: SteadyFile, widths: Mapping[str, int], store: str) -> None:
        self._file = file
        self._disk = disk
        self._labels: list[npt.NDArray[np.int64]] = []
        self._ids: list[str] = []
        self._layers = {}
        for layer, width in widths.items():
            rows = max(1, _CHUNK_BYTES // (width * np.dtype(store).itemsize))
            self._layers[layer] = file.create_dataset(
                f"features/{layer}",
                (0, width),
                store,
                maxshape=(None, width),
                chunks=(rows, width),
                fletcher32=True,
                **hdf5plugin.Bitshuffle(cname="lz4"),
            )

    def append(self, features: Mapping[str, Features], labels: npt.NDArray[np.int64], ids: Sequence[str]) -> None:
        """Add rows: (B, D) features of each layer in the type they are stored as, (B,) int64 labels, B ids."""
        for layer, rows in features.items():
            dataset = self._layers[layer]
            dataset.resize(dataset.shape[0] + len(rows), axis=0)
            dataset[len(dataset) - len(rows) :] = rows
        self._disk.check()
        self._labels.append(labels)
        self._ids += ids

    def finish(
        self, key: CacheKey, skipped: Sequence[tuple[str, str]], extract_s: float, notes: Notes | None = None
    ) -> None:
        """Write what belongs to all layers, and mark the file complete."""
        labels = np.concatenate(self._labels) if self._labels else np.empty(0, np.int64)
        for dataset in self._layers.values():
            dataset.attrs["extract_s"] = extract_s
        self._file.create_dataset("labels", data=labels, fletcher32=True, chunks=True)
        names = [name.encode() for name in self._ids]
        string = h5py.string_dtype("utf-8", max(map(len, names), default=1))  # HDF5 checksums no strings of free length
        ids = np.array(names, string)
        self._file.create_dataset("ids", data=ids, fletcher32=True, chunks=True)
        versions = {"h5py": h5py.version.version, "hdf5": h5py.version.hdf5_version, "numpy": np.__version__}
        self._file.attrs.update(
            format=FORMAT,
            fingerprint=key.fingerprint,
            content=json.dumps(key.content, sort_keys=True),
            versions=json.dumps(versions),
            skipped=json.dumps(list(skipped)),
            notes=json.dumps(notes or {}),
            complete=True,
        )
        checksums = {"labels": hash_array(labels), "ids": hash_array(ids), **text_checksums(self._file.attrs)}
        self._file.attrs["checksums"] = json.dumps(checksums)  # last, of all texts


@contextmanager
def write_cache(key: CacheKey, widths: Mapping[str, int], store: str) -> Iterator[CacheWriter]:
    """Write a cache file; it takes its final name when the block ends well, with the layers it had before.

    Args:
        key: Which file.
        widths: Layers to write, and their number of features.
        store: "float32" or "float16".

    Raises:
        CacheError: It cannot be written.
    """
    unfinished = key.path.with_name(f".{key.path.name}.tmp")  # one name: who writes holds the lock
    try:
        with writing_to(key.path):
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            with SteadyFile(unfinished) as disk:
                with h5py.File(disk, "w", libver="v110") as file:  # since 1.10 HDF5 checksums its metadata too
                    yield CacheWriter(file, disk, widths, store)
                    _copy_earlier_layers(key.path, file)
                disk.sync()
            unfinished.replace(key.path)
    finally:
        with suppress(OSError):  # it has its final name, or never was
            unfinished.unlink()


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into a CacheError that names the file."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        way_out = "free some space, or use --cache" if full else "use --cache with a folder that you may write to"
        raise CacheError(f"the cache {path} cannot be written: {error.strerror or error}; {way_out}") from error


def as_stored(layer: str, rows: Features, store: str) -> Features:
    """Convert features to the type they are stored as.

    Raises:
        CacheError: One is not a finite number in that type.
    """
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        stored: Features = rows.astype(store, copy=False)
    if not np.isfinite(stored).all():
        raise CacheError(
            f"layer {layer!r} has features that are not finite in {store}; "
            'use store = "float32" and precision = "float32"'
        )
    return stored


def _copy_earlier_layers(path: Path, file: h5py.File) -> None:
    if not path.exists():
        return
    with open_cache(path) as earlier:
        if not np.array_equal(earlier["ids"][:], file["ids"][:]):
            raise CacheError(f"{path} has other images than were read now; delete it and run again")
        for layer in set(earlier["features"]) - set(file["features"]):
            earlier.copy(f"features/{layer}", file["features"])
