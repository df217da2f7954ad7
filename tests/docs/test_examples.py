"""The code of the manual: Python runs, TOML is a valid experiment, command lines name what there is."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from featbench.backbones.load import check_backbone
from featbench.classifiers.params import check_grids
from featbench.classifiers.registry import get_classifier
from featbench.cli.main import app
from featbench.config import Experiment, is_weights_file, load_experiment
from featbench.data.datasets import check_dataset
from tests.docs.manual import EVERY, NAMES, PAGES, ROOT, blocks, prose
from tests.docs.workplace import make_workplace

_RUN_ELSEWHERE = ("results.md",)  # test_pandas.py looks at the answers, too
WITH_PYTHON = [page for page in EVERY if blocks(page, "python") and page.name not in _RUN_ELSEWHERE]
_STAGES = ("run", "extract", "evaluate", "baseline")


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("manual"))


@pytest.fixture
def here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, as the current one."""
    monkeypatch.setenv("FEATBENCH_HOME", str(workplace / "home"))
    monkeypatch.setenv("HOME", str(workplace))  # where Python keeps caches that nobody names
    monkeypatch.chdir(workplace)
    return workplace


@pytest.mark.parametrize("page", WITH_PYTHON, ids=[page.name for page in WITH_PYTHON])
def test_python_runs_in_the_order_of_the_page(page: Path, here: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", EVERY, ids=NAMES)
def test_toml_is_a_valid_experiment(page: Path, here: Path) -> None:
    for block in blocks(page, "python"):
        if file := re.match(r"# (\w+\.py)\n", block):  # the reader's own networks and classifiers
            (here / file[1]).write_text(block, "utf-8")
    for text in blocks(page, "toml"):
        whole = {"name": "a", "dataset": {"name": "digits"}, "backbones": [{"name": "resnet18"}]}
        experiment = Experiment.model_validate(whole | tomllib.loads(text))
        check_dataset(experiment.dataset)
        check_grids(map(get_classifier, experiment.evaluate.classifiers), experiment.evaluate)
        for backbone in experiment.backbones:
            if not is_weights_file(backbone.weights or ""):
                check_backbone(backbone)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command on a page; pipes and redirections are taken apart."""
    in_blocks = [line for text in blocks(page, "sh") for line in text.replace("\\\n", " ").splitlines()]
    in_lines = re.findall(r"`([^`\n]+)`", prose(page))
    for line in (*in_blocks, *in_lines):
        if not re.search(r"\b(featbench|python -m|make) ", line) or "..." in line:
            continue
        words = shlex.shlex(line, posix=True, punctuation_chars="|;<>")
        words.whitespace_split = True
        command: list[str] = []
        for word in words:
            if word in ("|", ";"):
                yield command
                command = []
            elif word != ">":
                command.append(word)
        yield command


FEATBENCH = [
    pytest.param(words[1:], id=f"{page.name}: {' '.join(words)}")
    for page in EVERY
    for words in command_lines(page)
    if words[0] == "featbench"
]


@pytest.mark.parametrize("words", FEATBENCH)
def test_a_command_of_featbench_is_one(words: list[str], here: Path) -> None:
    command: Any = get_command(app)
    rest = words
    while isinstance(command, TyperGroup) and rest:
        command, rest = command.commands[rest[0]], rest[1:]
    if not rest:
        return  # the name alone, in a sentence
    params = command.make_context(words[0], rest[: rest.index(">")] if ">" in rest else rest).params
    if words[0] in _STAGES and not params["experiment"].isupper():
        load_experiment(params["experiment"], params["settings"] or ())


def test_modules_and_make_targets_are_there() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    targets = phony.split()
    for page in EVERY:
        for words in command_lines(page):
            if words[0] == "make":
                assert words[1] in targets, words
            elif "-m" in words:
                module = words[words.index("-m") + 1]
                files = [ROOT / f"{module.replace('.', '/')}{end}" for end in (".py", "/__main__.py")]
                import_module(module)  # it starts, whatever was renamed
                (source,) = [file.read_text("utf-8") for file in files if file.is_file()]
                for option in [word for word in words if word.startswith("--")]:
                    assert f'"{option}"' in source or 'f"--{name}"' in source, words


def test_every_file_of_a_results_folder_is_on_its_page(here: Path) -> None:
    text = next(page for page in PAGES if page.name == "results.md").read_text("utf-8")
    for path in (here / "results" / "pets").glob("[!.]*"):
        name = f"{path.name}/" if path.is_dir() else path.name
        assert f"`{name}`" in text.replace("`.md`, `.tex`", "`accuracy.md`, `accuracy.tex`"), name


def test_the_manual_has_code_of_every_kind() -> None:
    assert len(FEATBENCH) > 30
    assert len(WITH_PYTHON) >= 4
    assert sum(len(blocks(page, "toml")) for page in PAGES) >= 6
