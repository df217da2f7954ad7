from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest

import featbench

PACKAGE = Path(featbench.__file__).parent
FLOORS = {
    "__main__": 8,
    "cli": 7,
    "runs": 6,
    "report": 5,
    "predict": 5,
    "features": 4,
    "classifiers": 4,
    "baselines": 4,
    "backbones": 3,
    "data": 2.5,  # backbones take its preprocessing
    "solvers": 2,
    "stats": 2,
    "results": 2,
    "config": 1,
    "errors": 1,
    "factories": 1,
    "fingerprint": 1,
    "locks": 1,
    "places": 1,
    "progress": 1,
    "progress_bars": 1,
    "spill": 1,
    "terminal": 1,
}
FOUNDATION = 1.0  # its files may lean on each other, as config on errors; rooms of one floor above may not


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def imported(name: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports, also inside functions."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "featbench")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import, which these tests do not follow"
            if node.module and node.module.split(".")[0] == "featbench":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in modules() else node.module


def room(name: str) -> str:
    return name.split(".")[1]


INSIDE = [name for name in modules() if name != "featbench"]  # its __init__ hands names out of every room, lazily


@pytest.mark.parametrize("name", INSIDE)
def test_imports_only_go_down_the_floors(name: str) -> None:
    assert room(name) in FLOORS, f"{name} is on no floor of the design; give its room one"
    for other in set(imported(name)) - {"featbench"}:
        if room(other) != room(name):
            here, there = FLOORS[room(name)], FLOORS[room(other)]
            allowed = there < here or there == here == FOUNDATION
            assert allowed, f"{name} (floor {here:g}) imports {other} (floor {there:g})"


def test_no_imports_go_in_a_circle() -> None:
    graph = {name: set(imported(name)) - {"featbench", name} for name in INSIDE}
    assert set(TopologicalSorter(graph).static_order()) >= set(INSIDE)


def test_a_circle_would_be_seen() -> None:
    assert "featbench.errors" in set(imported("featbench.config.files"))
    assert "featbench.runs.pipeline" in set(imported("featbench.cli.stages"))  # an import inside a function


@pytest.mark.parametrize("name", [name for name in INSIDE if room(name) in ("solvers", "stats")])
def test_solvers_and_statistics_know_nothing_of_featbench_but_its_errors(name: str) -> None:
    assert {room(other) for other in set(imported(name)) - {"featbench"}} <= {room(name), "errors"}


def test_files_and_rooms_stay_small() -> None:
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > 300} == {}
    assert len(list((PACKAGE / "classifiers").glob("*.py"))) <= 16


def test_what_must_stay_free_of_torch_or_torchvision() -> None:
    def libraries(name: str) -> set[str]:
        nodes = list(ast.walk(modules()[name]))
        plain = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        return plain | {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}

    assert "torch" in libraries("featbench.features.extraction")
    assert not libraries("featbench.features.cache") & {"torch", "torchvision"}
    for name in INSIDE:
        if room(name) in ("results", "stats", "config"):
            assert not libraries(name) & {"torch", "torchvision"}, name
        if room(name) in ("solvers", "classifiers"):
            assert "torchvision" not in libraries(name), name


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after some code."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "torchvision", "lightning", "pandas", "sklearn", "scipy", "numpy", "h5py", "matplotlib"}


@pytest.mark.parametrize(
    "code",
    [
        "import featbench",
        "import featbench.cli.main",
        "from typer.testing import CliRunner\nfrom featbench.cli.main import app\n"
        "CliRunner().invoke(app, ['run', '--help'])",
    ],
)
def test_importing_costs_nothing(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_the_cache_is_read_without_torch() -> None:
    assert not loaded_by("from featbench import load_features") & {"torch", "pandas"}


def test_every_public_name_is_there() -> None:
    classes = {"Experiment", "FeatbenchError", "FeatureExtractor"}
    assert set(featbench.__all__) == classes | {"load_features", "load_model", "load_results", "run"}
    for name in featbench.__all__:
        assert callable(getattr(featbench, name))
    assert set(featbench.__all__) | {"solvers"} <= set(dir(featbench))
    assert featbench.solvers.__name__ == "featbench.solvers"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'featbench' has no attribute 'runn'"):
        _ = featbench.runn


def test_the_version_is_that_of_the_distribution() -> None:
    assert featbench.__version__ == version("featbench")


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
