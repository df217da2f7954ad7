"""Tables of images, which are not read yet: what to say, and the lines that make a folder of one."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from featbench.errors import nearest
from featbench.terminal import one_line

TABLE_ENDINGS = {".csv": ",", ".tsv": "\t"}
_PATHS = ("path", "file", "filename", "image", "image_id", "img")
_LABELS = ("label", "class", "species", "category", "target", "diagnosis")


def table_message(table: Path) -> str:
    """Say that a table is no experiment, and how to make a folder of images of it: one folder a class."""
    delimiter, header = _header(table)
    path = _column(header, _PATHS)
    label = _column([name for name in header if name != path], _LABELS)
    folder = table.with_name(f"{table.stem}_by_class")
    seen = f"its columns are {one_line(', '.join(header))}" if header else "it has no header that can be read"
    lines = (
        "python3 - <<'END'",
        "import csv, pathlib, shutil",
        f"table, folder = pathlib.Path({str(table)!r}), pathlib.Path({str(folder)!r})",
        f"for row in csv.DictReader(table.open(encoding='utf-8-sig', newline=''), delimiter={delimiter!r}):",
        f"    image = table.parent / row[{path!r}].replace('\\\\', '/')",
        f"    target = folder / row[{label!r}].replace('/', '_')",
        "    target.mkdir(parents=True, exist_ok=True)",
        f"    shutil.copy(image, target / row[{path!r}].replace('\\\\', '_').replace('/', '_'))",
        "END",
        f"featbench run {shlex.quote(str(folder))}",
    )
    return (
        f"{one_line(str(table))} is a table, and tables of images are not read yet ({seen}). These lines copy its "
        f"images into one folder a class, the column {path!r} naming the file and {label!r} the class:\n\n"
        + "\n".join(lines)
    )


def _header(table: Path) -> tuple[str, list[str]]:
    """Read the names of the columns, and what is between them; spreadsheets put semicolons for some languages."""
    delimiter = TABLE_ENDINGS[table.suffix.lower()]
    with suppress(OSError, ValueError, csv.Error):
        with table.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(10_000)
        delimiter = max((delimiter, ";", ",", "\t"), key=line.count)
        return delimiter, next(csv.reader([line], delimiter=delimiter), [])
    return delimiter, []


def _column(header: Sequence[str], usual: Sequence[str]) -> str:
    """Choose the column that is called as such columns are; what stands in the lines can be changed before use."""
    lower: Mapping[str, str] = {name.lower().strip(): name for name in reversed(header)}
    found = [lower[name] for name in usual if name in lower]
    return found[0] if found else nearest(usual[0], header) or usual[0]
