"""The real command line in forked children of a process that has imported everything: what it did, and what it took."""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import torch

from featbench.cli.main import main

# what the commands import when they run: a child that did so itself would spend its time on that
for _module in (
    "featbench.cli.final_table",
    "featbench.predict.model",
    "featbench.predict.output",
    "featbench.runs.report",
    "featbench.runs.pipeline",
    "featbench.runs.pictures",
    "skops.io",
    "torchvision.models",
):
    import_module(_module)

LIMIT_S = 20.0
LIMIT_BYTES = 2_000_000_000
_GUARD_BYTES = 16_000_000_000  # of addresses: the machine has to survive what the count is about
_POLL_S = 0.01
# what the command line says of errors that nobody foresaw
_UNEXPECTED = (b"Traceback (most recent call last)", b"a fault of featbench", b"featbench: RuntimeError")


@dataclass(frozen=True)
class Call:
    """One command: what follows `featbench`, where it runs, and what it reads from standard input."""

    arguments: Sequence[str]
    folder: Path
    stdin: bytes = b""


@dataclass(frozen=True)
class Outcome:
    """What a command did: `code` is its exit code, negative for a signal; `peak_bytes` its largest resident memory."""

    code: int
    seconds: float
    peak_bytes: int
    stdout: bytes
    stderr: bytes

    def fault(self) -> str:
        """Name what is wrong with it whatever was asked: "" where nothing is."""
        if self.seconds > LIMIT_S:
            return "hang"
        if self.code < 0:
            return "crash"
        if any(words in self.stderr for words in _UNEXPECTED):
            return "traceback"
        if self.peak_bytes > LIMIT_BYTES:
            return "memory"
        if self.code not in (0, 1, 2) or (self.code and not self.stderr.strip()):
            return "exit code"
        return ""


@dataclass
class _Child:
    pid: int
    files: tuple[IO[bytes], IO[bytes], IO[bytes]]
    limit_s: float
    started_s: float = field(default_factory=time.monotonic)

    def poll(self) -> Outcome | None:
        late = time.monotonic() - self.started_s > self.limit_s
        if late:
            os.killpg(self.pid, signal.SIGKILL)
        pid, status, usage = os.wait4(self.pid, 0 if late else os.WNOHANG)
        if not pid:
            return None
        texts = []
        for file in self.files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        seconds = time.monotonic() - self.started_s
        return Outcome(os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024, texts[1], texts[2])


def run_calls(calls: Iterable[tuple[int, Call]], jobs: int, limit_s: float = LIMIT_S) -> Iterator[tuple[int, Outcome]]:
    """Run commands, some at a time; the calls are made when a place is free, and killed after so many seconds."""
    running: dict[int, _Child] = {}
    waiting = iter(calls)
    more = True
    while running or more:
        while more and len(running) < jobs:
            number, call = next(waiting, (0, None))
            if call is None:
                more = False
            else:
                running[number] = _start(call, limit_s)
        for number, child in list(running.items()):
            outcome = child.poll()
            if outcome is not None:
                del running[number]
                yield number, outcome
        time.sleep(_POLL_S)


def run_call(call: Call) -> Outcome:
    """Run one command for as long as it takes."""
    ((_, outcome),) = run_calls([(0, call)], 1, math.inf)
    return outcome


def _start(call: Call, limit_s: float) -> _Child:
    files = (TemporaryFile(), TemporaryFile(), TemporaryFile())  # noqa: SIM115  # the parent reads them later
    files[0].write(call.stdin)
    files[0].seek(0)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return _Child(pid, files, limit_s)
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file.fileno(), number)
    resource.setrlimit(resource.RLIMIT_AS, (_GUARD_BYTES, _GUARD_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(call.folder)
    torch.set_num_threads(1)
    sys.argv = ["featbench", *call.arguments]
    os._exit(_code_of(main))


def _code_of(function: Callable[[], None]) -> int:
    """Do as the interpreter does with what ends a program."""
    code = 0
    try:
        function()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  # whatever it is, it is what is looked for
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code
