"""`featbench report`: tables, pictures and the page again, from results folders alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featbench.cli.options import Quiet, Verbose, examples, exit_codes, place
from featbench.terminal import print_line

EXAMPLES = examples(
    "featbench report results/digits", "featbench report results/digits results/pets --output both.html"
)


def report(
    results: Annotated[
        list[Path], typer.Argument(parser=place, metavar="RESULTS...", help="A results folder, or several.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            parser=place,
            metavar="FILE",
            help="The page.",
            show_default="RESULTS/report.html; ./report.html of several",
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the tables, the plots and the page of a results folder again.

    The page is one file that opens without a network. What is missing in the folder is left out, and said. Of
    several folders one page compares them, with ranks of the methods over data sets.
    """
    with exit_codes(verbose=verbose):
        from featbench.runs.report import report_folders

        page = report_folders(results, lambda text: print_line(f"warning: {text}", err=True), output)
        if not quiet:
            print_line(str(page))
