"""The heaps of an HDF5 file, where its texts lie: what HDF5 neither checksums nor checks.

HDF5 goes through a heap from object to object. One of no size, as in a block of zeros after a power cut, keeps it
there for ever, so the heaps are gone through here before HDF5 reads a text. The layout is that of the HDF5 File Format
Specification, version 3.0: III.E (global heap), IV.A (object headers).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import h5py

_SUPERBLOCK_ROOT = 36  # where a file of HDF5 1.10 and later says where its root group is
_OBJECT_HEADER = 16
_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C  # messages
_TIMES, _LIMITS, _ORDER = 0x20, 0x10, 0x04  # what an object header's flags say that it has

_Read = Callable[[int, int], bytes]  # so many bytes, from there


def check_heaps(file: h5py.File) -> None:
    """Go through each heap that holds a text among a file's attributes.

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
