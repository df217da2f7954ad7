from __future__ import annotations

import doctest
from importlib import import_module

import pytest

import featbench.solvers


@pytest.mark.parametrize("name", featbench.solvers.__all__)
def test_the_example_of_a_public_name_gives_what_it_shows(name: str) -> None:
    found = getattr(featbench.solvers, name)
    examples = doctest.DocTestFinder(recurse=False).find(found, name, import_module(found.__module__))
    if not any(test.examples for test in examples):
        pytest.fail(f"the docstring of {name} has no example")
    for test in examples:
        assert doctest.DocTestRunner().run(test).failed == 0
