from __future__ import annotations

import pytest

from featbench.cli.progress_bars import TerminalProgress


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_goes_to_stderr_and_quiet_keeps_only_warnings(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    with TerminalProgress(quiet=quiet, verbose=False) as progress:
        progress.say("reused [cache]")
        progress.warn("3 files were left out")
        with progress.bar("resnet18 train", 10) as advance:
            advance(10, "")
    out, err = capsys.readouterr()
    assert out == ""
    lines = ["reused [cache]", "warning: 3 files were left out", "resnet18 train: 10 to do"]
    assert err.splitlines() == ([lines[1]] if quiet else lines)


def test_a_pipe_gets_a_line_with_rate_and_remaining_time_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 80.0])
    monkeypatch.setattr("featbench.cli.progress_bars.time.monotonic", lambda: next(clock))
    with TerminalProgress(quiet=False, verbose=False) as progress, progress.bar("resnet18 train", 400) as advance:
        for steps in (20, 100, 20, 260):
            advance(steps, "")
    assert capsys.readouterr().err.splitlines() == [
        "resnet18 train: 400 to do",
        "resnet18 train: 120 of 400, 3/s, 0:01:33 to go",  # 280 / 3 s
    ]


def test_what_is_said_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress(quiet=False, verbose=False) as progress:
        progress.say("a\x1b[31m\nb")
        progress.warn("c\u202e\x07")
        with progress.bar("d\x9b", 1):
            pass
    assert capsys.readouterr().err == "a\\x1b[31m\\x0ab\nwarning: c\\u202e\\x07\nd\\x9b: 1 to do\n"
