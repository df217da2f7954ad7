"""How fast stage 1 is, against the forward pass alone and against a plain DataLoader loop.

    THP_MEM_ALLOC_ENABLE=1 python -m tests.speed.extraction [--images FOLDER] [--backbones NAME ...] [--repeats 3]

Each figure is the median of the repeats, which take turns so that a change of the machine's pace meets all alike.
Without a folder, JPEG images of 500x375 pixels are made up. Rates count the loop and the writing of the cache up to its
final name, not the imports, nor compiling, whose seconds have a line of their own.

The variable has torch take memory in large pages, as the command line does; the plain loop gains by it too.

On the CPU decoding and network share the cores, so that JPEG files can reach no more than 1 / (1/f + 1/d) images a
second, where the forward pass alone makes f and the decoding alone d; the table is followed by what they reach of that.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from featbench.backbones.identity import Identity
from featbench.backbones.load import Backbone, load_backbone
from featbench.config import BackboneConfig, DatasetConfig
from featbench.data.datasets import load_dataset
from featbench.data.images import ArrayImages, file_images
from featbench.data.loader import read_batches
from featbench.data.splits import Dataset as Images
from featbench.data.splits import Split
from featbench.features import forward as forward_
from featbench.features.extraction import cache_keys, extract_split, plan_extraction
from featbench.features.forward import Forward, Precision
from tests.speed.medians import medians

CPU = torch.device("cpu")
SHAPE = (3, 224, 224)
BATCH = 64
FOUR_LAYERS = {
    "squeezenet1_1": ("features.3", "features.6", "features.9", "features.12"),
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
}


class Clock:
    """Progress that takes the time from the first step (networks are ready) to the end."""

    def say(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        print(f"warning: {message}", file=sys.stderr)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int, str], None]]:
        steps: list[float] = []
        yield lambda count, note: steps.append(time.perf_counter())
        self.started_s = steps[0]


def network(name: str, precision: Precision, layers: tuple[str, ...] = ("penultimate",)) -> tuple[Backbone, Any]:
    config = BackboneConfig(name=name, weights="random", layers=layers, precision=precision, batch_size=BATCH)
    return load_backbone(config, seed=0), plan_extraction(config, CPU, "error")


def extract(name: str, precision: Precision, split: Split, layers: tuple[str, ...] = ("penultimate",)) -> float:
    """Extract one split into an empty cache and return images a second."""
    backbone, extraction = network(name, precision, layers)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        key = cache_keys(
            Images("speed", ("a", "b"), {"train": split}), Identity.of(backbone), extraction, Path(folder)
        )["train"]
        extract_split(split, backbone, extraction, key, clock)
        return len(split) / (time.perf_counter() - clock.started_s)


def forward_only(name: str, precision: Precision, count: int) -> float:
    """Run the same network on a batch that is ready, in the same memory format and precision.

    In float32 it is standardised already; a compiled network standardises bytes itself.
    """
    backbone, _ = network(name, precision)
    features = backbone.features(["penultimate"], "avg", SHAPE)
    ready = torch.randint(0, 256, (BATCH, *SHAPE), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    runner = Forward(
        features,
        backbone.preprocess,
        device=CPU,
        precision=precision,
        batch_size=BATCH,
        image_shape=SHAPE,
        n_images=count,
        progress=Clock(),
    )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        forward = runner.network
        if precision == "float32":
            ready, forward = backbone.preprocess.normalise(ready), features.module
        started_s = time.perf_counter()
        for _ in range(count // BATCH):
            forward(ready)
    return count // BATCH * BATCH / (time.perf_counter() - started_s)


def decode_only(name: str, split: Split) -> float:
    """Do what comes before the network, on all cores."""
    preprocess = network(name, "float32")[0].preprocess
    started_s = time.perf_counter()
    count = sum(len(batch.rows) for batch in read_batches(split, preprocess, BATCH))
    return count / (time.perf_counter() - started_s)


class PlainImages(Dataset[tuple[Tensor, int]]):
    def __init__(self, paths: list[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), 0


def plain_loop(name: str, paths: list[Path]) -> float:
    """Do what a tutorial does: PIL transforms, a DataLoader with a worker a core, float32, np.concatenate."""
    import torchvision

    net = torchvision.models.get_model(name).eval()
    body = nn.Sequential(*list(net.children())[:-1])  # everything but the head
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    loader = DataLoader(PlainImages(paths, transform), BATCH, num_workers=os.cpu_count() or 1)
    features = np.empty((0,))
    started_s = time.perf_counter()
    with torch.no_grad():
        for images, _ in loader:
            rows = body(images).mean((2, 3)).numpy()
            features = np.concatenate([features, rows]) if len(features) else rows
    return len(paths) / (time.perf_counter() - started_s)


def compile_seconds(name: str) -> float:
    started_s = time.perf_counter()
    forward_only(name, "bfloat16", BATCH)
    return time.perf_counter() - started_s


def made_up_photos(folder: Path, count: int = 200) -> list[Path]:
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)).resize((500, 375), 3)
        noise = rng.normal(0, 8, (375, 500, 3))
        Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg")
    return sorted(folder.iterdir())


def split_of(images: Any) -> Split:
    count = len(images)
    return Split("train", images, np.arange(count) % 2, tuple(str(row) for row in range(count)))


def complete_cache_seconds(count: int) -> float:
    """Ask for features that are cached: load the network, hash the images, find the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            started_s = time.perf_counter()
            split = split_of(ArrayImages(pixels))
            backbone, extraction = network("resnet20", "float32")
            key = cache_keys(
                Images("speed", ("a", "b"), {"train": split}), Identity.of(backbone), extraction, Path(folder)
            )["train"]
            extract_split(split, backbone, extraction, key, Clock())
        return time.perf_counter() - started_s


