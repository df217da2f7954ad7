from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbench.data.names import plain_name

NAMES = st.binary(min_size=1, max_size=60).map(lambda name: name.replace(b"\0", b"?").replace(b"/", b"?"))


def path_of(name: bytes) -> PurePosixPath:
    return PurePosixPath(os.fsdecode(name))


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        (b"ants/0.jpg", "ants/0.jpg"),
        ('Käfer, groß/蜂 "1".jpg'.encode(), 'Käfer, groß/蜂 "1".jpg'),
        (b"  x  .jpg", "  x  .jpg"),
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        (rb"caf\xe9.jpg", r"caf\\xe9.jpg"),
        (b"a\nb\rc\x1b[31m.jpg", r"a\x0ab\x0dc\x1b[31m.jpg"),
        ("a\x9bb\u202ec\u2028.jpg".encode(), r"a\xc2\x9bb\xe2\x80\xaec\xe2\x80\xa8.jpg"),
        (b"x" * 251 + b".jpg", "x" * 251 + ".jpg"),
    ],
)
def test_names_by_hand(name: bytes, plain: str) -> None:
    assert plain_name(path_of(name)) == plain


@given(NAMES)
def test_the_bytes_of_a_name_can_be_had_back(name: bytes) -> None:
    path = path_of(name)
    plain = plain_name(path)
    assert plain.splitlines() == [plain]
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)

    def original(found: re.Match[bytes]) -> bytes:
        return b"\\" if found.group(1) == b"\\" else bytes.fromhex(found.group(1)[1:].decode())

    again = re.sub(rb"\\(\\|x[0-9a-f]{2})", original, plain.encode("utf-8"))
    assert again == os.fsencode(path.as_posix())


@given(NAMES, NAMES)
def test_different_names_stay_different(one: bytes, other: bytes) -> None:
    assert (plain_name(path_of(one)) == plain_name(path_of(other))) == (path_of(one) == path_of(other))
