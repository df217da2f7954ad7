"""`featbench report`: tables, plots and page again, from results folders alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from featbench.errors import UsageError
from featbench.report.compare import write_comparison
from featbench.report.folder import read_folder
from featbench.report.page import write_page
from featbench.report.plots import write_plots
from featbench.runs.tables import read_tables
from featbench.stats.statistics import Statistics

PAGE = "report.html"


def report_folders(folders: Sequence[Path], warn: Callable[[str], None], output: Path | None = None) -> Path:
    """Write the tables, the plots and the page of one results folder, or a page that compares several.

    Args:
        folders: Results folders.
        warn: Told of files that are missing or damaged; the page goes without them.
        output: The page. None is report.html: in the folder, or here where there are several.

    Returns:
        The page.

    Raises:
        UsageError: A folder is named twice, or the page's name is that of a folder.
        ResultsError: A folder has no results.csv with a row in it, or a file cannot be written.
    """
    page = output or (folders[0] / PAGE if len(folders) == 1 else Path(PAGE))
    if page.is_dir():
        raise UsageError(f"{page} is a folder; give --output the name of a file in it, as {page / PAGE}")
    found = [folder.resolve() for folder in folders]
    for folder in folders:
        if found.count(folder.resolve()) > 1:
            raise UsageError(f"{folder} is named twice; name each results folder once")
    statistics = [read_tables(folder, warn) for folder in folders]
    if len(folders) == 1:
        write_report(folders[0], statistics[0], warn, page)
    else:
        read = [read_folder(folder, mine, warn) for folder, mine in zip(folders, statistics, strict=True)]
        write_comparison(read, page)
    return page


def write_report(folder: Path, statistics: Statistics, warn: Callable[[str], None], page: Path) -> None:
    """Write plots/ and the page of a results folder, whose statistics were just computed or read.

    Raises:
        ResultsError: A file cannot be written.
    """
    read = read_folder(folder, statistics, warn)
    write_plots(read)
    write_page(read, page)
