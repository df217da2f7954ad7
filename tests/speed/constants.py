"""Whether the tuned constants of the linear solvers pay on this machine: seconds of the processor with and without.

    python -m tests.speed.constants [--threads 1] [--scale 1.0]

One fit: PrimalLinearSVC at C = 1, 10,000 x 512, with factors of Hessians or without; wide: seven C and three folds,
1,500 x 1,100, into row space when `rows_are_cheaper` says so or never; few columns: 100 products of 2 and 5 columns
with 10,000 x 512 rows, transposed or not. --scale takes that part of the rows, to try the script.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from featbench.solvers import PrimalLinearSVC, linear_grid, linear_path, products
from featbench.solvers.linear_folds import LinearSettings
from tests.speed.solvers import CS, make


def seconds(job: Callable[[], Any], module: Any = None, name: str = "", value: Any = None) -> float:
    """Time a job, with another value of a module's constant if one is given."""
    with ExitStack() as changes:
        if module is not None:
            changes.enter_context(patch.object(module, name, value))
        started_s = time.process_time()
        job()
        return time.process_time() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| constant | job | with, s | without, s |\n| --- | --- | ---: | ---: |")

    X, y = make(int(10_000 * arguments.scale), 512)
    X = StandardScaler().fit_transform(X)
    one = partial(PrimalLinearSVC(C=1.0, tol=1e-6).fit, X, y)
    found = seconds(one), seconds(one, linear_grid, "FACTOR_BYTES", 0)
    print("| FACTOR_BYTES | one fit | {:.2f} | {:.2f} |".format(*found), flush=True)

    wide, labels = make(int(1_500 * arguments.scale), 1_100)
    splits = list(StratifiedKFold(3, shuffle=True, random_state=0).split(labels, labels))
    grid = partial(linear_grid.linear_grid, wide, labels, splits, CS, LinearSettings())
    found = seconds(grid), seconds(grid, linear_grid, "fit_path", partial(linear_path.fit_path, row_cost=0))
    print("| ROW_COST | wide | {:.2f} | {:.2f} |".format(*found), flush=True)

    rows = products.SharedRows(torch.from_numpy(X.astype(np.float32)), None, None, 1.0)
    for columns in (2, 5):
        V = torch.ones(513, columns)
        job = partial(lambda V: [rows.blockwise_product(V, lambda part, values: values) for _ in range(100)], V)
        found = seconds(job), seconds(job, products, "_NARROW", 0)
        print("| _NARROW | {} columns | {:.2f} | {:.2f} |".format(columns, *found), flush=True)


if __name__ == "__main__":
    main()
