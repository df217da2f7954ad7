"""Forged cache files: HDF5 finds nothing wrong with them, and each is refused before it is read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

import featbench
from featbench.errors import CacheError
from featbench.features.cache import check_cache, read_info
from featbench.features.opening import DamagedCacheError, ForeignCacheError
from featbench.features.upkeep import list_cache, verify_cache
from tests.features.cache_files import LABELS, features, make_key, write

STRING = h5py.string_dtype("utf-8", 1)
SAFE = {"fletcher32": True, "chunks": True}


def _replaced(name: str, **settings: Any) -> Callable[[h5py.File], None]:
    def forge(file: h5py.File) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, **settings).attrs.update(attributes)

    return forge


def _linked(name: str, link: Any) -> Callable[[h5py.File], None]:
    def forge(file: h5py.File) -> None:
        file.move(name, "elsewhere")
        file[name] = link

    return forge


def _grouped(name: str) -> Callable[[h5py.File], None]:
    def forge(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return forge


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((5, 7), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(5, 7))
    del file["features/layer3"]
    file.create_virtual_dataset("features/layer3", layout).attrs["extract_s"] = 1.5


def _empty_rows(file: h5py.File) -> None:
    """Leave five hundred rows that were never written, of a size that the file could hold."""
    layer = file["features/layer3"]
    for name, rows in (("labels", np.zeros(500, int)), ("ids", np.array([b"x"] * 500, STRING))):
        _replaced(name, data=rows, **SAFE)(file)
    del file["features/layer3"]
    file.create_dataset("features/layer3", (500, 7), "f4", chunks=(10, 7), fletcher32=True).attrs.update(layer.attrs)


def _attribute(name: str, value: Any, of: str = "/") -> Callable[[h5py.File], None]:
    def forge(file: h5py.File) -> None:
        file[of].attrs[name] = value

    return forge


def _without(name: str, of: str = "/") -> Callable[[h5py.File], None]:
    def forge(file: h5py.File) -> None:
        del file[of].attrs[name]

    return forge


ROWS = features(7)
FORGED: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "a group in place of labels": (_grouped("labels"), "labels is no dataset"),
    "a group in place of a layer": (_grouped("features/layer3"), "layer3 is no dataset"),
    "a dataset in place of the layers": (_replaced("features", data=[1]), "features is no group"),
    "no layers": (_grouped("features"), "no layers"),
    "a soft link": (_linked("ids", h5py.SoftLink("/elsewhere")), "ids is missing, or a link"),
    "a dangling link": (_linked("labels", h5py.SoftLink("/gone")), "labels is missing, or a link"),
    "a link to itself": (_linked("features", h5py.SoftLink("/features")), "features is missing, or a link"),
    "another file's labels": (_linked("labels", h5py.ExternalLink("/etc/passwd", "x")), "labels is missing, or a link"),
    "another file's layer": (
        _linked("features/layer3", h5py.ExternalLink("o.h5", "x")),
        "layer3 is missing, or a link",
    ),
    "external storage": (
        _replaced("features/layer3", shape=(5, 7), dtype="f4", external=[("/etc/passwd", 0, 140)]),
        "layer3 is not in chunks",
    ),
    "virtual": (_virtual, "layer3 is not in chunks"),
    "compact or contiguous": (_replaced("labels", data=LABELS), "labels is not in chunks"),
    "without checksums": (_replaced("labels", data=LABELS, chunks=(5,)), "labels is not in chunks with checksums"),
    "another filter": (_replaced("features/layer3", data=ROWS, **SAFE, compression="gzip"), "not in chunks with"),
    "another compression": (
        _replaced("features/layer3", data=ROWS, fletcher32=True, chunks=(5, 7), **hdf5plugin.Bitshuffle(cname="zstd")),
        "compressed in another way",
    ),
    "float labels": (_replaced("labels", data=LABELS.astype(float), **SAFE), "labels has .* type float64"),
    "labels of two columns": (_replaced("labels", data=LABELS[:, None], **SAFE), "labels has shape"),
    "a scalar": (_replaced("labels", data=3), "labels has shape"),
    "negative labels": (_replaced("labels", data=LABELS - 1, **SAFE), "a label is negative"),
    "strings of free length": (_replaced("ids", data=["a"] * 5, chunks=(5,)), "ids has"),
    "ids that are not UTF-8": (
        _replaced("ids", data=np.array([b"\xff"] * 5, STRING), **SAFE),
        "invalid start byte",
    ),
    "complex features": (_replaced("features/layer3", data=ROWS.astype(complex), **SAFE), "layer3 has"),
    "features of one axis": (_replaced("features/layer3", data=ROWS[:, 0], **SAFE), "layer3 has shape"),
    "no columns": (
        _replaced("features/layer3", shape=(5, 0), dtype="f4", maxshape=(5, None), chunks=(5, 1), fletcher32=True),
        "layer3 has shape",
    ),
    "chunks of half rows": (_replaced("features/layer3", data=ROWS, fletcher32=True, chunks=(5, 3)), "chunks of shape"),
    "NaN": (_replaced("features/layer3", data=ROWS * np.nan, fletcher32=True, chunks=(5, 7)), "not finite"),
    "fewer rows than labels": (
        _replaced("features/layer3", data=ROWS[:4], fletcher32=True, chunks=(4, 7)),
        "layer3 has 4 rows, labels 5",
    ),
    "rows never written": (_empty_rows, "layer3 has lost rows"),
    "10**12 labels": (
        _replaced("labels", shape=(10**12,), dtype="i8", chunks=(1024,), fletcher32=True, maxshape=(None,)),
        r"labels has shape \(1000000000000,\), which a file of .* cannot hold",
    ),
    "10**12 columns": (
        _replaced("features/layer3", shape=(5, 10**6), dtype="f4", chunks=(1, 10**6), fletcher32=True),
        "layer3 has shape .* cannot hold",
    ),
    "no format": (_attribute("format", "1"), "format is of another type"),
    "an array of formats": (_attribute("format", [1, 1]), "format is of another type"),
    "not complete": (_attribute("complete", False), "it is not complete"),
    "skipped of another type": (_attribute("skipped", 3), "skipped is of another type"),
    "skipped as bytes": (_attribute("skipped", np.bytes_(b"[]")), "skipped is of another type"),
    "skipped, no JSON": (_attribute("skipped", "[["), "damaged"),
    "skipped, deep": (_attribute("skipped", "[" * 100_000), "recursion"),
    "skipped, triples": (_attribute("skipped", '[["a", "b", "c"]]'), "skipped is not as it was written"),
    "skipped, numbers": (_attribute("skipped", "[[1, 2]]"), "skipped is not as it was written"),
    "skipped, half a character": (_attribute("skipped", r'[["\ud800", ""]]'), "surrogates"),
    "no skipped": (_without("skipped"), "has no skipped"),
    "versions, a list": (_attribute("versions", "[]"), "versions is not as it was written"),
    "content, a number": (_attribute("content", "3"), "content is not as it was written"),
    "other content": (_attribute("content", '{"weights": "x"}'), "another fingerprint"),
    "NaN in the content": (_attribute("content", '{"weights": NaN}'), "damaged"),
    "seconds as text": (_attribute("extract_s", "1.5", "features/layer3"), "extract_s is of another type"),
    "infinite seconds": (_attribute("extract_s", np.inf, "features/layer3"), "extract_s of layer3 is inf"),
    "no seconds": (_without("extract_s", "features/layer3"), "has no extract_s"),
}


def _read_all(path: Path) -> None:
    featbench.load_features(path, "layer3")


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_is_one_error_with_what_to_do(tmp_path: Path, name: str) -> None:
    forge, reason = FORGED[name]
    path = write(make_key(tmp_path), {"layer3": ROWS})
    with h5py.File(path, "r+") as file:
        del file.attrs["checksums"]  # as in an earlier version's, where nothing else tells
        forge(file)
    began_s = time.monotonic()
    message = rf"{path.name} is damaged \(.*{reason}.*\); delete it and run `featbench extract` again"
    for read in (_read_all, check_cache):
        with pytest.raises(DamagedCacheError, match=message if reason != "damaged" else r"is damaged \(.*delete it"):
            read(path)
    assert time.monotonic() - began_s < 5


def test_a_forged_file_is_listed_as_damaged_beside_the_others(tmp_path: Path) -> None:
    whole = write(make_key(tmp_path, weights="whole"), {"layer3": ROWS})
    forged = []
    for number, (forge, _) in enumerate(FORGED.values()):
        forged.append(write(make_key(tmp_path, weights=f"w{number}"), {"layer3": ROWS}))
        with h5py.File(forged[-1], "r+") as file:
            forge(file)
    assert len(list_cache(tmp_path)) == len(FORGED) + 1
    found = dict(verify_cache(tmp_path))
    assert found.pop(whole) is None
    assert found.keys() == set(forged)
    assert all(isinstance(problem, CacheError) for problem in found.values())


READER = """
import sys, featbench
try:
    featbench.load_features(sys.argv[1], "layer3")
