from __future__ import annotations

import json
import os
import sys
import unicodedata

import pytest
from typer.testing import CliRunner

from featbench.cli.main import app
from featbench.terminal import one_line, visible, visible_json

# what Unicode itself says of a character: controls, halves of pairs, separators, and what sets a direction
CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = {"LEFT-TO-RIGHT MARK", "RIGHT-TO-LEFT MARK", "ARABIC LETTER MARK"}
UNSAFE = [
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(character) in CATEGORIES
    or unicodedata.bidirectional(character) in DIRECTIONS
    or unicodedata.name(character, "") in MARKS
]
HOSTILE = "\x1b]0;title\x07\x9b31m\u202ered\nsecond\u2028line"
SHOWN = r"\x1b]0;title\x07\x9b31m\u202ered\x0asecond\u2028line"


def test_what_a_terminal_obeys_is_shown_and_nothing_else_changes() -> None:
    assert len(UNSAFE) == 65 + 2048 + 2 + 9 + 3
    for character in UNSAFE:
        assert one_line(character).isascii()
        assert one_line(character).isprintable()
    safe = "".join(sorted(set(map(chr, range(sys.maxunicode + 1))) - set(UNSAFE)))
    assert one_line(safe) == visible(safe) == visible_json(safe) == safe


def test_escapes_by_hand() -> None:
    assert one_line(HOSTILE) == SHOWN
    assert one_line(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert one_line("\ud800") == r"\ud800"
    assert visible("a\n\tb\n") == "a\n\\x09b\n"


def test_json_holds_the_same_data() -> None:
    data = [HOSTILE, "\x7f\x85\ud800"]
    text = visible_json(json.dumps(data, ensure_ascii=False))
    assert one_line(text) == text
    assert json.loads(text) == data


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([f"--{HOSTILE}"], 2),
        ([HOSTILE], 2),
        (["run", "digits", f"--device{HOSTILE}", "cpu"], 2),
        (["run", "digits", "--device", HOSTILE], 2),
        (["run", "digits", "--set", f"{HOSTILE}=1"], 2),
        (["predict", "r", "x.jpg", "--format", HOSTILE], 2),
        (["list", "models", HOSTILE], 1),
        (["list", "layers", HOSTILE], 2),
        (["cache", "list", "--cache", HOSTILE], 0),
        (["report", HOSTILE], 1),
    ],
)
def test_what_was_typed_is_shown_safely(arguments: list[str], code: int) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code
    assert visible(result.output) == result.output
    assert result.output.isascii()
    assert "second" in result.output
    assert "\nsecond" not in result.output
