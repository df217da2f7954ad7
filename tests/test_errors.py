from __future__ import annotations

import pytest

from featbench.errors import (
    CacheError,
    DataError,
    FeatbenchError,
    ResultsError,
    UsageError,
    WeightsError,
    nearest,
    unknown,
)


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError, 2), (DataError, 1), (WeightsError, 1), (CacheError, 1), (ResultsError, 1)]
)
def test_exit_codes(error: type[FeatbenchError], code: int) -> None:
    assert issubclass(error, FeatbenchError)
    assert error.exit_code == code


@pytest.mark.parametrize(
    ("given", "close"), [("resnet81", "resnet18"), ("RESNET18", "resnet18"), ("vgg", "VGG11"), ("zzz", None)]
)
def test_nearest_ignores_case_and_gives_the_name_as_it_is_spelt(given: str, close: str | None) -> None:
    assert nearest(given, ["resnet18", "resnet50", "VGG11"]) == close


def test_unknown_names_the_nearest_and_all_that_is_valid() -> None:
    error = unknown("pooling", "agv", ["avg", "max"])
    assert str(error) == "unknown pooling 'agv'; did you mean 'avg'? Valid: avg, max."


def test_unknown_without_a_near_name_proposes_none() -> None:
    assert str(unknown("pooling", "zzz", ["avg", "max"])) == "unknown pooling 'zzz'. Valid: avg, max."


def test_unknown_points_to_the_command_that_lists_a_long_table() -> None:
    error = unknown("backbone", "resnet81", ["resnet18"], listed_by="featbench list backbones")
    assert str(error) == (
        "unknown backbone 'resnet81'; did you mean 'resnet18'? `featbench list backbones` prints the valid names."
    )
