from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.manual import EVERY, NAMES, PAGES, README, ROOT, anchors, prose


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


@pytest.mark.parametrize("page", EVERY, ids=NAMES)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert file.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(file), link


def test_the_readme_links_to_every_page() -> None:
    assert {f"featbench/docs/{page.name}" for page in PAGES} <= set(links(README))


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_a_page_begins_with_its_title_and_one_sentence(page: Path) -> None:
    title, empty, summary, after, *_ = page.read_text("utf-8").splitlines()
    assert title.startswith("# ")
    assert (empty, after) == ("", "")
    assert summary.endswith(".")
    assert len(summary) <= 105


@pytest.mark.parametrize("page", EVERY, ids=NAMES)
def test_lines_fit_a_terminal(page: Path) -> None:
    for line in page.read_text("utf-8").splitlines():
        assert len(line) <= 120 or line.startswith("|"), line  # a table has no line breaks
