"""Ids and class names: the names of files as text that every file format and every terminal takes."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from featbench.terminal import UNSAFE

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/{1,3})(?=[^/])")
_SCHEMES = ("http", "https", "ftp", "ftps", "s3", "gs", "file")


def plain_name(path: PurePath | str) -> str:
    r"""Write a path as printable UTF-8 with forward slashes; different paths stay different.

    Characters that control a terminal (see `featbench.terminal`) and bytes that are not UTF-8 become `\xNN`, and a
    backslash is doubled, so that the name can be restored.
    """
    text = str(path).replace(os.sep, "/")
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text  # as most are
    return UNSAFE.sub(lambda found: _bytes(found.group()), text.replace("\\", r"\\"))


def _bytes(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"  # what Python decodes a byte that is not UTF-8 to
    return "".join(
        f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    )


def url_of(place: str | os.PathLike[str]) -> str | None:
    """Return the URL that was given in place of a path; None where it is a path. A Path has lost one of its slashes."""
    text = os.fspath(place)
    found = _URL.match(text)
    if found is None:
        return None
    if len(found[2]) > 1:
        return text
    return f"{found[1]}://{text[found.end() :]}" if found[1].lower() in _SCHEMES else None
