"""How fast `featbench predict` is, against extraction of the same JPEG files by the same network.

    THP_MEM_ALLOC_ENABLE=1 python -m tests.speed.prediction [--images FOLDER] [--backbones NAME ...] [--repeats 3]

Each figure is the median of the repeats, which take turns so that a change of the machine's pace meets all alike. Rates
of prediction count decoding, networks, scoring and the lines of CSV; those of extraction what `tests.speed.extraction`
says. Neither counts the loading of networks nor compiling.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

import featbench
from featbench.data.given import as_split
from featbench.data.images import file_images
from featbench.features import forward as forward_
from featbench.predict.output import write_predictions
from featbench.progress import Silent
from tests.speed.extraction import FOUR_LAYERS, extract, made_up_photos, split_of
from tests.speed.medians import medians

CLASSIFIERS = ("linear_svc", "random_forest")
_TRAINED_ON = 40


def train(home: Path, name: str, precision: str, paths: list[Path]) -> Path:
    """Train classifiers on a few of the images, under made-up labels; their answers are of no interest."""
    for row in range(_TRAINED_ON):
        place = home / "photos" / "ab"[row % 2] / f"{row}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths[row % len(paths)], place)
    layers = ["penultimate", *FOUR_LAYERS.get(name, ())]
    content = {
        "name": "speed",
        "dataset": {"name": "folder", "root": str(home / "photos")},
        "backbones": [{"name": name, "weights": "random", "layers": layers, "precision": precision}],
        "evaluate": {
            "classifiers": list(CLASSIFIERS),
            "selection": "none",
            "fusions": [[f"{name}/{layer}" for layer in FOUR_LAYERS[name]]] if name in FOUR_LAYERS else [],
        },
        "baselines": [],
    }
    featbench.run(content, results=home / "results", cache=home / "cache", device="cpu")
    return home / "results"


def predict(results: Path, model: str, paths: list[Path]) -> float:
    """Load a model, let it see one batch, then predict all images and return images a second."""
    loaded = featbench.load_model(results, model, device="cpu")
    images = as_split(paths)
    next(loaded.stream(images))  # networks are ready
    text: list[str] = []
    started_s = time.perf_counter()
    failed = write_predictions(loaded, images, Silent(), write=text.append, format_="csv", top=1, columns=None)
    seconds = time.perf_counter() - started_s
    assert not failed
    assert "".join(text).count("\n") == len(paths) + 1
    return len(paths) / seconds


def speed_table(name: str, paths: list[Path], count: int, repeats: int, home: Path) -> None:
    repeated = [paths[row % len(paths)] for row in range(count)]
    files = split_of(file_images(repeated))
    layers = FOUR_LAYERS.get(name, ())
    jobs: dict[str, Callable[[], float]] = {}
    base: dict[str, str] = {}
    for precision in ("float32", "bfloat16"):
        results = train(home / f"{name}-{precision}", name, precision, paths)
        alone, four = (f"extraction, {what}{precision}" for what in ("", "four layers, "))
        jobs[alone] = lambda p=precision: extract(name, p, files)
        for classifier in CLASSIFIERS:
            jobs[f"predict, {classifier}, {precision}"] = lambda r=results, c=classifier: predict(
                r, f"{c}/{name}/penultimate", repeated
            )
            base[f"predict, {classifier}, {precision}"] = alone
        if layers:
            jobs[four] = lambda p=precision: extract(name, p, files, layers)
            fusion = f"linear_svc/{name}/{'+'.join(layers)}"
            jobs[f"predict, fusion of four layers, {precision}"] = lambda r=results, f=fusion: predict(r, f, repeated)
            base[f"predict, fusion of four layers, {precision}"] = four
    rates = medians(jobs, repeats)
    print(f"\n{name}, {count} JPEG files, {torch.get_num_threads()} threads\n")
    print("| job | images a second | of extraction |\n| --- | ---: | ---: |")
    for job, rate in rates.items():
        print(f"| {job} | {rate:.1f} | {rate / rates[base.get(job, job)]:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files, searched through")
    parser.add_argument("--backbones", nargs="*", default=["squeezenet1_1", "resnet18"])
    parser.add_argument("--count", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    # as in a long run, in which it pays to compile
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(forward_, "_COMPILED_FROM_FLOPS", 0.0):
        home = Path(folder)
        (home / "made_up").mkdir()
        paths = sorted(arguments.images.rglob("*.jpg")) if arguments.images else made_up_photos(home / "made_up")
        for name in arguments.backbones:
            speed_table(name, paths, arguments.count, arguments.repeats, home)


if __name__ == "__main__":
    main()
