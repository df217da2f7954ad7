r"""Printing text safely: no name may move the cursor, change the terminal's settings or reverse text.

Names of files, classes and models may come from anybody. All that featbench prints goes through here:
escape sequences, control and bidirectional characters, line breaks that are not featbench's own and bytes that are
no text are shown as `\x1b` and `\u202e`.
"""

from __future__ import annotations

import re

# C0, DEL and C1; the marks, embeddings, overrides and isolates of bidirectional text; the separators of lines and
# paragraphs; halves of surrogate pairs, by which Python stands for the bytes of a name that are not UTF-8
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BYTES = range(0xDC80, 0xDD00)  # what Python decodes a byte that is not UTF-8 to


def one_line(text: str) -> str:
    """Make text safe to print in a line: a line break in it becomes visible, too."""
    return UNSAFE.sub(_escape, text)


def visible(text: str) -> str:
    """Make text of several lines safe to print."""
    return "\n".join(map(one_line, text.split("\n")))


def visible_json(text: str) -> str:
    r"""Write what is unsafe to print in JSON of one line as JSON's own `\u202e`, so that it holds the same data."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print a line on stdout or stderr."""
    import typer  # not needed from Python

    typer.echo(one_line(text), err=err)


def print_text(text: str, *, err: bool = False) -> None:
    """Print text that has its own line breaks."""
    import typer

    typer.echo(visible(text), err=err, nl=False)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    code -= 0xDC00 if code in _BYTES else 0
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
