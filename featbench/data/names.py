"""Ids and class names: the names of files as text that every file format takes."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

# a line break in a name would break a CSV file's line, and an escape sequence would reach the terminal
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def plain_name(path: PurePath | str) -> str:
    r"""Write a path as printable UTF-8 with forward slashes; different paths stay different.

    A byte that is not UTF-8 and a control character become `\xNN`, and a backslash is doubled, so that the bytes of
    the name can be had back.
    """
    text = str(path).replace(os.sep, "/")
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text  # as most are
    name = os.fsencode(text).replace(b"\\", b"\\\\")
    escaped = _CONTROL.sub(lambda found: b"\\x%02x" % found.group()[0], name)
    return escaped.decode("utf-8", "backslashreplace")
