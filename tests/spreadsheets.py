"""CSV files as a spreadsheet program saves them."""

from __future__ import annotations

import csv
import re
from pathlib import Path


def saved_by_a_spreadsheet(file: Path, separator: str = ";", comma: str = ",") -> None:
    """Write a CSV file again as Excel saves it: a byte-order mark, its own separator, decimal commas and booleans."""
    with file.open(newline="") as content:
        header, *lines = list(csv.reader(content))
    number = re.compile(r"-?[0-9]+\.[0-9]+(e[+-]?[0-9]+)?")
    with file.open("w", newline="", encoding="utf-8-sig") as content:
        writer = csv.writer(content, delimiter=separator, lineterminator="\r\n")
        writer.writerow(header)
        for line in lines:
            cells = [cell.replace(".", comma).upper() if number.fullmatch(cell) else cell for cell in line]
            writer.writerow([{"True": "TRUE", "False": "FALSE"}.get(cell, cell) for cell in cells])
