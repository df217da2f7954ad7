"""One table of all stages against what one would use otherwise, as ratios, in one sitting.

    THP_MEM_ALLOC_ENABLE=1 python -m tests.speed.summary [--images FOLDER] [--features CACHE.h5] [--repeats 3]

| row | featbench | against |
| --- | --- | --- |
| a search | the built-in grid, five folds and the final fit | `GridSearchCV` on all cores, same grid, as many folds |
| extraction, prediction | JPEG files to cached features; to classes | a DataLoader loop, float32, to features |
| a run again | `featbench run` with nothing left to do | its first run |

Seconds are wall-clock; those of photos are for --count of them. Each is the median of the repeats, which take turns,
so that a change of the machine's pace meets both sides. Networks have random weights, and features are made up unless
--features names a cache file: neither changes the work. The table goes to stdout, what is going on to stderr. It takes
some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from featbench.data.images import file_images
from tests.speed.extraction import extract, made_up_photos, plain_loop, split_of
from tests.speed.medians import medians
from tests.speed.prediction import predict, train
from tests.speed.solvers import make, ours, read, seconds

NETWORK = "squeezenet1_1"
_AGAIN = ("digits", "--set", "baselines=[]", "--set", "backbones.0.layers=['layer3']", "--device", "cpu", "--quiet")


def searches(width: int) -> dict[str, GridSearchCV]:
    """Return what scikit-learn's users write, by classifier, with the grids that featbench has built in."""
    Cs = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    gammas = [factor / width for factor in (0.1, 0.3, 1.0)]
    neighbours = {"n_neighbors": [1, 3, 5, 10, 20], "metric": ["cosine", "euclidean"], "weights": ["distance"]}
    candidates = {
        "linear_svc": (StandardScaler(), LinearSVC(dual=False), {"C": Cs}),
        "svm_rbf": (StandardScaler(), SVC(break_ties=True), {"C": [1.0, 10.0, 100.0], "gamma": gammas}),
        "logistic_regression": (StandardScaler(), LogisticRegression(max_iter=1000), {"C": [10 * C for C in Cs]}),
        "knn": ("passthrough", KNeighborsClassifier(algorithm="brute"), neighbours),
    }
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    found = {}
    for name, (scaler, model, grid) in candidates.items():
        pipeline = make_pipeline(scaler, model)
        step = pipeline.steps[-1][0]
        named = {f"{step}__{key}": values for key, values in grid.items()}
        found[name] = GridSearchCV(pipeline, named, cv=cv, n_jobs=-1)
    return found


def run_again(home: Path) -> tuple[float, float]:
    """Return the seconds of a first run, and of the same command with nothing left to do."""
    command = [sys.executable, "-m", "featbench", "run", *_AGAIN, "--results", str(home / "results")]
    command += ["--cache", str(home / "cache")]
    taken = []
    for _ in range(2):
        started_s = time.perf_counter()
        subprocess.run(command, check=True)
        taken.append(time.perf_counter() - started_s)
    return taken[0], taken[1]


def compare(work: str, other: str, jobs: tuple[Callable[[], float], Callable[[], float]], repeats: int) -> None:
    """Measure both sides, and print their row."""
    with redirect_stdout(sys.stderr):
        theirs_s, mine_s = medians({other: jobs[0], f"featbench, {work}": jobs[1]}, repeats).values()
    print_row(work, other, theirs_s, mine_s)


def print_row(work: str, other: str, theirs_s: float, mine_s: float) -> None:
    print(f"| {work} | {other} | {theirs_s:.2f} | {mine_s:.2f} | {theirs_s / mine_s:.1f} |", flush=True)


def compare_searches(X: np.ndarray, y: np.ndarray, repeats: int) -> None:
    with redirect_stdout(sys.stderr):  # processes start, libraries are imported
        for name, search in searches(X.shape[1]).items():
            search.fit(X[:200], y[:200])
            ours(name, {}, X[:200], y[:200])
    titles = {
        "linear_svc": "linear SVC, 6 C",
        "svm_rbf": "SVM-RBF, 3 C x 3 gamma",
        "logistic_regression": "softmax regression, 6 C",
        "knn": "k-NN, 5 k x 2 metrics",
    }
    for name, search in searches(X.shape[1]).items():
        jobs = (lambda s=search: seconds(lambda: s.fit(X, y)), lambda n=name: seconds(lambda: ours(n, {}, X, y)))
        compare(f"{titles[name]}, {len(X):,} x {X.shape[1]}", "GridSearchCV", jobs, repeats)


def compare_photos(paths: list[Path], count: int, repeats: int, home: Path) -> None:
    repeated = [paths[row % len(paths)] for row in range(count)]
    files = split_of(file_images(repeated))

    def loop() -> float:
        return count / plain_loop(NETWORK, repeated)

    for precision in ("float32", "bfloat16"):
        title = f"{count} photos, {NETWORK}, {precision}"
        jobs = (loop, lambda p=precision: count / extract(NETWORK, p, files))
        compare(f"extraction, {title}", "DataLoader loop", jobs, repeats)
    results = train(home / "prediction", NETWORK, "float32", paths)
    model = f"linear_svc/{NETWORK}/penultimate"
    jobs = (loop, lambda: count / predict(results, model, repeated))
    compare(f"prediction, {count} photos, {NETWORK}, float32", "DataLoader loop", jobs, repeats)


def machine() -> str:
    """Say what was measured on."""
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "scikit-learn": sklearn.__version__}
    versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    cpu = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} CPU cores ({cpu}), {versions}, commit {commit.stdout.strip() or 'unknown'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files, searched through")
    parser.add_argument("--features", type=Path, help="a cache file to take rows of, of ten classes")
    parser.add_argument("--layer", default="penultimate", help="of the cache file")
    parser.add_argument("--rows", type=int, default=4_000, help="of the searches")
    parser.add_argument("--width", type=int, default=512, help="of features that are made up")
    parser.add_argument("--count", type=int, default=512, help="photos")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=["searches", "photos", "again"], default=())
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    os.environ["PYTHONWARNINGS"] = "ignore"  # of GridSearchCV's processes
    only = arguments.only or ["searches", "photos", "again"]
    print(f"On {machine()}:\n")
    print("| work | against | seconds | featbench | times as fast |\n| --- | --- | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if "searches" in only:
            made_up = arguments.features is None
            X, y = make(arguments.rows, arguments.width) if made_up else read(arguments.features, arguments.layer)
            compare_searches(X[: arguments.rows], y[: arguments.rows], arguments.repeats)
        if "photos" in only:
            (home / "made_up").mkdir()
            paths = sorted(arguments.images.rglob("*.jpg")) if arguments.images else made_up_photos(home / "made_up")
            compare_photos(paths, arguments.count, arguments.repeats, home)
        if "again" in only:
            print_row("a run with nothing left to do", "its first run", *run_again(home / "again"))


if __name__ == "__main__":
    main()
