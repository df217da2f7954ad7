"""Canonical hashing: equal content gives an equal fingerprint on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_DIGITS = 16
_BLOCK_BYTES = 1 << 18


def fingerprint(content: Any) -> str:
    """Hash a JSON-like value: 16 hex digits of the SHA-256 of its canonical JSON.

    Keys are sorted, and NaN is refused, so that equal content always hashes equal.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def hash_array(array: npt.NDArray[Any]) -> str:
    """Hash an array's dtype, shape and values (in C order)."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def hash_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Hash named arrays, whatever the order they come in."""
    return fingerprint({name: hash_array(array) for name, array in arrays.items()})


def hash_file(path: Path) -> str:
    """Hash a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
