"""What the commands share: options, the home folder, and errors turned into exit codes."""

from __future__ import annotations

import os
import traceback
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from featbench.errors import FeatbenchError


def _experiments(incomplete: str) -> list[str]:
    """Complete the name of a built-in experiment; the shell completes files and folders."""
    from featbench.config import builtin_experiments

    return [name for name in builtin_experiments() if name.startswith(incomplete)]


def complete_backbones(incomplete: str) -> list[str]:
    """Complete the name of a backbone."""
    from featbench.backbones.architectures import backbone_names

    return [name for name in backbone_names() if name.startswith(incomplete)]


Source = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT", help="A built-in name, a TOML file or a folder of images.", autocompletion=_experiments
    ),
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
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N", help="Where networks and linear_svc run.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting; dotted keys.")]
Offline = Annotated[bool, typer.Option("--offline", help="Forbid downloads.")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="NAME",
        help="Import and run this code of your own where the model names it, as python:my_networks:make; repeatable.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more, and the traceback of an error.")]


def model_option(default: str) -> Any:
    """Return the option that names a model of a results folder; `default` says which is taken without it."""
    return typer.Option(
        metavar="NAME", help="A name or fingerprint; `featbench list models RESULTS` prints them.", show_default=default
    )


def home() -> Path:
    """Return where caches and data sets are kept: $FEATBENCH_HOME, or ~/.cache/featbench."""
    return Path(os.environ.get("FEATBENCH_HOME") or "~/.cache/featbench").expanduser()


@contextmanager
def exit_codes(*, verbose: bool = False) -> Iterator[None]:
    """Turn an error into one message and the exit code it stands for."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted; what was done so far is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    except FeatbenchError as error:
        _show_traceback(verbose=verbose)
        typer.echo(f"featbench: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except (typer.Exit, BrokenPipeError):
        raise  # all was said, or the reader of a pipe left, as `head` does; typer ends without a word
    except (OSError, MemoryError, RuntimeError) as error:
        _show_traceback(verbose=verbose)
        hint = "" if verbose else " (--verbose shows where)"
        typer.echo(f"featbench: {type(error).__name__}: {error}{hint}", err=True)
        raise typer.Exit(1) from None


def _show_traceback(*, verbose: bool) -> None:
    if verbose:
        typer.echo(traceback.format_exc(), err=True, nl=False)


def examples(*lines: str) -> str:
    """Return what `--help` ends with; a line is what is typed."""
    return "Examples:\n\n" + "\n\n".join(f"`{line}`" for line in lines)


def print_columns(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and what they are, in two columns."""
    for name, text in pairs:
        typer.echo(f"{name:<24} {text}")


def print_rows(rows: Sequence[tuple[str, ...]], left: Container[int]) -> None:
    """Print columns, those numbered in `left` flush left, numbers flush right."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            f"{cell:<{size}}" if number in left else f"{cell:>{size}}"
            for number, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        typer.echo("  ".join(cells).rstrip())
