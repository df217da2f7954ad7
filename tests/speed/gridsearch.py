"""The accuracies and seconds of a finished experiment beside those of scikit-learn's GridSearchCV.

    python -m tests.speed.gridsearch EXPERIMENT.toml --results DIR --cache DIR --data DIR

For every classifier row on all training rows: GridSearchCV over the same grid, on the same splits and the same cached
features, refitted on the same rows and scored on the same test rows. Forests chosen by their out-of-bag score are left
out, since GridSearchCV has none. Seconds of featbench are those of results.csv, so run both on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from featbench.backbones.device import resolve_device
from featbench.classifiers.params import candidates
from featbench.classifiers.registry import get_classifier
from featbench.classifiers.rows import final_rows, splits_of
from featbench.classifiers.spec import GAMMA_SCALE
from featbench.config import load_experiment
from featbench.results.store import load_results
from featbench.runs.extract import find_cached
from featbench.runs.feature_sets import feature_sets
from featbench.runs.resolve import Run
from featbench.stats.models import main_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    for name in ("results", "cache", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="classifiers")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    experiment = load_experiment(arguments.experiment)
    job = Run(experiment, arguments.results, arguments.cache, arguments.data, resolve_device("cpu"), offline=True)
    rows = main_rows(load_results(arguments.results))
    print("| layer | method | rows | accuracy | seconds | of GridSearchCV | seconds | times | same parameters |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for source in feature_sets(find_cached(job), experiment.evaluate.fusions):
        mine = rows[(rows["backbone"] == source.backbone) & (rows["weights"] == source.weights)]
        mine = mine[(mine["layer"] == source.layer) & (mine["kind"] == "classifier") & mine["steps"].isna()]
        splits = {name: source.load(name) for name in source.splits}
        train, val, test = splits["train"], splits.get("val"), splits["test"]
        X = train.X if val is None else np.concatenate([train.X, val.X])
        y = train.y if val is None else np.concatenate([train.y, val.y])
        n_final = final_rows(len(train.y), len(y) - len(train.y), experiment.evaluate)
        for row in mine.to_dict("records"):
            if row["selection"] not in ("cv", "holdout") or (arguments.only and row["method"] not in arguments.only):
                continue
            spec = get_classifier(row["method"])
            grid = [
                {"gamma" if k == GAMMA_SCALE else k: [v / X.shape[1] if k == GAMMA_SCALE else v] for k, v in c.items()}
                for c in candidates(spec, experiment.evaluate)
            ]
            pipeline = spec.make({}, row["seed"], X.shape[1])
            step = pipeline.steps[-1][0]
            grid = [{f"{step}__{key}": values for key, values in candidate.items()} for candidate in grid]
            cv = splits_of(row["selection"], y, len(train.y), n_final, experiment.evaluate.folds, row["seed"])
            started_s = time.perf_counter()
            search = GridSearchCV(pipeline, grid, cv=cv, n_jobs=None if spec.all_cores else -1, refit=False).fit(X, y)
            best = pipeline.set_params(**search.best_params_).fit(X[:n_final], y[:n_final])
            accuracy = best.score(test.X, test.y)
            taken_s = time.perf_counter() - started_s
            recorded = json.loads(row["params"])
            same = all(
                np.isclose(recorded[key.split("__")[1]], value)
                if isinstance(value, float)
                else recorded[key.split("__")[1]] == value
                for key, value in search.best_params_.items()
            )
            own_s = row["fit_s"] + row["predict_s"]
            ours = f"{row['accuracy']:.4f} | {own_s:.2f}"
            theirs = f"{accuracy:.4f} | {taken_s:.2f} | {taken_s / own_s:.1f} | {'yes' if same else 'no'}"
            print(f"| {source.layer} | {row['method']} | {n_final} | {ours} | {theirs} |", flush=True)


if __name__ == "__main__":
    main()