def complete_folder_seconds(count: int) -> float:
    """The same for a folder of JPEG files of 9 KB, from listing it on; the files are two seconds old."""
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "JPEG")
    with tempfile.TemporaryDirectory() as folder:
        for row in range(count):
            path = Path(folder, "images", ("train", "test")[row % 10 == 0], "ab"[row // 2 % 2], f"{row}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.getvalue() + row.to_bytes(4) * 2_000)  # what follows the image is no part of it
        time.sleep(2)
        config = DatasetConfig(name="folder", root=Path(folder, "images"))
        for _ in range(2):
            started_s = time.perf_counter()
            dataset = load_dataset(config, Path(folder), seed=0, memo_dir=Path(folder, "hashes"))
            backbone, extraction = network("resnet20", "float32")
            for split, key in cache_keys(dataset, Identity.of(backbone), extraction, Path(folder)).items():
                extract_split(dataset.splits[split], backbone, extraction, key, Clock())
        return time.perf_counter() - started_s


def speed_table(name: str, paths: list[Path], count: int, repeats: int) -> None:
    arrays = split_of(ArrayImages(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)))
    repeated = [paths[row % len(paths)] for row in range(count)]
    files = split_of(file_images(repeated))
    layers = FOUR_LAYERS.get(name)
    jobs: dict[str, Callable[[], float]] = {
        "plain DataLoader loop, float32": lambda: plain_loop(name, repeated),
        "decoding and resizing JPEG files alone": lambda: decode_only(name, files),
    }
    for precision in ("float32", "bfloat16"):
        jobs |= {
            f"forward alone, {precision}": lambda p=precision: forward_only(name, p, count),
            f"arrays, {precision}": lambda p=precision: extract(name, p, arrays),
            f"JPEG files, {precision}": lambda p=precision: extract(name, p, files),
        }
    if layers:
        jobs["deepest of four layers, float32"] = lambda: extract(name, "float32", arrays, layers[-1:])
        jobs["four layers, float32"] = lambda: extract(name, "float32", arrays, layers)
    rates = medians(jobs, repeats)
    plain = rates["plain DataLoader loop, float32"]
    print(f"\n{name}, {count} images, {torch.get_num_threads()} threads\n")
    print("| job | images a second | of the forward alone | of the plain loop |\n| --- | ---: | ---: | ---: |")
    for job, rate in rates.items():
        alone = rates[f"forward alone, {'bfloat16' if 'bfloat16' in job else 'float32'}"]
        print(f"| {job} | {rate:.1f} | {rate / alone:.2f} | {rate / plain:.2f} |")
    for precision in ("float32", "bfloat16"):
        decoding, alone = rates["decoding and resizing JPEG files alone"], rates[f"forward alone, {precision}"]
        bound = 1 / (1 / decoding + 1 / alone)
        print(
            f"\nJPEG files, {precision}: both can make {bound:.1f} images a second, {bound / alone:.2f} of the forward "
            f"alone; {rates[f'JPEG files, {precision}'] / bound:.2f} of that is reached."
        )
    if layers:
        ratio = rates["deepest of four layers, float32"] / rates["four layers, float32"]
        print(f"\nFour layers take {ratio:.2f} times the time of the deepest alone.")
    print(f"Compiling takes {compile_seconds(name):.0f} s.")


PEAK = """
import sys, resource, numpy as np
from pathlib import Path
from featbench.data.images import ArrayImages
from tests.speed.extraction import extract, split_of
count = int(sys.argv[1])
pixels = np.zeros((count, 8, 8, 1), np.uint8)
extract("resnet20", "float32", split_of(ArrayImages(pixels)), ("layer1", "layer2", "layer3"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory_mib(count: int) -> float:
    done = subprocess.run([sys.executable, "-c", PEAK, str(count)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files, searched through")
    parser.add_argument("--backbones", nargs="*", default=["squeezenet1_1", "resnet18"])
    parser.add_argument("--count", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["rates", "scale"], help="scale: 50,000 images against 5,000")
    arguments = parser.parse_args()
    if arguments.only != "scale":
        rates(arguments)
    if arguments.only != "rates":
        scale()


def rates(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(forward_, "_COMPILED_FROM_FLOPS", 0.0):
        paths = sorted(arguments.images.rglob("*.jpg")) if arguments.images else made_up_photos(Path(folder))
        for name in arguments.backbones:
            speed_table(name, paths, arguments.count, arguments.repeats)


def scale() -> None:
    for count in (5_000, 50_000):
        print(
            f"A complete cache of {count:,} images answers in {complete_cache_seconds(count):.2f} s, "
            f"of files in {complete_folder_seconds(count):.2f} s."
        )
    small, large = peak_memory_mib(5_000), peak_memory_mib(50_000)
    print(f"Peak memory: {small:.0f} MiB for 5,000 images, {large:.0f} MiB for 50,000 ({large / small:.2f} times).")


if __name__ == "__main__":
    main()
