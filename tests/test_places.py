from __future__ import annotations

from pathlib import Path

import pytest

from featbench.errors import UsageError
from featbench.places import data_sets, feature_caches


@pytest.mark.parametrize(
    ("variable", "folder"), [("", "home/.cache/featbench"), ("disk", "disk"), ("~/big", "home/big")]
)
def test_files_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, variable: str, folder: str) -> None:
    monkeypatch.setenv("HOME", "home")
    monkeypatch.setenv("FEATBENCH_HOME", variable)
    assert feature_caches() == Path(folder) / "features"
    assert data_sets() == Path(folder) / "data"


def test_a_folder_that_is_given_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "home")
    monkeypatch.setenv("FEATBENCH_HOME", "disk")
    assert feature_caches("mine") == Path("mine")
    assert data_sets("~/data") == Path("home/data")


def test_nobodys_home_folder_is_an_error() -> None:
    with pytest.raises(UsageError, match="'~nobody-at-all', which is no user's home folder"):
        feature_caches("~nobody-at-all/features")
