"""Stage 1 against thingsvision, which needs packages of its own: give the Python of an environment that has it.

    THP_MEM_ALLOC_ENABLE=1 python -m tests.speed.peers --images FOLDER --thingsvision ENV/bin/python [--repeats 3]

Both read the same folder of photos (one folder a class), run torchvision's squeezenet1_1 with random weights and keep
the output of `features`: featbench its mean over positions, in an HDF5 cache; thingsvision all of it, in memory, since
it has no pooling of this kind. The clock starts when the network is ready.
"""

from __future__ import annotations

import argparse
import subprocess
from functools import partial
from pathlib import Path

from featbench.data.images import file_images
from tests.speed.extraction import extract, split_of
from tests.speed.medians import medians

_THINGSVISION = """
import sys, tempfile, time
from thingsvision import get_extractor
from thingsvision.utils.data import DataLoader, ImageDataset

extractor = get_extractor("squeezenet1_1", source="torchvision", device="cpu", pretrained=False)
with tempfile.TemporaryDirectory() as folder:
    images = ImageDataset(sys.argv[1], out_path=folder, backend="pt", transforms=extractor.get_transformations())
    batches = DataLoader(images, batch_size=64, backend="pt")
    started_s = time.perf_counter()
    features = extractor.extract_features(batches, module_name="features", flatten_acts=False, output_type="ndarray")
    print(len(features) / (time.perf_counter() - started_s))
"""


def thingsvision(python: Path, images: Path) -> float:
    """Return images a second."""
    command = [str(python), "-c", _THINGSVISION, str(images)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--thingsvision", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    split = split_of(file_images(sorted(arguments.images.rglob("*.jpg"))))
    rates = medians(
        {
            "thingsvision": partial(thingsvision, arguments.thingsvision, arguments.images),
            "featbench, float32": partial(extract, "squeezenet1_1", "float32", split),
            "featbench, bfloat16": partial(extract, "squeezenet1_1", "bfloat16", split),
        },
        arguments.repeats,
    )
    for name, rate in rates.items():
        print(f"{name}: {rate:.1f} images a second, {rate / rates['thingsvision']:.1f} times thingsvision")


if __name__ == "__main__":
    main()
