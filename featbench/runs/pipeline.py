"""The one function that runs an experiment: images in, tables and a page out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from featbench.config import Experiment, is_folder, load_experiment
from featbench.places import data_sets, expand_user, feature_caches
from featbench.progress import OnceOnly, Progress
from featbench.progress_bars import follow
from featbench.results.store import load_results
from featbench.runs.finished import Finished, find_finished, record_finished

if TYPE_CHECKING:
    from featbench.runs.resolve import Run

STAGES = ("extract", "evaluate", "baseline", "report")
Source = str | Path | Mapping[str, Any] | Experiment


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
        once = OnceOnly(shown)
        loaded = load_experiment(experiment, overrides)
        results_dir = expand_user(results) if results is not None else Path("results") / loaded.name
        cache_dir, data_dir = feature_caches(cache), data_sets(data)
        arguments = {
            "experiment": loaded.model_dump(mode="json"),
            "networks_at_hand": _downloaded_weights() if is_folder(experiment) else [],
            "folders": [os.path.abspath(folder) for folder in (results_dir, cache_dir, data_dir)],  # noqa: PTH100
            "device": device,
            "offline": offline,
        }
        everything = tuple(stages) == STAGES
        finished = find_finished(results_dir, arguments) if everything else None
        if finished is not None:
            for warning in finished.warnings:
                once.warn(warning)
            once.say("nothing has changed since this run was finished")
            rows = load_results(results_dir)
            return rows[rows["fingerprint"].isin(finished.rows)].reset_index(drop=True)

        # torch and what stands on it take seconds to import
        from featbench.runs.plan import describe_plan
        from featbench.runs.resolve import resolve
        from featbench.runs.stages import run_stages

        resolved = resolve(
            experiment,
            results=results_dir,
            cache=cache_dir,
            data=data_dir,
            device=device,
            overrides=overrides,
            offline=offline,
            progress=once,
        )
        plan = describe_plan(resolved, stages) if is_folder(experiment) else None  # nobody wrote down what will be done
        resolved.prepare()
        for line in resolved.dataset.remarks if plan is None else plan:
            once.say(line)
        rows = run_stages(resolved, stages)
        if everything and not rows.empty:
            _record(resolved, arguments, rows, once.warnings)
        return rows


def _record(run: Run, arguments: Mapping[str, Any], rows: pd.DataFrame, warnings: Sequence[str]) -> None:
    """Record that the run is finished, where all that it depended on is in files that are known."""
    extractions = run.extractions if run.classifiers else ()
    files = [key.path for planned in extractions for key in planned.keys.values()]
    for network in run.networks:
        weights = network.weights_files()
        if weights is None:
            return  # timm's, or the user's own
        files += weights
    if any(spec.source for spec in run.classifiers.values()):
        return  # of the user's own code
    if any(baseline.processes > 1 for baseline in run.experiment.baselines):
        return  # another process may still write
    dataset = run.experiment.dataset
    inputs = [dataset.root] if dataset.root is not None else [] if dataset.name == "digits" else [run.data_dir]
    record_finished(
        run.results_dir, arguments, Finished(rows["fingerprint"].tolist(), warnings), inputs=inputs, files=files
    )


def _downloaded_weights() -> list[str]:
    """List the weights in torch's hub cache, of which a folder of images takes the best."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = expand_user(os.environ.get("TORCH_HOME") or f"{cache}/torch")
    return sorted(path.name for path in (home / "hub" / "checkpoints").glob("*"))
