"""Processor seconds that short commands take, as ratios to importing the libraries that they need.

    python -m tests.speed.startup

Each is a process of its own, run several times; the least counts. The libraries: torch, torchvision.models and
scikit-learn's support vector machines and forests.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.tiny import image_folder

LIBRARIES = "import torch, torchvision.models, sklearn.svm, sklearn.ensemble"
EXPERIMENT = """
name = "startup"
dataset = { name = "folder", root = "photos" }
backbones = [{ name = "resnet18", weights = "random", image_size = 64 }]
baselines = []
[evaluate]
classifiers = ["svm_rbf", "random_forest"]
"""


def seconds(command: list[str], folder: Path, repeats: int) -> float:
    """Return the least user and system seconds of a command over some runs."""
    taken = []
    for _ in range(repeats):
        before = os.times()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    featbench = [sys.executable, "-m", "featbench"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = next(image_folder(folder / "photos").rglob("*.jpg"))
        (folder / "startup.toml").write_text(EXPERIMENT)
        run = [*featbench, "run", "startup.toml", "--results", "results", "--cache", "cache", "--device", "cpu"]
        for _ in range(2):  # files that are fresh are not remembered the first time
            subprocess.run(run, cwd=folder, check=True, capture_output=True)
        libraries = seconds([sys.executable, "-c", LIBRARIES], folder, repeats)
        print(f"{'importing the libraries':40} {libraries:5.1f} s")
        for title, command in (
            ("featbench --help", [*featbench, "--help"]),
            ("featbench predict of one photo", [*featbench, "predict", "results", str(photo)]),
            ("featbench run with nothing left to do", run),
        ):
            taken = seconds(command, folder, repeats)
            print(f"{title:40} {taken:5.1f} s, {taken / libraries:.2f} times")


if __name__ == "__main__":
    main()
