"""The pages of the manual and the README, taken apart."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "featbench" / "docs").glob("*.md"))
EVERY = [README, ROOT / "results" / "README.md", *PAGES]
NAMES = [str(path.relative_to(ROOT)) for path in EVERY]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language, in order."""
    return [text for kind, text in _BLOCK.findall(page.read_text("utf-8")) if kind == language]


def prose(page: Path) -> str:
    """Return what is outside of code blocks."""
    return _BLOCK.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as they are made on the web: lower case, no punctuation, dashes."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of the lines of tables, without headers and rules."""
    lines = [line.strip().strip("|") for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    rules = [place for place, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    return [row for place, row in enumerate(rows) if place not in rules and place + 1 not in rules]
