"""The page that lists every key, against the models that check them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from featbench.config import BackboneConfig, BaselineConfig, DatasetConfig, EvaluateConfig, Experiment
from tests.docs.manual import PAGES, table_rows

PAGE = next(page for page in PAGES if page.name == "configuration.md")
TABLES: dict[str, type[BaseModel]] = {
    "## Top level": Experiment,
    "## [dataset]": DatasetConfig,
    "## [[backbones]]": BackboneConfig,
    "## [evaluate]": EvaluateConfig,
    "## [[baselines]]": BaselineConfig,
}


def rows(heading: str) -> list[list[str]]:
    section = PAGE.read_text("utf-8").partition(f"{heading}\n")[2]
    return table_rows(re.split(r"^## ", section, flags=re.MULTILINE)[0])


@pytest.mark.parametrize(("heading", "model"), TABLES.items())
def test_every_key_is_listed_once_and_no_other(heading: str, model: type[BaseModel]) -> None:
    assert [row[0].strip("`") for row in rows(heading)] == list(model.model_fields)


@pytest.mark.parametrize(("heading", "model"), TABLES.items())
def test_the_defaults_are_those_of_the_code(heading: str, model: type[BaseModel]) -> None:
    for key, default, _ in rows(heading):
        field = model.model_fields[key.strip("`")]
        assert (default == "required") == field.is_required(), key
        value = _plain(field.get_default(call_default_factory=True))
        if default.startswith("`"):
            assert json.loads(default.strip("`")) == value, key
        elif default != "required":  # in words: nothing, or what depends on other settings
            assert value in (None, [], {}) or isinstance(value, dict), key


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value.model_dump() if isinstance(value, BaseModel) else value, default=str))
