from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes a noise image whose pixels its path decides; folders are made."""

    def write(path: Path, *, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = [ord(letter) for letter in path.name + path.parent.name]
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def make_tree(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a folder of PNG images: `make_tree({"train/cats": 3, ...})` writes train/cats/0.png to 2.png."""

    def make(counts: dict[str, int]) -> Path:
        root = tmp_path / "photos"
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                write_image(root / folder / f"{number}.png")
        return root

    return make
