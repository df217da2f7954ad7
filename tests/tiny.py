"""Small things to run the real code on: folders of generated images, small experiments, a recording progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featbench.config import Experiment

COLOURS = ("blue", "green", "red")
GRIDS: dict[str, dict[str, list[Any]]] = {
    "linear_svc": {"C": [1e-3, 1e-2]},
    "svm_rbf": {"C": [1.0, 10.0], "gamma_scale": [0.3]},
    "random_forest": {"n_estimators": [20], "min_samples_leaf": [1, 3]},
}


def save_image(path: Path, colour: str, rng: np.random.Generator, size: tuple[int, int] = (44, 36)) -> None:
    """Save noise (width, height) in which one channel is a little brighter."""
    pixels = rng.integers(0, 200, (size[1], size[0], 3))
    pixels[..., ("red", "green", "blue").index(colour)] += 55
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)


def image_folder(root: Path, per_class: int = 12, classes: tuple[str, ...] = COLOURS) -> Path:
    """Make one folder a class, with JPEG files in it."""
    rng = np.random.default_rng(0)
    for colour in classes:
        for number in range(per_class):
            save_image(root / colour / f"{number:02d}.jpg", colour, rng)
    return root


def digits_content(**changes: Any) -> dict[str, Any]:
    """Describe an experiment of a few digits and a random network."""
    return {
        "name": "tiny",
        "dataset": {"name": "digits", "limit_train": 120, "limit_test": 50, "val_fraction": 0.04},
        "backbones": [{"name": "resnet20", "layers": ["layer1", "layer3"]}],
        "evaluate": {"classifiers": list(GRIDS), "grids": GRIDS},
        "baselines": [],
    } | changes


def digits_experiment(**changes: Any) -> Experiment:
    """Parse `digits_content`."""
    return Experiment.model_validate(digits_content(**changes))


class Recorder:
    """Progress that keeps what it is told; `on_advance` runs at every step."""

    def __init__(self, on_advance: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.bars: list[str] = []
        self.on_advance = on_advance

    def say(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.warned.append(message)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int, str], None]]:
        self.bars.append(label)
        yield lambda steps, note: self.on_advance() if steps else None
