"""`featbench report`: tables, pictures and the page again, from results folders alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featbench.commands.options import Quiet, Verbose, exit_codes

_EXAMPLES = "Examples:\n\n`featbench report results/digits`"


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("report", epilog=_EXAMPLES)
    def report(
        results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder.")],
        output: Annotated[
            Path | None, typer.Option(metavar="FILE", help="The page.", show_default="RESULTS/report.html")
        ] = None,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        """Make the tables, the plots and the page of a results folder again.

        The page is one file that opens without a network. What is missing in the folder is left out, and said.
        """
        with exit_codes(verbose=verbose):
            from featbench.report.build import write_report

            page = write_report(results, lambda text: typer.echo(f"warning: {text}", err=True), output)
            if not quiet:
                typer.echo(str(page))
