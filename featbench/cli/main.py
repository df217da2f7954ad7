"""The command line: parses it, calls one function a command, and turns errors into exit codes.

0: done. 1: it failed, with one message. 2: the command line or the experiment is wrong. 130: interrupted; what was done
so far is kept. Heavy libraries are imported by the command that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import featbench
from featbench.cli import docs, networks, predict, report, stages
from featbench.cli.caches import caches
from featbench.cli.lists import lists
from featbench.cli.options import examples
from featbench.terminal import print_line, print_text

_CommandLineError: Any = typer.BadParameter.__base__  # typer has no public name for the kind


class _Commands(TyperGroup):
    """The commands; what was typed is shown safely in the error about it."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Parse a command line and run it."""
        standalone = options.pop("standalone_mode", True)
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except typer.Abort:
            print_line("stopped; nothing was answered", err=True)
            code = 1
        except _CommandLineError as error:
            text = io.StringIO()
            if error.ctx is not None:
                error.ctx.color = True  # else an escape sequence is dropped in silence
            error.show(text)
            print_text(text.getvalue(), err=True)
            code = error.exit_code
        except OSError as error:  # of `--help` and `--version`, as a full disk
            print_line(f"featbench: {error.strerror}", err=True)
            code = 1
        if standalone:
            sys.exit(code)
        return code


app = typer.Typer(
    name="featbench",
    cls=_Commands,
    help="Which backbone, which layer, which classifier, or should I fine-tune? One command answers, with a table.",
    epilog=examples("featbench run digits", "featbench run photos/", "featbench list backbones", "featbench docs")
    + "\n\nThe first needs no download, and takes a few minutes on two cores. The last lists the manual's pages.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs twice the time of everything else in `--help`
    context_settings={"help_option_names": ["-h", "--help"]},
)
stages.add_to(app)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("predict", epilog=predict.EXAMPLES)(predict.predict)
app.command("summary", epilog=networks.SUMMARIES)(networks.summary)
app.command("export", epilog=networks.EXPORTS)(networks.export)
app.command("docs", epilog=examples("featbench docs", "featbench docs images"))(docs.docs)
app.add_typer(lists, name="list")
app.add_typer(caches, name="cache")


def _print_version(value: bool) -> None:
    if value:
        print_line(f"featbench {featbench.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch takes large pages: a third less time on a CPU, same bits
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a class may have a name that the terminal cannot show
    app()
