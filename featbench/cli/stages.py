"""`featbench run`, `extract`, `evaluate` and `baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from featbench.cli.options import (
    Cache,
    Data,
    Device,
    DryRun,
    Offline,
    Quiet,
    Results,
    Set,
    Source,
    Verbose,
    examples,
    exit_codes,
)
from featbench.terminal import print_line

_STAGES = {
    "run": "Run all stages: extract features, train classifiers and reference networks, write tables and page.",
    "extract": "Run stage 1: the features of every backbone and layer, into the cache.",
    "evaluate": "Run stage 2: classifiers on cached features, into results.csv.",
    "baseline": "Run the reference columns: linear head, fine-tuned and from-scratch networks, into results.csv.",
}
_EXAMPLES = {
    "run": [
        "featbench run digits",
        "featbench run photos/",
        "featbench run photos/ --dry-run",
        "featbench run digits --set evaluate.selection=cv --results results/cv",
    ],
    "extract": ["featbench extract digits"],
    "evaluate": ["featbench evaluate digits --set 'evaluate.classifiers=[\"linear_svc\"]'"],
    "baseline": [
        "featbench baseline digits --set baselines.0.epochs=5",
        "featbench baseline photos/ --set baselines.1.lr=auto",
    ],
}


def _add(app: typer.Typer, name: str) -> None:
    @app.command(name, help=_STAGES[name], epilog=examples(*_EXAMPLES[name]))
    def command(
        experiment: Source,
        results: Results = None,
        cache: Cache = None,
        data: Data = None,
        device: Device = "auto",
        settings: Set = None,
        offline: Offline = False,
        dry_run: DryRun = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        with exit_codes(verbose=verbose):
            from featbench.cli.final_table import print_table
            from featbench.progress_bars import ProgressBars
            from featbench.runs.pipeline import STAGES, run

            stages = STAGES if name == "run" else (name,)

            with ProgressBars(quiet=quiet) as progress:
                options: dict[str, Any] = {
                    "results": results,
                    "cache": cache,
                    "data": data,
                    "device": device,
                    "overrides": settings or (),
                    "offline": offline,
                    "progress": progress,
                }
                if dry_run:
                    from featbench.runs.plan import describe_plan
                    from featbench.runs.resolve import resolve

                    for line in describe_plan(resolve(experiment, **options), stages, measure=True):
                        print_line(line)
                    return
                rows = run(experiment, stages=stages, **options)
            if not quiet and not rows.empty:
                print_table(rows, results or Path("results") / rows["experiment"].iloc[0])


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for name in _STAGES:
        _add(app, name)
