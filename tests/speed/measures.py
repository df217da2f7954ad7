"""How long the statistics of a results folder take, by models, test rows and classes (`SIZES`).

    python -m tests.speed.measures

Seconds of CPU of metrics.csv, of which the bootstrap is nearly all, for models with probabilities, made up; and of
comparisons.csv beside it.
"""

from __future__ import annotations

from time import process_time

import numpy as np

from featbench.stats.comparisons import compare_models
from featbench.stats.measures import metric_table
from featbench.stats.models import Predictions

SIZES = ((50, 10_000, 10), (20, 10_000, 100), (5, 10_000, 1_000))  # models, rows, classes


def answers(number: int, n_rows: int, n_classes: int) -> Predictions:
    rng = np.random.default_rng(number)
    labels = np.arange(n_rows) % n_classes
    scores = np.exp(rng.normal(size=(n_rows, n_classes)))
    scores[np.arange(n_rows), labels] *= 3 * n_classes**0.5
    scores /= scores.sum(axis=1, keepdims=True)
    return Predictions(
        fingerprint=f"f{number}",
        name=f"model {number}",
        dataset="made up",
        classes=tuple(f"class {k}" for k in range(n_classes)),
        ids=np.arange(n_rows).astype(str).astype(object),
        labels=labels,
        predicted=scores.argmax(axis=1),
        scores=scores,
    )


def main() -> None:
    print("| models | rows | classes | accuracy | metrics.csv, CPU s | comparisons.csv, CPU s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for n_models, n_rows, n_classes in SIZES:
        models = [answers(number, n_rows, n_classes) for number in range(n_models)]
        started = process_time()
        table = metric_table(models)
        measured = process_time()
        compare_models(models, print)
        compared = process_time()
        accuracy = table.loc[table["metric"] == "accuracy", "value"].mean()
        seconds = f"{measured - started:.1f} | {compared - measured:.1f}"
        print(f"| {n_models} | {n_rows:,} | {n_classes:,} | {accuracy:.2f} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
