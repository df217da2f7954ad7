from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featbench.baselines.processes import remember, started_processes
from featbench.errors import ResultsError

SETTINGS = """
import os, sys, featbench
few = ["dataset.limit_train=60", "dataset.limit_test=20", "dataset.val_fraction=0.02", "backbones=[{name='mlp'}]"]
two = "[{strategy='scratch',epochs=1,devices=2}, {strategy='scratch',label='alone',epochs=1}]"
settings = [*few, "evaluate.classifiers=[]", f"baselines={two}"]
"""
RUN = "rows = featbench.run('digits', results='r', cache='c', device='cpu', overrides=settings)\n"
THEN = "print(rows.method.tolist(), rows.accuracy.notna().tolist(), 'LOCAL_RANK' in os.environ)\n"


def python(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, env=environment, timeout=900)


@pytest.mark.slow
def test_a_plain_script_goes_on_once_and_may_train_again(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(SETTINGS + RUN + THEN + RUN.replace("settings", "[*settings, 'seed=1']"))
    done = python(tmp_path, "plain.py")
    assert done.returncode == 0, done.stderr
    line = "['scratch', 'scratch:alone'] [True, True] False"
    once_more = line.replace("False", "True")  # from the process that helps with the second run
    assert done.stdout.splitlines() == [line, once_more]


@pytest.mark.slow
def test_a_helper_that_fails_is_a_run_that_fails(tmp_path: Path) -> None:
    ends = "import atexit; atexit.register(lambda: os._exit(7 if os.environ.get('LOCAL_RANK') == '1' else 0))\n"
    (tmp_path / "plain.py").write_text(SETTINGS + ends + RUN + THEN)
    done = python(tmp_path, "plain.py")
    assert "1 of the processes that helped to train failed, with exit code 7" in done.stderr
    assert done.stdout == ""


def test_what_is_typed_in_cannot_be_started_again(tmp_path: Path) -> None:
    done = python(tmp_path, "-c", SETTINGS + RUN)
    assert done.returncode == 1
    assert "UsageError: devices = 2 starts this program again for each further process" in done.stderr
    assert not (tmp_path / "r").exists()


def start(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.fixture
def no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_ranks")
def test_processes_end_with_the_training_that_they_were_started_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "mine")
    before = dict(os.environ)
    with started_processes():
        os.environ |= {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "of Lightning", "MASTER_PORT": "1"}
        helper = start("import time; time.sleep(0.5)")
        remember([helper])
    assert helper.returncode == 0
    assert dict(os.environ) == before


@pytest.mark.usefixtures("no_ranks")
def test_one_that_failed_is_said() -> None:
    with (
        pytest.raises(ResultsError, match=r"1 of the processes .* failed, with exit code 3; .* are above"),
        started_processes(),
    ):
        remember([start("raise SystemExit(3)"), start("pass")])


@pytest.mark.usefixtures("no_ranks")
def test_those_of_a_training_that_failed_are_ended(tmp_path: Path) -> None:
    helper = start("import time; time.sleep(600)")
    watched = [helper]

    def fail() -> None:
        remember(watched)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), started_processes():
        fail()
    assert helper.returncode == -9
    assert watched == []  # Lightning's watcher would kill this process, too
