"""The tables of the manual, against the tables of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from featbench.backbones.architectures import OWN, SMALL
from featbench.backbones.pooling import POOLINGS
from featbench.baselines.strategies import STRATEGIES
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.transforms import STEPS
from featbench.config import builtin_experiments
from featbench.config.baseline import Augmentations, Optimizers, Schedules
from tests.docs.manual import PAGES, table_rows


def page(name: str) -> Path:
    return next(page for page in PAGES if page.name == f"{name}.md")


def first_cells(name: str) -> list[str]:
    """Return all names in the first cells of a page's tables."""
    rows = table_rows(page(name).read_text("utf-8"))
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row[0])]


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("backbones", [*SMALL, *OWN]),
        ("backbones", POOLINGS),
        ("networks", STRATEGIES),
        ("lessons", [name for name in builtin_experiments() if "_" in name and "resnet20" not in name]),
    ],
)
def test_every_name_is_on_the_page(name: str, listed: list[str]) -> None:
    assert set(listed) <= set(first_cells(name))


def test_the_classifiers_on_the_page_are_there() -> None:
    section = page("classifiers").read_text("utf-8").partition("\n## ")[0]
    names = [row[0].strip("`") for row in table_rows(section)]
    assert len(names) == 10
    assert set(names) <= {*CLASSIFIERS, "python:my_classifiers:make"}


def test_every_transform_is_on_the_page() -> None:
    assert {name.partition(":")[0] for name in first_cells("classifiers")} >= set(STEPS)


@pytest.mark.parametrize("kind", [Augmentations, Optimizers, Schedules])
def test_every_choice_is_on_the_page_of_keys(kind: object) -> None:
    text = page("configuration").read_text("utf-8")
    for value in get_args(kind):
        assert f'`"{value}"`' in text
