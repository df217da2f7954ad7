"""How fast stage 2's own solvers are, against scikit-learn on the same rows in the same run.

    python -m tests.speed.solvers [--features CACHE.h5 --layer NAME] [--rows 10000] [--repeats 1] [--only linear]

1. linear: seven values of C, five folds and the refit, against ONE fit of LinearSVC at the chosen C, the better of dual
   and primal.
2. wide: the same grid on more features, against GridSearchCV(LinearSVC) in its dual form, the faster one there, of
   which one fold of a few C is run, and the rest counted at their mean.
3. logistic: six C and five folds against GridSearchCV(LogisticRegression), likewise.
4. kernel: four C, three gamma and five folds against GridSearchCV(SVC), likewise.
5. default: the three default classifiers with their own grids and five folds (forests: out of bag) against
   GridSearchCV, likewise; and the sums.

At full size: --rows 50000, --wide-rows 10000, --kernel-rows 10000; that takes hours of scikit-learn.

Features are those of a cache file or else made up: rectified, correlated, their spectrum falling as that of a network's
features does. Figures are medians of the repeats, which take turns. --clock processor counts the seconds of all
processors, which other work on the machine bears on less than on seconds by the wall.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from featbench.classifiers.params import candidates
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.select import fit, select
from featbench.config import EvaluateConfig
from featbench.features.load import load_features
from tests.speed.medians import medians

CS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LOGISTIC_CS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
KERNEL_CS = (1.0, 3.0, 10.0, 100.0)
GAMMAS = (0.1, 0.3, 1.0)
CLASSES = 10
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
clock = "wall"


def read(cache: Path, layer: str) -> tuple[np.ndarray, np.ndarray]:
    X, y, _ = load_features(cache, layer)
    order = np.random.default_rng(0).permutation(len(y))
    return X[order].astype(np.float32), y[order]


def make(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, n)
    mixing = rng.normal(size=(d, d)) * np.arange(1, d + 1) ** -0.7
    latent = rng.normal(size=(n, d)) + 0.35 * rng.normal(size=(CLASSES, d))[y]
    return np.maximum(0, latent @ mixing.T).astype(np.float32), y


def seconds(job: Callable[[], Any]) -> float:
    started_s = CLOCKS[clock]()
    job()
    return CLOCKS[clock]() - started_s


def ours(name: str, grid: Mapping[str, Any], X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    config = EvaluateConfig(classifiers=(name,), selection="cv", folds=5, grids={name: dict(grid)} if grid else {})
    chosen = select(CLASSIFIERS[name], X, y, len(y), config, seed=0)
    print(f"{name}: {chosen.engine} chose {chosen.params}", flush=True)
    if chosen.model is None:
        fit(CLASSIFIERS[name], chosen.params, X, y, 0, chosen.solver)
    return chosen.params


def theirs(models: list[Any], X: np.ndarray, y: np.ndarray) -> float:
    """Fit and score the models on one fold, and return the mean seconds of one."""
    kept, out = next(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    pipelines = [m if isinstance(m, Pipeline) else make_pipeline(StandardScaler(), m) for m in models]
    return sum(seconds(lambda p=p: p.fit(X[kept], y[kept]).score(X[out], y[out])) for p in pipelines) / len(models)


def report(title: str, times: dict[str, float], fits: int = 1) -> None:
    mine, *others = times.values()
    print(f"\n{title}\n\n| job | seconds | of featbench's |\n| --- | ---: | ---: |")
    for job, taken in times.items():
        total = taken if job.startswith("featbench") else taken * fits
        print(f"| {job} | {total:.2f} | {total / mine:.2f} |")
    print(f"\nThe best of the others takes {min(others) * fits / mine:.2f} times as long.", flush=True)


def described(name: str, X: np.ndarray) -> str:
    return f"{name}, n = {len(X)}, d = {X.shape[1]}, {torch.get_num_threads()} threads, {clock} clock"


def linear(X: np.ndarray, y: np.ndarray, repeats: int) -> None:
    chosen = ours("linear_svc", {"C": CS}, X, y)["C"]
    scaled = StandardScaler().fit_transform(X)
    jobs = {
        f"featbench: {len(CS)} C x 5 folds + refit": lambda: seconds(lambda: ours("linear_svc", {"C": CS}, X, y)),
        f"one LinearSVC(dual=False), C={chosen}": lambda: seconds(
            lambda: LinearSVC(C=chosen, dual=False).fit(scaled, y)
        ),
        f"one LinearSVC(dual=True), C={chosen}": lambda: seconds(lambda: LinearSVC(C=chosen, dual=True).fit(scaled, y)),
    }
    report(described("linear", X), medians(jobs, repeats))


def wide(X: np.ndarray, y: np.ndarray, repeats: int, part: tuple[float, ...]) -> None:
    jobs = {
        f"featbench: {len(CS)} C x 5 folds + refit": lambda: seconds(lambda: ours("linear_svc", {"C": CS}, X, y)),
        f"GridSearchCV(LinearSVC), from one fold of C in {part}": lambda: theirs(
            [LinearSVC(C=C, dual=True) for C in part], X, y
        ),
    }
    report(described("wide", X), medians(jobs, repeats), fits=5 * len(CS) + 1)


def logistic(X: np.ndarray, y: np.ndarray, repeats: int) -> None:
    grid = {"C": LOGISTIC_CS, "max_iter": (1000,)}
    jobs = {
        f"featbench: {len(LOGISTIC_CS)} C x 5 folds + refit": lambda: seconds(
            lambda: ours("logistic_regression", grid, X, y)
        ),
        "GridSearchCV(LogisticRegression), from one fold": lambda: theirs(
            [LogisticRegression(C=C, max_iter=1000) for C in LOGISTIC_CS], X, y
        ),
    }
    report(described("logistic", X), medians(jobs, repeats), fits=5 * len(LOGISTIC_CS) + 1)


def kernel(X: np.ndarray, y: np.ndarray, repeats: int) -> None:
    d = X.shape[1]
    grid = {"C": KERNEL_CS, "gamma_scale": GAMMAS}
    jobs = {
        "featbench: 4 C x 3 gamma x 5 folds + refit": lambda: seconds(lambda: ours("svm_rbf", grid, X, y)),
        "GridSearchCV(SVC), from one fold": lambda: theirs(
            [SVC(C=C, gamma=gamma / d, break_ties=True) for C in KERNEL_CS for gamma in GAMMAS], X, y
        ),
    }
    report(described("kernel", X), medians(jobs, repeats), fits=5 * len(KERNEL_CS) * len(GAMMAS) + 1)


def default(X: np.ndarray, y: np.ndarray, repeats: int) -> None:
    def counted(name: str) -> float:
        grid = candidates(CLASSIFIERS[name], EvaluateConfig(classifiers=(name,)))
        models = [CLASSIFIERS[name].make(params, 0, X.shape[1]) for params in grid]
        return theirs(models, X, y) * (5 * len(grid) + 1)

    names = EvaluateConfig().classifiers
    times = {}
    for name in names:
        jobs = {
            f"featbench, {name}": lambda name=name: seconds(lambda: ours(name, {}, X, y)),
            f"GridSearchCV, {name}, from one fold": lambda name=name: counted(name),
        }
        times[name] = list(medians(jobs, repeats).values())
        report(described(f"default grid, {name}", X), dict(zip(jobs, times[name], strict=True)))
    mine, others = (sum(part) for part in zip(*times.values(), strict=True))
    report(described("default grids, all", X), {"featbench": mine, "GridSearchCV, from one fold": others})


def main() -> None:
    global clock
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["linear", "wide", "logistic", "kernel", "default"]
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    parser.add_argument("--features", type=Path, help="a cache file to take rows of, of ten classes")
    parser.add_argument("--layer", default="penultimate", help="of the cache file")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512, help="of features that are made up")
    parser.add_argument("--wide-rows", type=int, default=500)
    parser.add_argument("--wide-width", type=int, default=4_608, help="of features that are made up")
    parser.add_argument(
        "--wide-part", type=float, nargs="*", default=[1e-5, 1e-3], help="values of C that GridSearchCV runs"
    )
    parser.add_argument("--kernel-rows", type=int, default=2_500)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    arguments = parser.parse_args()
    clock = arguments.clock
    warnings.simplefilter("ignore", ConvergenceWarning)

    def rows(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
        X, y = read(arguments.features, arguments.layer) if arguments.features else make(n, d)
        return X[:n], y[:n]

    if "linear" in arguments.only:
        linear(*rows(arguments.rows, arguments.width), arguments.repeats)
    if "wide" in arguments.only:
        wide(*rows(arguments.wide_rows, arguments.wide_width), arguments.repeats, tuple(arguments.wide_part))
    if "logistic" in arguments.only:
        logistic(*rows(arguments.rows, arguments.width), arguments.repeats)
    if "kernel" in arguments.only:
        kernel(*rows(arguments.kernel_rows, arguments.width), arguments.repeats)
    if "default" in arguments.only:
        default(*rows(arguments.kernel_rows, arguments.width), arguments.repeats)


if __name__ == "__main__":
    main()
