"""How much faster a linear head and a partly frozen network train when the frozen part is computed once.

    python -m tests.speed.training [--backbone squeezenet1_1] [--size 224] [--images 64] [--epochs 20]

Against the same training with the frozen part in the loop, which is run for fewer epochs and counted up: every epoch
costs the same. Images are made up and weights random, which changes no time. Seconds include everything, the test rows
too; both have one fifth as many validation and as many test images.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from featbench.backbones.load import load_backbone
from featbench.baselines.learner import ACTIVATION_BYTES, Images
from featbench.baselines.strategies import make_recipe
from featbench.baselines.train import train_network
from featbench.config import BackboneConfig, BaselineConfig
from featbench.progress import Silent

LAYERS = {"squeezenet1_1": "features.9", "resnet18": "layer3", "resnet20": "layer2"}


def images(count: int, size_px: int) -> Images:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, 3, size_px, size_px), dtype=np.uint8)
    return Images(torch.from_numpy(pixels), torch.arange(count) % 2)


def seconds(
    strategy: str,
    epochs: int,
    parts: list[Images],
    options: argparse.Namespace,
    activation_bytes: int = ACTIVATION_BYTES,
) -> float:
    until = LAYERS[options.backbone] if strategy == "partial" else None
    config = BaselineConfig(strategy=strategy, epochs=epochs, freeze_until=until, augment="none", refit=False)
    backbone = load_backbone(
        BackboneConfig(name=options.backbone, weights="random", image_size=options.size), seed=0, offline=True
    )
    recipe = make_recipe(config, len(parts[0].labels))
    started_s = time.perf_counter()
    train_network(
        backbone,
        recipe,
        *parts,
        n_classes=2,
        seed=0,
        device=torch.device("cpu"),
        precision="float32",
        progress=Silent(),
        activation_bytes=activation_bytes,
    )
    return time.perf_counter() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=LAYERS, default="squeezenet1_1")
    parser.add_argument("--size", type=int, default=224, help="px")
    parser.add_argument("--images", type=int, default=64, help="to train on")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    parts = [
        images(max(2, count), options.size) for count in (options.images, options.images // 5, options.images // 5)
    ]
    seconds("linear_head", 1, parts, options)  # Lightning's first training imports much
    print(f"| strategy, {options.backbone}, {options.images} images, {options.epochs} epochs | once | loop | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for strategy in ("linear_head", "partial"):
        once = seconds(strategy, options.epochs, parts, options)
        one, three = (seconds(strategy, epochs, parts, options, activation_bytes=0) for epochs in (1, 3))
        loop = one + (three - one) / 2 * (options.epochs - 1)
        print(f"| {strategy} | {once:.2f} s | {loop:.2f} s | {loop / once:.1f} |")


if __name__ == "__main__":
    main()
