"""The stages in order: images in, tables and a page out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from featbench.backbones.available import BUNDLED, available_backbone
from featbench.backbones.device import resolve_device
from featbench.config import Experiment, builtin_experiments, load_experiment
from featbench.places import data_sets, expand_user, feature_caches
from featbench.progress import Progress, Silent
from featbench.progress_bars import follow
from featbench.report.tables import write_accuracy_tables, write_statistics
from featbench.results.store import load_results, write_current
from featbench.runs.classify import evaluate
from featbench.runs.extract import extract
from featbench.runs.pictures import write_pictures
from featbench.runs.plan import describe_plan
from featbench.runs.resolve import Job

STAGES = ("extract", "evaluate", "baseline", "report")
Source = str | Path | Mapping[str, Any] | Experiment
_MORE_OF_BUNDLED = ('backbones.0.layers=["layer2", "layer3"]', "backbones.0.pooling=avg:4")  # its last layer is narrow


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
        job = make_job(
            experiment,
            results=results,
            cache=cache,
            data=data,
            device=device,
            overrides=overrides,
            offline=offline,
            progress=shown,
        )
        if _is_folder(experiment):  # nobody wrote down what will be done
            for line in describe_plan(job, stages):
                shown.say(line)
        return _run(job, stages)


def make_job(
    experiment: Source,
    *,
    results: str | Path | None = None,
    cache: str | Path | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
    offline: bool = False,
    progress: Progress | None = None,
) -> Job:
    """Settle what a run is about, from the arguments of `run`; nothing is read or written but the experiment.

    A folder of images takes the pretrained backbone that is at hand, unless an override names one.

    Raises:
        UsageError: The experiment or an argument is wrong.
    """
    progress = progress or Silent()
    if _is_folder(experiment) and not any(override.startswith("backbones") for override in overrides):
        name, why = available_backbone(offline=offline)
        progress.say(f"backbone     {name}: {why}; --set backbones.0.name=NAME takes another")
        overrides = [*(_MORE_OF_BUNDLED if name == BUNDLED else ()), f"backbones.0.name={name}", *overrides]
    loaded = load_experiment(experiment, overrides)
    return Job(
        experiment=loaded,
        results_dir=expand_user(results) if results is not None else Path("results") / loaded.name,
        cache_dir=feature_caches(cache),
        data_dir=data_sets(data),
        device=resolve_device(device),
        offline=offline,
        progress=progress,
    )


def _is_folder(experiment: Source) -> bool:
    if isinstance(experiment, Experiment | Mapping) or str(experiment) in builtin_experiments():
        return False
    return bool(str(experiment)) and expand_user(experiment).is_dir()


def _run(job: Job, stages: Sequence[str]) -> pd.DataFrame:
    experiment = job.experiment
    job.prepare()
    writes = True
    done: dict[str, list[str]] = {}  # kind of row -> fingerprints of this experiment's rows
    if "extract" in stages and (experiment.evaluate.classifiers or "evaluate" not in stages):  # else nobody reads them
        extract(job)
    if "evaluate" in stages:
        done["classifier"] = evaluate(job)
    if "baseline" in stages and experiment.baselines:
        from featbench.runs.train import baseline, is_main  # Lightning takes seconds to import

        done["baseline"] = baseline(job)
        writes = is_main(job)
    if not any(done.values()):
        return pd.DataFrame()
    rows = load_results(job.results_dir)
    # rows of earlier settings stay in results.csv but not in the tables; kinds that were not run stay in both
    rows = rows[[kind not in done or row in done[kind] for kind, row in zip(rows.kind, rows.fingerprint, strict=True)]]
    if not writes:
        return rows.reset_index(drop=True)  # as the main process has them
    write_current(job.results_dir, rows)
    write_accuracy_tables(job.results_dir, rows)
    write_statistics(job.results_dir, rows, job.progress.warn)
    if "report" in stages:
        from featbench.report.build import write_report  # the libraries of the page take seconds to import

        write_pictures(job)
        write_report(job.results_dir, job.progress.warn)
    return rows.reset_index(drop=True)
