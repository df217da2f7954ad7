"""The page and the plots of results folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from featbench.errors import UsageError
from featbench.report.compare import write_comparison
from featbench.report.folder import read_folder
from featbench.report.page import write_page
from featbench.report.plots import write_plots
from featbench.stats.statistics import Statistics

PAGE = "report.html"


def write_report(folder: Path, statistics: Statistics, warn: Callable[[str], None], output: Path | None = None) -> Path:
    """Write plots/ and the page of a results folder, `report.html` in it unless `output` says where; return the page.

    `warn` is told of files that are missing or damaged; the page goes without them.

    Raises:
        UsageError: The page's name is that of a folder.
        ResultsError: A file cannot be written.
    """
    page = output or folder / PAGE
    check_output(page)
    read = read_folder(folder, statistics, warn)
    write_plots(read)
    write_page(read, page)
    return page


def compare_reports(folders: Mapping[Path, Statistics], warn: Callable[[str], None], output: Path) -> Path:
    """Write one page, `output`, that compares results folders: of several data sets, or of several machines.

    Raises:
        ResultsError: The file cannot be written.
    """
    write_comparison([read_folder(folder, statistics, warn) for folder, statistics in folders.items()], output)
    return output


def check_output(page: Path) -> None:
    """Refuse a page with the name of a folder.

    Raises:
        UsageError: It has.
    """
    if page.is_dir():
        raise UsageError(f"{page} is a folder; give --output the name of a file in it, as {page / PAGE}")
