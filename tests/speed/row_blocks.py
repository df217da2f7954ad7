"""Peak memory and seconds of the linear SVC on features that do not fit its memory, against all of them in memory.

    python -m tests.speed.row_blocks [--rows 100000] [--width 512] [--classes 10] [--memory-gb 0.1] [--store float16]

See `tests.row_blocks` for what is measured, and how.
"""

from __future__ import annotations

import argparse

import numpy as np

from tests.row_blocks import compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--memory-gb", type=float, default=0.1)
    parser.add_argument("--store", choices=["float32", "float16"], default="float32")
    asked = parser.parse_args()
    results = compare(asked.rows, asked.width, asked.classes, asked.memory_gb, asked.store)
    features_mb = 1.25 * asked.rows * asked.width * np.dtype(asked.store).itemsize / 1e6
    print(f"{asked.rows:,} + {asked.rows // 4:,} rows x {asked.width}, {asked.classes} classes, {asked.store}")
    print(f"features {features_mb:.0f} MB, memory given {1000 * asked.memory_gb:.0f} MB\n")
    print("| features in | peak MB | seconds | C | test accuracy |\n| --- | ---: | ---: | ---: | ---: |")
    for way, found in results.items():
        print(f"| {way} | {found['peak_mb']:.0f} | {found['seconds']:.1f} | {found['C']} | {found['accuracy']:.4f} |")
    same = results["blocks"]["predictions"] == results["memory"]["predictions"]
    print(f"\nTest predictions are {'the same' if same else 'not all the same'}.")


if __name__ == "__main__":
    main()