except featbench.FeatbenchError as error:
    print(error)
"""


def _lying_chunks(folder: Path) -> list[Path]:
    """Make files with chunks that are not of the size they tell, and right checksums."""
    paths = []
    for says in (4, 1 << 20, 1 << 33, 1 << 45):  # a chunk that tells too much crashed the process
        paths.append(write(make_key(folder, weights=str(says)), {"layer3": ROWS}))
        with h5py.File(paths[-1], "r+") as file:
            layer = file["features/layer3"]
            stored = layer.id.read_direct_chunk((0, 0))[1][:-4]
            _write_chunk(layer, (0, 0), says.to_bytes(8, "big") + stored[8:])
    paths.append(write(make_key(folder, weights="block"), {"layer3": ROWS}))
    with h5py.File(paths[-1], "r+") as file:
        layer = file["features/layer3"]
        stored = layer.id.read_direct_chunk((0, 0))[1][:-4]
        _write_chunk(layer, (0, 0), stored[:12] + b"\xff\xff\xff\xff" + stored[16:])  # of the first block
    paths.append(write(make_key(folder, weights="labels"), {"layer3": ROWS}))
    with h5py.File(paths[-1], "r+") as file:
        _write_chunk(file["labels"], (0,), bytes(8))
    paths.append(write(make_key(folder, weights="skipped"), {"layer3": ROWS}))
    with h5py.File(paths[-1], "r+") as file:
        file["labels"].id.write_direct_chunk((0,), bytes(40), filter_mask=1)
    return paths


def _write_chunk(dataset: h5py.Dataset, offset: tuple[int, ...], content: bytes) -> None:
    """Write a chunk with the checksum that HDF5 gives it."""
    with h5py.File("checksum", "w", driver="core", backing_store=False) as file:
        plain = file.create_dataset("x", data=np.frombuffer(content, "u1"), chunks=(len(content),), fletcher32=True)
        checked = plain.id.read_direct_chunk((0,))[1]
    dataset.id.write_direct_chunk(offset, checked)


def test_a_chunk_that_lies_about_its_size_is_refused_before_its_filters_run(tmp_path: Path) -> None:
    paths = _lying_chunks(tmp_path)
    for path in paths:
        assert "is not of its size" in _read_in_a_child(path)


def _read_in_a_child(path: Path) -> str:
    """Read a file in a process of its own, which a fault or a minute ends, and return what it prints."""
    command = [sys.executable, "-c", READER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize(("earlier", "notes"), [(False, 0), (True, 0), (True, 1)])
def test_zeros_among_the_texts_do_not_keep_hdf5_there_for_ever(tmp_path: Path, earlier: bool, notes: int) -> None:
    path = write(make_key(tmp_path), {"layer3": ROWS})
    with h5py.File(path, "r+") as file:
        if earlier:
            del file.attrs["checksums"]
        for note in range(notes):
            file.attrs[f"note{note}"] = "from somebody's notebook"
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    size = int.from_bytes(content[heap + 8 : heap + 16], "little")
    for start in (heap, heap + 16, content.index(b'{"h5py"', heap)):
        path.write_bytes(content[:start] + bytes(heap + size - start) + content[heap + size :])
        assert "damaged (its texts are" in _read_in_a_child(path)


@pytest.mark.parametrize("text", ["broken.jpg", "no image", "hdf5", "abc"])
def test_a_flipped_byte_of_a_text_is_found(tmp_path: Path, text: str) -> None:
    path = write(make_key(tmp_path), {"layer3": ROWS})
    content = path.read_bytes()
    assert content.count(text.encode()) == 1
    path.write_bytes(content.replace(text.encode(), text[:-1].encode() + bytes([ord(text[-1]) ^ 1])))
    for read in (read_info, check_cache):
        with pytest.raises(DamagedCacheError, match=r"its (skipped|versions|content) is not what was written"):
            read(path)


def test_bytes_that_are_alike_to_hdf5s_checksum_are_told_apart(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": ROWS})
    with h5py.File(path) as file:
        chunk = file["labels"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 2 : chunk.byte_offset + 4] = b"\xff\xff"  # of the first label, 2
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert file["labels"][0] == 0xFFFF0002  # as Fletcher's checksum counts modulo 65535
    for read in (_read_all, check_cache):
        with pytest.raises(DamagedCacheError, match="its labels are not what was written"):
            read(path)


def test_a_file_of_an_earlier_version_and_one_with_a_note_are_whole(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": ROWS})
    with h5py.File(path, "r+") as file:
        texts = {"content", "fingerprint", "notes", "skipped", "versions"}
        assert json.loads(file.attrs["checksums"]).keys() == texts | {"labels", "ids"}
        del file.attrs["checksums"]
        file.attrs["note"] = "for the talk"  # from somebody's notebook
    check_cache(path)
    assert np.array_equal(featbench.load_features(path, "layer3")[0], ROWS)


def _foreign_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = [1, 2]


def _newer_format(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["format"] = 99


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_foreign_hdf5, "is not a feature cache"), (_newer_format, "has format 99, of another version")],
)
def test_a_file_of_another_program_or_version_is_left_alone(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    path = write(make_key(tmp_path), {"layer3": ROWS})
    change(path)
    with pytest.raises(ForeignCacheError, match=rf"{path.name} {reason}.*use another --cache"):
        featbench.load_features(path, "layer3")
    (entry,) = list_cache(tmp_path)
    assert (entry.state, entry.removable) == ("foreign", False)


def test_a_file_under_the_name_of_another_is_not_reused(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": ROWS})
    other = make_key(tmp_path, weights="other").path
    path.rename(other)
    with pytest.raises(ForeignCacheError, match=rf"has the name of other features.*{make_key(tmp_path).fingerprint}"):
        read_info(other)
