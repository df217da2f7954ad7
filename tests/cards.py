"""Cards of kept models."""

from __future__ import annotations

from featbench.results.cards import Card


def make_card(method: str) -> Card:
    """Make the card of a classifier of digits' pixels."""
    preprocess = {"resize_px": 8, "crop_px": 8, "mean": (), "std": (), "interpolation": "bilinear"}
    return Card(
        backbone="pixels",
        weights="none",
        weights_hash="0" * 16,
        preprocess=preprocess | {"antialias": True, "native_arrays": True},
        layer="pixels",
        precision="float32",
        fingerprint="f0",
        kind="classifier",
        method=method,
        classes=tuple("0123456789"),
        seed=0,
        array_shape=(8, 8, 1),
        sha256="0" * 64,
    )
