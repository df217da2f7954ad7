"""The stages of a run, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from featbench.results.store import write_current
from featbench.runs.classify import classify
from featbench.runs.extract import extract
from featbench.runs.feature_sets import CachedNetwork
from featbench.runs.resolve import Run
from featbench.runs.tables import write_tables


def run_stages(run: Run, stages: Sequence[str]) -> pd.DataFrame:
    """Run some stages of a prepared run; return the experiment's rows of results.csv.

    Raises:
        SystemExit: This process helped with a training of several processes, which is done.
    """
    config = run.experiment.evaluate
    is_main = True
    cached: list[CachedNetwork] | None = None
    done: dict[str, list[str]] = {}  # kind of row -> fingerprints of this experiment's rows
    if "extract" in stages and (config.classifiers or "evaluate" not in stages):  # else nobody reads the features
        cached = extract(run)
    if "evaluate" in stages:
        done["classifier"] = classify(run, cached)
    if "baseline" in stages and run.experiment.baselines:
        from featbench.runs.train import is_main_process, train  # Lightning takes seconds to import

        done["baseline"] = train(run)
        is_main = is_main_process(run)
    if not any(done.values()):
        return pd.DataFrame()
    rows = run.table.load()
    # rows of earlier settings stay in results.csv but not in the tables; kinds that were not run stay in both
    rows = rows[[kind not in done or row in done[kind] for kind, row in zip(rows.kind, rows.fingerprint, strict=True)]]
    rows = rows.reset_index(drop=True)
    if not is_main:
        return rows  # the main process writes
    write_current(run.results_dir, rows)
    statistics = write_tables(run.results_dir, rows, run.progress.warn)
    if "report" in stages:
        from featbench.runs.pictures import write_pictures
        from featbench.runs.report import PAGE, write_report  # the libraries of the page take seconds to import

        write_pictures(run, statistics, cached)
        write_report(run.results_dir, statistics, run.progress.warn, run.results_dir / PAGE)
    return rows
