"""What the commands share: options, and errors turned into exit codes."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from featbench.data.names import url_of
from featbench.errors import FeatbenchError, first_line
from featbench.terminal import one_line, print_line, print_text, visible

_SYSTEM = (OSError, MemoryError, RuntimeError)  # the disk, the memory or the device refused, or torch says so


def _experiments(incomplete: str) -> list[str]:
    """Complete the name of a built-in experiment; the shell completes files and folders."""
    from featbench.config import builtin_experiments

    return [name for name in builtin_experiments() if name.startswith(incomplete)]


def complete_backbones(incomplete: str) -> list[str]:
    """Complete the name of a backbone."""
    from featbench.backbones.architectures import backbone_names

    return [name for name in backbone_names() if name.startswith(incomplete)]


def not_empty(text: str) -> Path:
    """Read a path; an empty one is not the current folder but a variable that was never set."""
    if not text:
        raise typer.BadParameter("the path is empty; the current folder is .")
    url = url_of(text)
    if url:
        raise typer.BadParameter(f"{url} is a URL, and URLs are not fetched; download what is there")
    return Path(text)


def place(text: str) -> Path:
    """Read the path of a file or folder that can be there."""
    path = not_empty(text)
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise typer.BadParameter("the path is longer than this system allows") from None
    return path


Source = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT", help="A built-in name, a TOML file or a folder of images.", autocompletion=_experiments
    ),
]
Results = Annotated[
    Path | None, typer.Option(parser=place, metavar="DIR", help="This run's own folder.", show_default="results/NAME")
]
Cache = Annotated[
    Path | None,
    typer.Option(parser=place, metavar="DIR", help="Feature caches.", show_default="$FEATBENCH_HOME/features"),
]
Data = Annotated[
    Path | None,
    typer.Option(
        parser=place, metavar="DIR", help="torchvision's root of data sets.", show_default="$FEATBENCH_HOME/data"
    ),
]
ResultsFolder = Annotated[
    Path, typer.Argument(parser=place, metavar="RESULTS", help="A results folder, as results/digits.")
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


@contextmanager
def exit_codes(*, verbose: bool = False) -> Iterator[None]:
    """Turn an error into one message and the exit code it stands for."""
    try:
        _check_current_folder()
        yield
    except KeyboardInterrupt:
        print_line("interrupted; what was done so far is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise  # the message was printed; or the reader of a pipe is gone, as `head`, and typer exits silently
    except Exception as error:  # noqa: BLE001  # a fault is one message, too
        if verbose:
            print_text(traceback.format_exc(), err=True)
        shown = visible if isinstance(error, FeatbenchError) and error.with_lines else one_line
        print_text(f"featbench: {shown(_message(error, verbose=verbose))}\n", err=True)
        raise typer.Exit(error.exit_code if isinstance(error, FeatbenchError) else 1) from None


def _message(error: Exception, *, verbose: bool) -> str:
    if isinstance(error, FeatbenchError):
        return str(error).strip()
    text = ": ".join(dict.fromkeys((type(error).__name__, first_line(error))))  # some errors say nothing
    if isinstance(error, _SYSTEM) and not isinstance(error, NotImplementedError | RecursionError):
        return text if verbose else f"{text} (--verbose shows where)"
    return (
        f"this is a fault of featbench's: {text}; please report it to its authors, with the command and what --verbose "
        "prints"
    )


def _check_current_folder() -> None:
    """Refuse to start where there is no current folder: libraries of torch end the process there."""
    try:
        Path.cwd()
    except OSError as error:
        raise FeatbenchError(
            f"there is no current folder ({error.strerror}): it was removed, or is closed to you; change to another"
        ) from None


def examples(*lines: str) -> str:
    """Return what `--help` ends with; a line is what is typed."""
    return "Examples:\n\n" + "\n\n".join(f"`{line}`" for line in lines)


def print_columns(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and what they are, in two columns."""
    for name, text in pairs:
        print_line(f"{name:<24} {text}")


def print_rows(rows: Sequence[tuple[str, ...]], left: Container[int]) -> None:
    """Print columns, those numbered in `left` flush left, numbers flush right."""
    shown = [tuple(map(one_line, row)) for row in rows]
    sizes = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [
            f"{cell:<{size}}" if number in left else f"{cell:>{size}}"
            for number, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        print_line("  ".join(cells).rstrip())
