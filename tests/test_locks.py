from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from featbench.locks import file_lock, wait_for
from tests.disks import python, without_locks

HOLD = """
import sys
from pathlib import Path
from featbench.locks import file_lock
lock = file_lock(Path(sys.argv[1])).acquire(timeout=0)
print("held", flush=True)
sys.stdin.read()
"""
TRY = """
import sys
from pathlib import Path
from filelock import Timeout
from featbench.locks import file_lock, wait_for
path = Path(sys.argv[1])
try:
    with file_lock(path).acquire(timeout=0):
        print("free")
except Timeout:
    print("held")
"""


@pytest.mark.parametrize("locks", [True, False])
def test_one_process_at_a_time_holds_a_lock(tmp_path: Path, locks: bool) -> None:
    env = None if locks else without_locks(tmp_path)
    path = tmp_path / "x.lock"
    path.touch()  # the system's lock leaves its file
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert python(TRY, path, env=env) == "held\n"
        holder.kill()
    assert python(TRY, path, env=env) == "free\n"


def test_who_waits_says_so_first(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    held = file_lock(path)
    held.acquire()
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        held.release()

    lock = wait_for(path, say)
    with pytest.raises(Timeout):
        file_lock(path).acquire(timeout=0)
    lock.release()
    assert said == [f"waits for another process, which holds {path}"]
