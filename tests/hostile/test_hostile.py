from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.children import Outcome
from tests.hostile.subjects import KINDS

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> str:
    """Count faults in a process of its own, since children are forked from one that has done no work."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_few_of_each_kind() -> None:
    assert f"all: {3 * len(KINDS)} inputs; 0 traceback, 0 crash" in run("--count", "3")


@pytest.mark.slow
def test_what_strangers_may_send() -> None:
    last = run().splitlines()[-1]
    found = re.fullmatch(r"all: ([\d,]+) inputs; (.*)", last)
    assert found is not None
    assert int(found[1]) >= 2000
    assert set(re.findall(r"\d+", found[2])) == {"0"}


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(0, 1.0, 10**6, b"ants", b""), ""),
        (Outcome(1, 1.0, 10**6, b"", b"featbench: there is no such file"), ""),
        (Outcome(1, 1.0, 10**6, b"", b""), "exit code"),
        (Outcome(9, 1.0, 10**6, b"", b"x"), "exit code"),
        (Outcome(1, 1.0, 10**6, b"", b"Traceback (most recent call last):\nKeyError: 1"), "traceback"),
        (Outcome(0, 1.0, 3 * 10**9, b"ants", b""), "memory"),
        (Outcome(-11, 1.0, 10**6, b"", b""), "crash"),
        (Outcome(-9, 20.5, 10**6, b"", b""), "hang"),
    ],
)
def test_faults_have_names(outcome: Outcome, fault: str) -> None:
    assert outcome.fault() == fault
