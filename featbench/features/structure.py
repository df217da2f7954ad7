"""What a cache file is made of, checked before anything of it is read.

An HDF5 file can lead anywhere (links, external and virtual datasets) and claim any size. A cache file holds nothing but
checksummed chunks of its own, all of them written, so reading it takes no more than its size on disk allows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from featbench.features.heap import check_heaps
from featbench.fingerprint import fingerprint

FORMAT = 1
_FLETCHER32, _BITSHUFFLE, _LZ4 = 3, 32008, 2
CHECKSUM_BYTES = 4  # of every chunk
_MOST_EXPANSION = 256  # LZ4 makes at most 255 bytes out of one
_CHUNK_BYTES = 1 << 20  # the largest chunk ever written of more than one row
_TYPES = {str: h5py.h5t.TypeStringID, float: h5py.h5t.TypeFloatID} | {
    np.integer: h5py.h5t.TypeIntegerID,
    np.bool_: h5py.h5t.TypeEnumID,
}


class ForeignFileError(Exception):
    """It is an HDF5 file, and none that this version of featbench reads."""


@dataclass(frozen=True)
class _Form:
    """What a dataset may be."""

    rank: int
    holds: Callable[[np.dtype[Any]], bool]
    filters: tuple[tuple[int, ...], ...]


_LABELS = _Form(1, lambda dtype: dtype == np.int64, ((_FLETCHER32,),))
_IDS = _Form(1, lambda dtype: getattr(h5py.check_string_dtype(dtype), "length", None) is not None, ((_FLETCHER32,),))
_LAYER = _Form(
    2, lambda dtype: dtype in (np.float32, np.float16), ((_BITSHUFFLE, _FLETCHER32), (_FLETCHER32,))
)  # the first format 1 did not compress


def check_structure(file: h5py.File, n_bytes: int) -> None:
    """Check an open cache file of so many bytes, of which only attributes are read.

    Raises:
        ForeignFileError: It is another program's, or of another format.
        ValueError: It is damaged; HDF5 may raise OSError, LookupError, RuntimeError and TypeError instead.
    """
    _check_attributes(file)
    n_rows = len(_dataset(file, "labels", _LABELS, n_bytes))
    layers = _linked(file, "features", h5py.Group)
    datasets = {"ids": _dataset(file, "ids", _IDS, n_bytes)}
    for layer in layers:
        datasets[layer] = _dataset(layers, layer, _LAYER, n_bytes)
        seconds = _attribute(datasets[layer], "extract_s", float)
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"extract_s of {layer} is {seconds}")
    if len(datasets) == 1:
        raise ValueError("it has no layers")
    for name, dataset in datasets.items():
        if len(dataset) != n_rows:
            raise ValueError(f"{name} has {len(dataset)} rows, labels {n_rows}")


def text_checksums(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Hash the texts among a file's attributes, which HDF5 stores without a checksum."""
    return {name: fingerprint(value) for name, value in attributes.items() if isinstance(value, str)}


def _check_attributes(file: h5py.File) -> None:
    if "format" not in file.attrs or "fingerprint" not in file.attrs:
        raise ForeignFileError("is not a feature cache")
    format_ = int(_attribute(file, "format", np.integer))
    if format_ != FORMAT:
        raise ForeignFileError(f"has format {format_}, of another version of featbench")
    if not _attribute(file, "complete", np.bool_):
        raise ValueError("it is not complete")
    check_heaps(file)
    if "checksums" in file.attrs:  # files of earlier versions have none
        for name, checksum in _parsed(file, "checksums", _is_object).items():
            if name not in ("labels", "ids") and fingerprint(_attribute(file, name, str)) != checksum:
                raise ValueError(f"its {name} is not what was written")
    if fingerprint(_parsed(file, "content", _is_object)) != _attribute(file, "fingerprint", str):
        raise ValueError("its content has another fingerprint")
    _parsed(file, "versions", _is_object)
    _parsed(file, "skipped", _is_pairs)
    if "notes" in file.attrs:  # files of earlier versions have none
        _parsed(file, "notes", _are_notes)


def _attribute(of: h5py.HLObject, name: str, kind: type) -> Any:
    if name not in of.attrs:
        raise ValueError(f"it has no {name}")
    found = h5py.h5a.open(of.id, name.encode())
    value = of.attrs[name] if found.shape == () and isinstance(found.get_type(), _TYPES[kind]) else None
    if not isinstance(value, kind):
        raise ValueError(f"its {name} is of another type")
    return value


def _parsed(file: h5py.File, name: str, fits: Callable[[Any], bool]) -> Any:
    value = json.loads(_attribute(file, name, str))
    if not fits(value):
        raise ValueError(f"its {name} is not as it was written")
    return value


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_text, pair)) for pair in value
    )


def _are_notes(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(note, list) and len(note) == 2 and type(note[0]) is int and _is_text(note[1])
        for note in value.values()
    )


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    value.encode()  # half a surrogate pair, which JSON can hold, is a ValueError
    return True


def _linked(group: h5py.Group, name: str, kind: type) -> Any:
    """Open what lies in the file itself: no soft link, and none to another file."""
    if not isinstance(name, str) or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is missing, or a link")
    found = group[name]
    if not isinstance(found, kind):
        raise ValueError(f"{name} is no {kind.__name__.lower()}")
    return found


def _dataset(group: h5py.Group, name: str, form: _Form, n_bytes: int) -> h5py.Dataset:
    dataset = _linked(group, name, h5py.Dataset)
    if dataset.ndim != form.rank or not form.holds(dataset.dtype) or 0 in dataset.shape:
        raise ValueError(f"{name} has shape {dataset.shape} and type {dataset.dtype}")
    if dataset.id.get_create_plist().get_layout() != h5py.h5d.CHUNKED or filters(dataset) not in form.filters:
        raise ValueError(f"{name} is not in chunks with checksums")
    one_row = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    chunk_bytes = dataset.dtype.itemsize * math.prod(dataset.chunks)
    if dataset.chunks[1:] != dataset.shape[1:] or chunk_bytes > max(one_row, _CHUNK_BYTES):
        raise ValueError(f"{name} has chunks of shape {dataset.chunks}")
    n_chunks = -(-len(dataset) // dataset.chunks[0])
    at_most = n_bytes * _MOST_EXPANSION if len(filters(dataset)) > 1 else n_bytes
    if n_chunks * CHECKSUM_BYTES > n_bytes or n_chunks * chunk_bytes > at_most:  # before HDF5 would count them
        raise ValueError(f"{name} has shape {dataset.shape}, which a file of {n_bytes:,} bytes cannot hold")
    if dataset.id.get_num_chunks() != n_chunks:
        raise ValueError(f"{name} has lost rows")
    return dataset


def filters(dataset: h5py.Dataset) -> tuple[int, ...]:
    """Return the numbers of the filters that a dataset's chunks went through.

    Raises:
        ValueError: Bitshuffle is among them with other settings than featbench's.
    """
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(number) for number in range(plist.get_nfilters())]
    for number, _, values, _ in filters:
        if number == _BITSHUFFLE and (values[2:3], values[4:]) != ((dataset.dtype.itemsize,), (_LZ4,)):
            raise ValueError("it is compressed in another way")
    return tuple(number for number, *_ in filters)
