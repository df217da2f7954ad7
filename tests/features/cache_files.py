"""Cache files of five images, written as extraction writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featbench.features.cache import CacheKey, as_stored, write_cache

IDS = ("züge/ä.jpg", "猫/1.jpg", "plain.png", "with space/2.jpg", "e\u0301.jpg")


LABELS = np.array([2, 0, 1, 1, 0])


class _PowerCutError(Exception):
    pass


def make_key(cache_dir: Path, **content: Any) -> CacheKey:
    return CacheKey(cache_dir, "pets", "resnet18", "train", {"weights": "abc", **content})


def features(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(IDS), width)).astype(np.float32)


def write(
    key: CacheKey,
    layers: Mapping[str, np.ndarray],
    store: str = "float32",
    seconds: float = 1.5,
    ids: tuple[str, ...] = IDS,
    power_cut: bool = False,
) -> Path:
    """Write the five rows in two batches."""
    with write_cache(key, {name: rows.shape[1] for name, rows in layers.items()}, store) as writer:
        for part in (slice(0, 3), slice(3, 5)):
            stored = {name: as_stored(name, rows[part], store) for name, rows in layers.items()}
            writer.append(stored, LABELS[part], ids[part])
            if power_cut:
                raise _PowerCutError
        writer.finish(key, [("broken.jpg", "no image")], seconds, {"constant": (2, "a.jpg")})
    return key.path
