"""Extraction in real processes that are killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.features.extracting import content
from tests.tiny import image_folder

# Every line it reads has cache folders; a fork extracts into each, so that imports are paid for once.
SERVER = """
import os, sys
from pathlib import Path
import torch
from tests.features.extracting import folder_dataset, run, small_network
from tests.tiny import Recorder

dataset = folder_dataset(Path(sys.argv[1]))
config = small_network(batch_size=2)
print("ready", flush=True)
for line in sys.stdin:
    children = []
    for cache in line.split():
        children.append(os.fork())
        if children[-1] == 0:
            torch.set_num_threads(1)
            progress = Recorder()
            run(dataset, config, Path(cache), progress=progress, part_s=0.02)
            with open(f"{cache}.bars", "a") as file:
                print(*progress.bars, sep="\\n", file=file)
            os._exit(0)
    print(children[0], flush=True)
    print(max(os.waitpid(child, 0)[1] for child in children), flush=True)
"""


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., bool]]:
    """Yield a function that runs a process for each cache folder.

    It kills the first after some seconds, and says whether all had ended by themselves.
    """
    photos = image_folder(tmp_path_factory.mktemp("data") / "photos", per_class=30)
    command = [sys.executable, "-c", SERVER, str(photos)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        asks, answers = server.stdin, server.stdout
        assert answers.readline() == "ready\n"

        def extract(*caches: Path, kill_after_s: float | None = None) -> bool:
            print(*caches, file=asks)
            child = int(answers.readline())
            if kill_after_s is not None:
                time.sleep(kill_after_s)
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            status = int(answers.readline())
            assert status in (0, signal.SIGKILL)
            return status == 0

        yield extract


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.h5"))


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_process_killed_at_any_moment_loses_nothing_that_was_complete(
    tmp_path: Path, extract: Callable[..., bool], kills: int
) -> None:
    moments = random.Random(0)
    began_s = time.monotonic()
    assert extract(tmp_path / "whole")
    duration_s = time.monotonic() - began_s
    (whole,) = files(tmp_path / "whole")
    killed = rounds = 0
    while killed < kills:
        cache = tmp_path / f"cache{rounds}"
        rounds += 1
        while not extract(cache, kill_after_s=moments.uniform(0, duration_s)):
            killed += 1
            for file in files(cache):  # a file under its final name is complete, always
                assert content(file) == content(whole)
        (file,) = files(cache)
        assert content(file) == content(whole)
        assert not [path for path in file.parent.iterdir() if path.name.startswith(".")]


def test_two_processes_do_the_work_once(tmp_path: Path, extract: Callable[..., bool]) -> None:
    cache = tmp_path / "cache"
    assert extract(cache, cache)
    assert (tmp_path / "cache.bars").read_text().split() == ["resnet20", "train"]  # one bar: one did the work
    assert extract(tmp_path / "alone")
    (file,) = files(cache)
    assert content(file) == content(*files(tmp_path / "alone"))
