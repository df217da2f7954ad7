"""Peak memory and seconds of the linear SVC on features that do not fit its memory, against all of them in memory.

Cache files of made-up features are written block by block; then each way runs in a process of its own, from the cache
to the test predictions. The memory is what the process itself holds (RssAnon, sampled every 5 ms; pages of files that
the system keeps at hand and takes back are not in it) beyond what it held after a first small fit. Linux only.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from featbench.classifiers.fit_and_test import Fitted, fit_and_test
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.rows import LabelledFeatures
from featbench.config import EvaluateConfig
from featbench.features.cache import CacheKey, read_info, write_cache
from featbench.runs.feature_sets import CachedNetwork, FeatureSet
from featbench.runs.on_disk import load_on_disk

LAYER = "made_up"
BLOCK = 1000
WAYS = ("blocks", "memory")


def make_caches(folder: Path, n_rows: int, width: int, n_classes: int, store: str) -> None:
    """Write a training and a test split, a quarter as large: classes that overlap, correlated features."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(width, width)) * np.arange(1, width + 1) ** -0.5
    centres = 0.7 * rng.normal(size=(n_classes, width))
    for split, count in (("train", n_rows), ("test", n_rows // 4)):
        with write_cache(key_of(folder, split), {LAYER: width}, store) as writer:
            for start in range(0, count, BLOCK):
                y = rng.integers(0, n_classes, min(BLOCK, count - start))
                X = np.maximum(0, (rng.normal(size=(len(y), width)) + centres[y]) @ mixing.T)
                ids = [f"{split}/{start + row}" for row in range(len(y))]
                writer.append({LAYER: X.astype(np.float32).astype(store)}, y, ids)
            writer.finish(key_of(folder, split), [], 1.0)


def key_of(folder: Path, split: str) -> CacheKey:
    return CacheKey(folder, "made_up", "none", split, {"split": split})


def source_of(folder: Path, store: str) -> FeatureSet:
    keys = {split: key_of(folder, split) for split in ("train", "test")}
    infos = {split: read_info(key.path) for split, key in keys.items()}
    identity, extraction = SimpleNamespace(name="none"), SimpleNamespace(store=store)
    cached = SimpleNamespace(keys=keys, infos=infos, identity=identity, extraction=extraction)
    return FeatureSet(((cast(CachedNetwork, cached), LAYER),))


def own_bytes() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def sampled(peak: dict[str, float]) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak["bytes"] = max(peak["bytes"], own_bytes())

    start = own_bytes()
    peak["bytes"] = start
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        peak["bytes"] -= start


def fit(splits: dict[str, LabelledFeatures], n_classes: int) -> Fitted:
    grids = {"linear_svc": {"C": [1e-5, 1e-4, 1e-3]}}
    config = EvaluateConfig(classifiers=("linear_svc",), grids=grids, selection="holdout")
    return fit_and_test(CLASSIFIERS["linear_svc"], splits["train"], None, splits["test"], config, 0, n_classes)


def run_way(way: str, folder: Path, n_classes: int, memory_gb: float, store: str) -> dict[str, Any]:
    source = source_of(folder, store)
    rng = np.random.default_rng(0)
    small = LabelledFeatures(rng.normal(size=(600, 8)), np.arange(600) % n_classes, ("",) * 600)
    fit({"train": small, "test": small}, n_classes)  # libraries set themselves up
    peak = {"bytes": 0.0}
    started_s = time.perf_counter()
    with sampled(peak):
        if way == "blocks":
            splits = load_on_disk(source, folder, memory_gb * 1e9)
        else:
            splits = {split: source.load(split) for split in source.splits}
        fitted = fit(splits, n_classes)
    return {
        "seconds": time.perf_counter() - started_s,
        "peak_mb": peak["bytes"] / 1e6,
        "C": fitted.params["C"],
        "accuracy": float((fitted.predicted == splits["test"].y).mean()),
        "predictions": hashlib.sha256(fitted.predicted.tobytes()).hexdigest(),
    }


def compare(n_rows: int, width: int, n_classes: int, memory_gb: float, store: str) -> dict[str, dict[str, Any]]:
    """Return what each way took and found."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        make_caches(Path(folder), n_rows, width, n_classes, store)
        for way in WAYS:
            command = [sys.executable, "-m", "tests.row_blocks", way, folder, str(n_classes), str(memory_gb), store]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[way] = json.loads(done.stdout)
    return results


if __name__ == "__main__":
    way, folder, n_classes, memory_gb, store = sys.argv[1:]
    sys.stdout.write(json.dumps(run_way(way, Path(folder), int(n_classes), float(memory_gb), store)))
