from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from featbench.cli.main import app

FOLDER = Path(__file__).resolve().parents[2] / "featbench" / "docs"
TOPICS = sorted(path.stem for path in FOLDER.glob("*.md"))


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["docs", *arguments])


def test_without_a_topic_every_page_is_listed_with_its_first_sentence() -> None:
    result = invoke()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == TOPICS
    for topic, line in zip(TOPICS, lines, strict=True):
        summary = (FOLDER / f"{topic}.md").read_text("utf-8").splitlines()[2]
        assert line == f"{topic:<24} {summary}"


@pytest.mark.parametrize("topic", TOPICS)
def test_a_pipe_gets_the_page_as_it_is(topic: str) -> None:
    result = invoke(topic)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (FOLDER / f"{topic}.md").read_text("utf-8")


def test_an_unknown_topic_exits_with_2_and_the_nearest() -> None:
    result = invoke("clasifier")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("featbench: unknown topic 'clasifier'; did you mean 'classifiers'? Valid: archit")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pseudo-terminal")
def test_a_terminal_gets_it_formatted() -> None:
    import pty

    reader, writer = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    command = [sys.executable, "-m", "featbench", "docs", "images"]
    shown = b""
    with subprocess.Popen(command, stdout=writer, env=environment) as child:
        os.close(writer)
        with suppress(OSError):  # Linux's way of saying that the child has ended
            while part := os.read(reader, 65_536):
                shown += part
    os.close(reader)
    assert child.returncode == 0
    text = shown.decode()
    assert "\x1b[1" in text  # bold
    assert "# Images" not in text
    assert "| --- |" not in text
    assert "How a folder of images is read" in text
