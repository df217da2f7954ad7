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
    """Write plots/ and report.html of a results folder.

    Args:
        folder: The results folder.
        statistics: Of its rows and predictions.
        warn: Told of files that are missing or damaged; the page goes without them.
        output: The page; `report.html` in the folder where it is None.

    Returns:
        The page.

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
    """Write one page that compares results folders: of several data sets, or of several machines.

    Args:
        folders: Two results folders or more, each with the statistics of its rows and predictions.
        warn: Told of files that are missing or damaged.
        output: The page.

    Returns:
        The page.

    Raises:
        UsageError: The page's name is that of a folder.
        ResultsError: A file cannot be written.
    """
    check_output(output)
    write_comparison([read_folder(folder, statistics, warn) for folder, statistics in folders.items()], output)
    return output


def check_output(page: Path) -> None:
    """Refuse a page with the name of a folder.

    Raises:
        UsageError: It has.
    """
    if page.is_dir():
        raise UsageError(f"{page} is a folder; give --output the name of a file in it, as {page / PAGE}")
