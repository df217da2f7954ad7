"""Reading TOML files, with one sentence of error for any that is wrong."""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path
from typing import Any

from featbench.errors import UsageError

_LARGEST_BYTES = 1_000_000
_MOST_DOTS = 16
# tomllib takes memory by the square of the parts of a dotted key
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}\.[ \t]*+){{{_MOST_DOTS},}}")
_BACKSLASH = "; in double quotes a backslash begins an escape: write a Windows path in 'single quotes', or with /"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with or without a byte-order mark.

    Raises:
        UsageError: It is none, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_BYTES:
        raise UsageError(f"{path} is not an experiment file: it has more than {_LARGEST_BYTES:,} bytes")
    try:
        return parse_toml(_decode(content.removeprefix(codecs.BOM_UTF8)))
    except ValueError as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: It is none; the message says what is wrong.
    """
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {_MOST_DOTS} dots; no setting lies that deep")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep; no setting is") from None
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        is_escape = "Unescaped '\\'" in message or "hex value" in message or "Escaped character" in message
        raise ValueError(message + _BACKSLASH * is_escape) from None
    except ValueError:  # of Python's, which has a limit of its own
        raise ValueError("a number has too many digits") from None


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise ValueError("it is UTF-16, or no text; save it as UTF-8")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8; save it as UTF-8") from None
