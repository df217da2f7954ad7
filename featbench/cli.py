"""The command line: parses it, calls one function a command, and turns errors into exit codes.

0: done. 1: it failed, with one message. 2: the command line or the experiment is wrong. 130: interrupted; what was done
so far is kept. Heavy libraries are imported by the command that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import featbench
from featbench.errors import FeatbenchError

if TYPE_CHECKING:
    from featbench.features.upkeep import Entry

app = typer.Typer(
    name="featbench",
    help="Which backbone, which layer, which classifier, or should I fine-tune? One command answers, with a table.",
    epilog="Start with `featbench run digits`: no download, a few minutes on two cores.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs twice the time of everything else in `--help`
    context_settings={"help_option_names": ["-h", "--help"]},
)
lists = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Print what there is.")
app.add_typer(lists, name="list")
caches = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the feature caches.")
app.add_typer(caches, name="cache")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"featbench {featbench.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_STAGES = {
    "run": "Run all stages: extract features, train classifiers and reference networks, write the tables.",
    "extract": "Run stage 1: the features of every backbone and layer, into the cache.",
    "evaluate": "Run stage 2: classifiers on cached features, into results.csv.",
    "baseline": "Run the reference columns: linear head, fine-tuned and from-scratch networks, into results.csv.",
}
_EXAMPLES = {
    "run": ["run digits", "run photos/", "run digits --set evaluate.selection=cv --results results/cv"],
    "extract": ["extract digits"],
    "evaluate": ["evaluate digits --set 'evaluate.classifiers=[\"linear_svc\"]'"],
    "baseline": ["baseline digits --set baselines.0.epochs=5"],
}

Source = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="A built-in name, a TOML file or a folder of images.")
]
Results = Annotated[
    Path | None, typer.Option(metavar="DIR", help="This run's own folder.", show_default="results/NAME")
]
Cache = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Feature caches.", show_default="$FEATBENCH_HOME/features")
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="torchvision's root of data sets.", show_default="$FEATBENCH_HOME/data"),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N", help="Where networks run.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting; dotted keys.")]
Offline = Annotated[bool, typer.Option("--offline", help="Forbid downloads.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more, and the traceback of an error.")]


def _add_stage_command(name: str) -> None:
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
        with _exit_codes(verbose=verbose):
            from featbench.console import TerminalProgress, print_table
            from featbench.pipeline import STAGES, run

            with TerminalProgress(quiet=quiet, verbose=verbose) as progress:
                rows = run(
                    experiment,
                    results=results,
                    cache=cache or _home() / "features",
                    data=data or _home() / "data",
                    device=device,
                    overrides=settings or (),
                    offline=offline,
                    stages=STAGES if name == "run" else (name,),
                    progress=progress,
                )
            if not quiet and not rows.empty:
                print_table(rows, results or Path("results") / rows["experiment"].iloc[0])


for _name in _STAGES:
    _add_stage_command(_name)


@lists.command("datasets")
def list_datasets() -> None:
    """Print the data sets that `dataset.name` may be."""
    with _exit_codes():
        from featbench.data.datasets import DATASETS

        _print_columns(DATASETS.items())


@lists.command("backbones")
def list_backbones() -> None:
    """Print the backbones that `backbones.name` may be, with their weights; the default comes first."""
    with _exit_codes():
        from featbench.backbones.architectures import backbone_names, get_architecture

        for name in backbone_names():
            architecture = get_architecture(name)
            weights = dict.fromkeys([architecture.default_weights, *architecture.weights])
            _print_columns([(name, ", ".join(weights))])
        _print_columns(
            [
                ("timm:NAME", "a network of timm (pip install featbench[timm]); a tag, random"),
                ("python:MODULE:FACTORY", "what FACTORY() in MODULE.py of the current folder returns; random"),
            ]
        )


@lists.command("layers")
def list_layers(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backbone.")],
    pooling: Annotated[
        str, typer.Option(metavar="POOLING", help="avg, max, avg:K, max:K, flatten, cls or tokens.")
    ] = "avg",
    image_size: Annotated[
        int | None, typer.Option(metavar="PX", min=1, help="Size of the images.", show_default="the network's own")
    ] = None,
) -> None:
    """Print the layers of a backbone in the order they run; nothing is downloaded.

    OUTPUT is the shape of one image's output, WIDTH its numbers after pooling (- where that pooling makes no sense),
    COMPUTE the share of the network's multiply-adds that have run when it is there. Layers marked blocks are what
    layers = ["blocks"] stands for.
    """
    with _exit_codes():
        from featbench.backbones.describe import describe_backbone

        rows = [("LAYER", "OUTPUT", "WIDTH", "COMPUTE", "")]
        for layer in describe_backbone(name, pooling, image_size):
            width = "-" if layer.width is None else str(layer.width)
            note = "blocks" if layer.is_block else ""
            rows.append((layer.name, "x".join(map(str, layer.shape)), width, f"{layer.compute:.1%}", note))
        sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for title, output, width, compute, note in rows:
            line = f"{title:<{sizes[0]}}  {output:<{sizes[1]}}  {width:>{sizes[2]}}  {compute:>{sizes[3]}}  {note}"
            typer.echo(line.rstrip())


@lists.command("classifiers")
def list_classifiers() -> None:
    """Print the classifiers that `evaluate.classifiers` may name."""
    with _exit_codes():
        from featbench.classifiers.table import CLASSIFIERS

        _print_columns((name, spec.summary) for name, spec in CLASSIFIERS.items())


@lists.command("experiments")
def list_experiments() -> None:
    """Print the built-in experiments."""
    with _exit_codes():
        from featbench.config import builtin_experiments

        _print_columns((name, text.partition("\n")[0].lstrip("# ")) for name, text in builtin_experiments().items())


@caches.command("list")
def list_caches(cache: Cache = None) -> None:
    """Print what is cached, with its size and how long ago it was used."""
    with _exit_codes():
        from featbench.features.upkeep import list_cache

        folder = cache or _home() / "features"
        entries = list_cache(folder)
        for entry in entries:
            _print_entry(entry, folder)
        typer.echo(f"{len(entries)} in {folder}, {_size(sum(entry.n_bytes for entry in entries))}")


@caches.command("verify")
def verify_caches(cache: Cache = None) -> None:
    """Read every cache file against its checksums; exit code 1 if one is damaged."""
    with _exit_codes():
        from featbench.features.upkeep import verify_cache

        wrong = [0, 0]
        for _, problem in verify_cache(cache or _home() / "features"):
            wrong[problem is not None] += 1
            if problem is not None:
                typer.echo(f"featbench: {problem}", err=True)
        typer.echo(f"{sum(wrong)} cache files read, {wrong[1] or 'none'} damaged")
        if wrong[1]:
            raise typer.Exit(1)


@caches.command("prune", epilog="`featbench cache prune --older-than 0` empties the cache.")
def prune_caches(
    cache: Cache = None,
    older_than: Annotated[float, typer.Option(metavar="DAYS", min=0, help="Days without use.")] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove cache files that were not used for some days, and damaged ones; asks first."""
    with _exit_codes():
        from featbench.features.upkeep import list_cache, prune_cache

        folder = cache or _home() / "features"
        old = [e for e in list_cache(folder) if e.unused_s >= older_than * 86_400 or e.state == "damaged"]
        for entry in old:
            _print_entry(entry, folder)
        if not old:
            typer.echo(f"nothing in {folder} is damaged or was unused for {older_than:g} days")
        elif yes or typer.confirm(f"Remove these {len(old)} ({_size(sum(e.n_bytes for e in old))})?"):
            removed = prune_cache(old)
            busy = f"; {len(old) - len(removed)} in use by another process" if len(removed) < len(old) else ""
            typer.echo(f"removed {len(removed)}, {_size(sum(e.n_bytes for e in removed))}{busy}")


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def _exit_codes(*, verbose: bool = False) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted; what was done so far is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    except FeatbenchError as error:
        _show_traceback(verbose=verbose)
        typer.echo(f"featbench: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        raise  # the reader of a pipe left, as `head` does; typer ends without a word
    except (OSError, MemoryError, RuntimeError) as error:
        _show_traceback(verbose=verbose)
        hint = "" if verbose else " (--verbose shows where)"
        typer.echo(f"featbench: {type(error).__name__}: {error}{hint}", err=True)
        raise typer.Exit(1) from None


def _show_traceback(*, verbose: bool) -> None:
    if verbose:
        typer.echo(traceback.format_exc(), err=True, nl=False)


def _home() -> Path:
    return Path(os.environ.get("FEATBENCH_HOME") or "~/.cache/featbench").expanduser()


def _print_entry(entry: Entry, folder: Path) -> None:
    name = entry.path.relative_to(folder).as_posix()
    days = f"{entry.unused_s / 86_400:.0f} days"
    typer.echo(f"{_size(entry.n_bytes):>9}  {days:>8}  {entry.state:<10}  {name}  {entry.about}")


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"


def _print_columns(pairs: Iterable[tuple[str, str]]) -> None:
    for name, text in pairs:
        typer.echo(f"{name:<24} {text}")
