"""What a cache file is made of, checked before anything of it is read.

An HDF5 file can lead anywhere (links, external and virtual datasets) and claim any size. A cache file holds nothing but
checksummed chunks of its own, all of them written, so reading it takes no more than its size on disk allows.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

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
_SUPERBLOCK_ROOT = 36  # where a file of HDF5 1.10 and later says where its root group is
_OBJECT_HEADER = 16
_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C  # messages
_TIMES, _LIMITS, _ORDER = 0x20, 0x10, 0x04  # what an object header's flags say that it has
_Read = Callable[[int, int], bytes]  # so many bytes, from there


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
    _check_heaps(file)
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


def _check_heaps(file: h5py.File) -> None:
    """Go through each heap that holds a text among a file's attributes: HDF5 neither checksums nor checks them.

    HDF5 goes through a heap from object to object. One of no size, as in a block of zeros after a power cut, keeps it
    there for ever, so the heaps are gone through here before HDF5 reads a text. The layout is that of the HDF5 File
    Format Specification, version 3.0: III.E (global heap), IV.A (object headers).

    With nine attributes and more, which no cache file has from featbench, HDF5 keeps them elsewhere, and they are not
    checked.

    Raises:
        ValueError: One is damaged, or HDF5 before 1.10 wrote the file.
    """
    if not hasattr(os, "pread"):  # on Windows
        return

    def read(n_bytes: int, start: int) -> bytes:
        return os.pread(file.id.get_vfd_handle(), n_bytes, start)

    superblock = read(_SUPERBLOCK_ROOT + 8, 0)
    if superblock[8:11] != b"\x03\x08\x08":
        raise ValueError("it was written by another program")
    for heap in set(_heaps(read, _number(superblock[_SUPERBLOCK_ROOT:]))):
        _check_heap(read, heap)


def _heaps(read: _Read, header: int) -> Iterator[int]:
    """Yield where the texts of the attributes in an object header lie; HDF5 has checked the header's checksum."""
    flags = read(6, header)[5]
    start = header + 6 + 16 * bool(flags & _TIMES) + 4 * bool(flags & _LIMITS)
    width = 1 << (flags & 3)
    blocks = [(start + width, _number(read(width, start)))]
    for start, size in blocks:
        for kind, message in _messages(read(size, start), 4 + 2 * bool(flags & _ORDER)):
            if kind == _CONTINUATION:  # within a signature and a checksum of four bytes each
                blocks.append((_number(message[:8]) + 4, _number(message[8:16]) - 8))
            elif kind == _ATTRIBUTE and (heap := _heap_of(message)):
                yield heap


def _heap_of(attribute: bytes) -> int | None:
    """Return where the text of an attribute lies; None where it is no text of free length."""
    version = attribute[0]
    sizes = [_number(attribute[at : at + 2]) for at in (2, 4, 6)]  # of its name, datatype and dataspace
    name, datatype, dataspace = (-(-size // 8) * 8 for size in sizes) if version == 1 else sizes
    start = 9 if version == 3 else 8
    if attribute[start + name] & 15 != 9:
        return None
    return _number(attribute[start + name + datatype + dataspace + 4 :][:8])  # after its length


def _messages(block: bytes, header: int) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + header <= len(block):
        size = _number(block[at + 1 : at + 3])
        yield block[at], block[at + header : at + header + size]
        at += header + size


def _check_heap(read: _Read, start: int) -> None:
    head = read(16, start)
    size = _number(head[8:16])
    heap = read(size, start) if head[:4] == b"GCOL" and size < 1 << 40 else b""
    if not heap or len(heap) != size:
        raise ValueError("its texts are lost")
    at = 16
    while at + _OBJECT_HEADER <= size:
        used, n_bytes = _number(heap[at : at + 2]), _number(heap[at + 8 : at + 16])
        step = _OBJECT_HEADER + -(-n_bytes // 8) * 8 if used else n_bytes  # free space counts its own header
        if not 0 < step <= size - at:
            raise ValueError("its texts are damaged")
        at += step


def _number(content: bytes) -> int:
    return int.from_bytes(content, "little")
