"""`featbench report`: tables, pictures and the page, from a results folder alone.

write_report(Path("results/digits"), print)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from featbench.errors import UsageError
from featbench.report.compare import write_comparison
from featbench.report.folder import read_folder
from featbench.report.page import write_page
from featbench.report.plots import write_plots

PAGE = "report.html"


def write_report(folder: Path, warn: Callable[[str], None], output: Path | None = None) -> Path:
    """Write the tables, plots/ and report.html of a results folder.

    Args:
        folder: The results folder.
        warn: Told of files that are missing or damaged; the page goes without them.
        output: The page; `report.html` in the folder where it is None.

    Returns:
        The page.

    Raises:
        UsageError: The page's name is that of a folder.
        ResultsError: There is no results.csv with a row in it, or a file cannot be written.
    """
    page = output or folder / PAGE
    _check_output(page)
    read = read_folder(folder, warn)
    write_plots(read)
    write_page(read, page)
    return page


def compare_reports(folders: Sequence[Path], warn: Callable[[str], None], output: Path) -> Path:
    """Write one page that compares results folders: of several data sets, or of several machines.

    Args:
        folders: Two results folders or more.
        warn: Told of files that are missing or damaged.
        output: The page.

    Returns:
        The page.

    Raises:
        UsageError: A folder is named twice, or the page's name is that of a folder.
        ResultsError: A folder has no results.csv with a row in it, or a file cannot be written.
    """
    _check_output(output)
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise UsageError(f"{folder} is named twice; name each results folder once")
        seen.add(folder.resolve())
    write_comparison([read_folder(folder, warn) for folder in folders], output)
    return output


def _check_output(page: Path) -> None:
    if page.is_dir():
        raise UsageError(f"{page} is a folder; give --output the name of a file in it, as {page / PAGE}")
