"""What compressing cached features saves and costs, on real ones.

    python -m tests.speed.compression CACHE_FILE...

Every layer of the files is written and read in the chunks of a cache file, checksummed, three times; medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from featbench.features.cache import describe_cache
from featbench.features.load import load_features

METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip 1, bytes shuffled": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    "lz4, bits shuffled": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "zstd 3, bits shuffled": dict(hdf5plugin.Bitshuffle(cname="zstd", clevel=3)),
}
MEGABYTES = 50


def measure(rows: np.ndarray[Any, Any], method: dict[str, Any], path: Path) -> tuple[float, float, float]:
    """Return size as a share of the numbers', and megabytes a second written and read."""
    count = max(1, (1 << 18) // (rows.shape[1] * rows.itemsize))
    started_s = time.perf_counter()
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", data=rows, chunks=(min(count, len(rows)), rows.shape[1]), fletcher32=True, **method)
    written_s = time.perf_counter()
    with h5py.File(path) as file:
        again = file["rows"][:]
    read_s = time.perf_counter()
    assert np.array_equal(again, rows)
    megabytes = rows.nbytes / 1e6
    return path.stat().st_size / rows.nbytes, megabytes / (written_s - started_s), megabytes / (read_s - written_s)


def main() -> None:
    print("| network ran in | stored as | compression | size | MB/s written | MB/s read |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for name in sys.argv[1:]:
        info, content = describe_cache(Path(name))
        for layer in info.widths:
            rows = load_features(name, layer)[0]
            rows = np.concatenate([rows] * max(1, round(MEGABYTES * 1e6 / rows.nbytes)))
            for stored in ("float32", "float16"):
                for label, method in METHODS.items():
                    with tempfile.TemporaryDirectory() as folder:
                        found = [measure(rows.astype(stored), method, Path(folder) / "rows.h5") for _ in range(3)]
                    size, written, read = (statistics.median(column) for column in zip(*found, strict=True))
                    print(f"| {content['precision']} | {stored} | {label} | {size:.2f} | {written:.0f} | {read:.0f} |")


if __name__ == "__main__":
    main()
