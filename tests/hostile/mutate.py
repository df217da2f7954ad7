"""Small changes at random: of bytes, of JSON, of arrays. The same generator makes the same change."""

from __future__ import annotations

import copy
import random
import struct
import zlib
from typing import Any

import numpy as np

CODE = ("python:evil:make", "python:os:abort", "python:signal:pause", "python:results.evil:make")
_TEXTS = (
    "",
    "x" * 5000,
    "\x1b[31mred\x07\u009b",
    "../../etc/passwd",
    "a\nb",
    "**",
    "[a-",
    "nan",
    "\u202egpj",
    "\x00",
    "~nouser/x",
)
_NUMBERS = (-1, 0, 1, 3, 2**31, 2**63, 10**30, -(10**6), 0.5, 1e308, -1e-320)
_OTHERS = (None, True, [], {}, [[]], {"a": {"b": [1]}}, [1, 2, 3], float("nan"), float("inf"))


def odd_value(rng: random.Random, *, code: bool = True) -> Any:
    """Draw a value that no file of featbench's holds in most places."""
    tables: list[tuple[Any, ...]] = [_TEXTS, _NUMBERS, _OTHERS, *([CODE] if code else [])]
    return copy.deepcopy(rng.choice(rng.choice(tables)))


def mutate_json(rng: random.Random, content: Any, *, code: bool = True) -> Any:
    """Change one place of nested dicts and lists."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places:
        return odd_value(rng, code=code)
    parent, key = rng.choice(places)
    what = rng.randrange(6)
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, dict):
        parent[rng.choice(("", "x", "__class__", "backbone", "layer"))] = parent.pop(key)
    elif what == 2:
        other, of = rng.choice(places)
        parent[key] = copy.deepcopy(other[of])
    elif what == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = parent[key] + rng.choice((-1, 1, 0.5))
    else:
        parent[key] = odd_value(rng, code=code)
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    found = []
    for key, value in items:
        found.append((content, key))
        found += _places(value)
    return found


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip, cut, drop, repeat or blank some bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        start = rng.randrange(len(data)) if data else 0
        size = rng.choice((1, 4, 64, 1024))
        what = rng.randrange(6)
        if what == 0:
            del data[start:]
        elif what == 1:
            del data[start : start + size]
        elif what == 2:
            data[start:start] = data[start : start + size]
        elif what == 3:
            data[start : start + size] = bytes(len(data[start : start + size]))
        elif what == 4:
            data[start : start + size] = rng.randbytes(len(data[start : start + size]))
        elif data:
            data[min(start, len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(data)


def mutate_array(rng: random.Random, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Change one number, the shape or the type of an array."""
    array = array.copy()
    what = rng.randrange(8)
    if what == 0:
        return array.reshape(-1)[: rng.randrange(array.size + 1)]
    if what == 1:
        return array[np.newaxis]
    if what == 2 and array.dtype.names is None:
        return array.astype(rng.choice(("float16", "int8", "U8", "complex64", "bool")))
    if array.size:
        flat = array.reshape(-1)
        field = flat[rng.choice(array.dtype.names)] if array.dtype.names else flat
        with np.errstate(all="ignore"):
            value = np.array(rng.choice((0, -1, -3, 10**6, 10**7, 2**62, float("nan"), float("inf"), -1e300)))
            field.reshape(-1)[rng.randrange(field.size)] = value.astype(field.dtype)
    return array


def declare_png_size(content: bytes, width: int, height: int) -> bytes:
    """Let a PNG file declare another size, with the checksum that belongs to it."""
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
