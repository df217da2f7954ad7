from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A folder that anybody can reach; pytest's own are closed to others."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def anybody() -> Callable[[], AbstractContextManager[None]]:
    """Gives up, for a while, the right of root to open everything."""

    @contextmanager
    def as_anybody() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return as_anybody
