"""`featbench run`, `extract`, `evaluate` and `baseline`."""

from __future__ import annotations

from pathlib import Path

import typer

from featbench.commands.options import (
    Cache,
    Data,
    Device,
    Offline,
    Quiet,
    Results,
    Set,
    Source,
    Verbose,
    exit_codes,
    home,
)

_STAGES = {
    "run": "Run all stages: extract features, train classifiers and reference networks, write tables and page.",
    "extract": "Run stage 1: the features of every backbone and layer, into the cache.",
    "evaluate": "Run stage 2: classifiers on cached features, into results.csv.",
    "baseline": "Run the reference columns: linear head, fine-tuned and from-scratch networks, into results.csv.",
}
_EXAMPLES = {
    "run": ["run digits", "run photos/", "run digits --set evaluate.selection=cv --results results/cv"],
    "extract": ["extract digits"],
    "evaluate": ["evaluate digits --set 'evaluate.classifiers=[\"linear_svc\"]'"],
    "baseline": ["baseline digits --set baselines.0.epochs=5", "baseline photos/ --set baselines.1.lr=auto"],
}


def _add(app: typer.Typer, name: str) -> None:
    examples = "Examples:\n\n" + "\n\n".join(f"`featbench {example}`" for example in _EXAMPLES[name])

    @app.command(name, help=_STAGES[name], epilog=examples)
    def command(
        experiment: Source,
        results: Results = None,
        cache: Cache = None,
        data: Data = None,
        device: Device = "auto",
        settings: Set = None,
        offline: Offline = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        with exit_codes(verbose=verbose):
            from featbench.console import TerminalProgress, print_table
            from featbench.pipeline import STAGES, run

            with TerminalProgress(quiet=quiet, verbose=verbose) as progress:
                rows = run(
                    experiment,
                    results=results,
                    cache=cache or home() / "features",
                    data=data or home() / "data",
                    device=device,
                    overrides=settings or (),
                    offline=offline,
                    stages=STAGES if name == "run" else (name,),
                    progress=progress,
                )
            if not quiet and not rows.empty:
                print_table(rows, results or Path("results") / rows["experiment"].iloc[0])


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for name in _STAGES:
        _add(app, name)
