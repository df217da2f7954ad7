"""The stages in order: images in, tables and a page out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from featbench.progress import Progress
from featbench.progress_bars import follow
from featbench.results.store import write_current
from featbench.runs.classify import classify
from featbench.runs.extract import extract
from featbench.runs.feature_sets import CachedNetwork
from featbench.runs.plan import describe_plan
from featbench.runs.resolve import Run, Source, is_folder, resolve
from featbench.runs.tables import write_tables

STAGES = ("extract", "evaluate", "baseline", "report")


def run(
    experiment: Source,
    *,
    results: str | Path | None = None,
    cache: str | Path | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
    offline: bool = False,
    stages: Sequence[str] = STAGES,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Run an experiment: extract features, train and test classifiers and networks, write the tables and the page.

    What is already in the cache and in results.csv is reused; to do it again, delete the results folder.

    Args:
        experiment: A built-in name, the path of a TOML file or of a folder of images, a dict of what such a file holds,
            or an `Experiment`.
        results: This run's own folder; `results/NAME` where it is None.
        cache: Where feature caches are kept; None is `$FEATBENCH_HOME/features`, or `~/.cache/featbench/features`.
        data: torchvision's root for data sets; None is `$FEATBENCH_HOME/data`, or `~/.cache/featbench/data`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        overrides: `KEY=VALUE` settings that replace what the experiment says.
        offline: Forbid downloads.
        stages: Which of "extract", "evaluate", "baseline" and "report" (the pictures and the page) to run.
        progress: Whether to show messages and bars on stderr; None shows them in a terminal and in a notebook. Or
            something of your own that takes them.

    Returns:
        The experiment's rows of results.csv, with those of stages that did not run this time; empty after "extract".

    Raises:
        SystemExit: Lightning ran this program again, to help with a training of several processes, which is done.
        FeatbenchError: Something went wrong; the message says what, and what to do. `UsageError` is the kind where
            the experiment or an argument is wrong.
    """
    with follow(progress) as shown:
        resolved = resolve(
            experiment,
            results=results,
            cache=cache,
            data=data,
            device=device,
            overrides=overrides,
            offline=offline,
            progress=shown,
        )
        plan = describe_plan(resolved, stages) if is_folder(experiment) else None  # nobody wrote down what will be done
        resolved.prepare()
        for line in resolved.dataset.remarks if plan is None else plan:
            resolved.progress.say(line)
        return _run_stages(resolved, stages)


def _run_stages(run: Run, stages: Sequence[str]) -> pd.DataFrame:
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
        from featbench.report.build import write_report  # the libraries of the page take seconds to import
        from featbench.runs.pictures import write_pictures

        write_pictures(run, statistics, cached)
        write_report(run.results_dir, statistics, run.progress.warn)
    return rows
