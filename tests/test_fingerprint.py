from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featbench.fingerprint import fingerprint, hash_array, hash_arrays, hash_file


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_fingerprint_is_the_hash_of_the_canonical_json() -> None:
    content = {"b": [1.5, "é", None], "a": True}
    assert fingerprint(content) == sha256(b'{"a":true,"b":[1.5,"\\u00e9",null]}')[:16]


def test_order_of_keys_does_not_matter_and_order_of_items_does() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, "1"), (None, "null"), ([], {}), (["ab"], ["a", "b"])])
def test_different_content_hashes_differently(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"lr": number})


def test_hash_array_covers_dtype_shape_and_values() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    assert hash_array(array) == sha256(b"<f4(2, 3)" + array.tobytes())


@pytest.mark.parametrize("change", [lambda a: a.astype("<f8"), lambda a: a.reshape(3, 2), lambda a: a + 1])
def test_other_arrays_hash_differently(change: Any) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert hash_array(change(array)) != hash_array(array)


def test_layout_in_memory_does_not_matter() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    assert hash_array(np.asfortranarray(array)) == hash_array(array)
    assert hash_array(np.repeat(array, 2, axis=2)[..., ::2]) == hash_array(array)


@pytest.mark.parametrize(("array", "head"), [(np.array(7, "<i8"), b"<i8()"), (np.empty((0, 3), "<f4"), b"<f4(0, 3)")])
def test_scalars_and_empty_arrays_have_a_hash(array: np.ndarray, head: bytes) -> None:
    assert hash_array(array) == sha256(head + array.tobytes())


def test_named_arrays_hash_alike_in_any_order_but_not_under_other_names() -> None:
    a, b = np.zeros(2), np.ones(2)
    assert hash_arrays({"a": a, "b": b}) == hash_arrays({"b": b, "a": a})
    assert hash_arrays({"a": a, "b": b}) != hash_arrays({"a": b, "b": a})


def test_hash_file_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00\xffbytes")
    assert hash_file(tmp_path / "file") == sha256(b"\x00\xffbytes")
