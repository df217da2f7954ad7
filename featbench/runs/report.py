"""`featbench report`: tables, plots and page again, from results folders alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from featbench.errors import UsageError
from featbench.report.build import PAGE, check_output, compare_reports, write_report
from featbench.runs.tables import read_tables


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
    check_output(page)
    found = [folder.resolve() for folder in folders]
    for folder in folders:
        if found.count(folder.resolve()) > 1:
            raise UsageError(f"{folder} is named twice; name each results folder once")
    statistics = {folder: read_tables(folder, warn) for folder in folders}
    if len(folders) == 1:
        return write_report(folders[0], statistics[folders[0]], warn, page)
    return compare_reports(statistics, warn, page)
