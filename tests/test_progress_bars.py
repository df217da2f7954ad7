from __future__ import annotations

import pytest

from featbench.progress_bars import ProgressBars, follow
from tests.tiny import Recorder


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_goes_to_stderr_and_quiet_keeps_only_warnings(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    with ProgressBars(quiet=quiet) as progress:
        progress.say("reused [cache]")
        progress.warn("3 files were left out")
        with progress.bar("resnet18 train", 10) as advance:
            advance(10, "")
    out, err = capsys.readouterr()
    assert out == ""
    lines = ["reused [cache]", "warning: 3 files were left out", "resnet18 train: 10 to do"]
    assert err.splitlines() == ([lines[1]] if quiet else lines)


def test_a_pipe_gets_a_line_with_rate_and_remaining_time_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 80.0])
    with ProgressBars(clock=lambda: next(clock)) as progress, progress.bar("resnet18 train", 400) as advance:
        for steps in (20, 100, 20, 260):
            advance(steps, "")
    assert capsys.readouterr().err.splitlines() == [
        "resnet18 train: 400 to do",
        "resnet18 train: 120 of 400, 3/s, 0:01:33 to go",  # 280 / 3 s
    ]


def test_what_is_said_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBars() as progress:
        progress.say("a\x1b[31m\nb")
        progress.warn("c\u202e\x07")
        with progress.bar("d\x9b", 1):
            pass
    assert capsys.readouterr().err == "a\\x1b[31m\\x0ab\nwarning: c\\u202e\\x07\nd\\x9b: 1 to do\n"


@pytest.mark.parametrize(
    ("asked", "terminal", "shown"), [(None, "1", True), (None, "0", False), (False, "1", False), (True, "0", True)]
)
def test_from_python_progress_is_shown_where_somebody_can_see_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: bool | None, terminal: str, shown: bool
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)  # as rich reads it
    with follow(asked) as progress:
        progress.warn("3 files were left out")
        with progress.bar("resnet18 train", 10) as advance:
            advance(10, "")
    err = capsys.readouterr().err
    assert ("3 files" in err and "resnet18 train" in err) == shown
    assert ("10/10" in err) == (shown and terminal == "1")


def test_progress_of_ones_own_is_taken_as_it_is() -> None:
    mine = Recorder()
    with follow(mine) as progress:
        assert progress is mine
