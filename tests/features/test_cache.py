from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import featbench
from featbench.errors import CacheError, UsageError
from featbench.features.cache import CacheKey, read_info
from tests.features.cache_files import IDS, LABELS, _PowerCutError, features, make_key, write


def test_the_file_is_what_the_contract_says(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    assert path.parent == tmp_path / "pets" / "resnet18"
    with h5py.File(path) as file:
        assert path.name == f"train-{file.attrs['fingerprint']}.h5"
        assert file["labels"].dtype == np.int64
        assert file["labels"][:].tolist() == LABELS.tolist()
        assert tuple(file["ids"].asstr()[:]) == IDS
        layer = file["features/layer3"]
        assert (layer.shape, layer.dtype, layer.fletcher32) == ((5, 7), np.float32, True)
        assert layer.chunks[1] == 7
        assert np.array_equal(layer[:], features(7))
        assert file.attrs["format"] == 1
        assert file.attrs["complete"]
        assert json.loads(file.attrs["content"]) == {"weights": "abc"}
        assert json.loads(file.attrs["versions"]).keys() >= {"h5py", "numpy"}
        assert json.loads(file.attrs["skipped"]) == [["broken.jpg", "no image"]]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("store", ["float32", "float16"])
def test_features_come_back_as_they_were_stored(tmp_path: Path, store: str) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)}, store)
    X, y, ids = featbench.load_features(path, "layer3")
    assert X.dtype == store
    assert np.array_equal(X, features(7).astype(store))
    assert y.tolist() == LABELS.tolist()
    assert tuple(ids) == IDS


@pytest.mark.parametrize("width", [1, 64, 300_000])
def test_chunks_are_whole_rows_of_about_a_mebibyte(tmp_path: Path, width: int) -> None:
    with h5py.File(write(make_key(tmp_path), {"layer3": features(width)})) as file:
        rows, columns = file["features/layer3"].chunks
    assert columns == width
    assert rows * columns * 4 <= 1 << 20 or rows == 1


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    assert read_info(key.path) is None
    write(key, {"layer3": features(7), "layer4": features(2)}, seconds=2.5)
    info = read_info(key.path)
    assert info is not None
    assert info.fingerprint == key.fingerprint
    assert (info.n_rows, info.widths) == (5, {"layer3": 7, "layer4": 2})
    assert info.extract_s == {"layer3": 2.5, "layer4": 2.5}
    assert info.skipped == (("broken.jpg", "no image"),)


def test_notes_are_kept_and_files_of_earlier_versions_have_none(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    write(key, {"layer3": features(7)})
    info = read_info(key.path)
    assert info is not None
    assert info.notes == {"constant": (2, "a.jpg")}
    with h5py.File(key.path, "a") as file:
        del file.attrs["notes"], file.attrs["checksums"]
    info = read_info(key.path)
    assert info is not None
    assert info.notes == {}


def test_another_layer_leaves_the_earlier_ones_bitwise_as_they_were(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    write(key, {"layer3": features(7)}, seconds=1.0)
    write(key, {"layer4": features(4, seed=1)}, seconds=9.0)
    assert np.array_equal(featbench.load_features(key.path, "layer3")[0], features(7))
    assert np.array_equal(featbench.load_features(key.path, "layer4")[0], features(4, seed=1))
    info = read_info(key.path)
    assert info is not None
    assert info.extract_s == {"layer3": 1.0, "layer4": 9.0}


def test_another_layer_of_other_images_is_refused(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    before = write(key, {"layer3": features(7)}).read_bytes()
    with pytest.raises(CacheError, match="other images"):
        write(key, {"layer4": features(2)}, ids=IDS[::-1])
    assert key.path.read_bytes() == before


@pytest.mark.parametrize("earlier", [False, True])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, earlier: bool) -> None:
    key = make_key(tmp_path)
    before = [write(key, {"layer3": features(7)}).read_bytes()] if earlier else []
    with pytest.raises(_PowerCutError):
        write(key, {"layer4": features(2)}, power_cut=True)
    assert [file.read_bytes() for file in key.path.parent.iterdir()] == before


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 3 MiB where this process may mount one, else a limit of that size on every file."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if mount and subprocess.run(command, capture_output=True, check=False).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, hard))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_is_one_clear_error_and_leaves_what_was_there(tmp_path: Path, earlier: bool) -> None:
    with _small_disk(tmp_path / "small") as disk:
        key = make_key(disk)
        wide = np.random.default_rng(0).normal(size=(5, 300_000)).astype(np.float32)  # 6 MB
        before = [write(key, {"layer3": np.zeros((5, 20), np.float16)}, "float16").read_bytes()] if earlier else []
        with pytest.raises(CacheError, match=r"cannot be written.*free some space"):
            write(key, {"layer4": wide})
        assert [file.read_bytes() for file in key.path.parent.iterdir()] == before


def test_a_cache_folder_that_cannot_be_made_is_a_cache_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot be written"):
        write(make_key(tmp_path / "file"), {"layer3": features(7)})


@pytest.mark.parametrize(
    ("value", "store"), [(np.nan, "float32"), (np.inf, "float32"), (-np.inf, "float16"), (70_000.0, "float16")]
)
def test_features_that_are_not_finite_are_refused(tmp_path: Path, value: float, store: str) -> None:
    rows = features(7)
    rows[3, 2] = value
    with pytest.raises(CacheError, match=rf"layer3.*not finite in {store}.*float32"):
        write(make_key(tmp_path), {"layer3": rows}, store)
    assert not list(tmp_path.rglob("*.h5"))


def test_70000_is_finite_in_float32(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": np.full((5, 1), 70_000.0, np.float32)})
    assert featbench.load_features(path, "layer3")[0].max() == 70_000


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"no cache file .*nothing\.h5.*featbench extract"):
        featbench.load_features(tmp_path / "nothing.h5", "layer3")


def test_an_unknown_layer_names_the_nearest(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7), "penultimate": features(2)})
    with pytest.raises(UsageError, match="did you mean 'layer3'"):
        featbench.load_features(path, "layer_3")


def _incomplete(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file.attrs["complete"]


def _without_labels(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["labels"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not HDF5"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "last byte missing": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "incomplete": _incomplete,
    "without labels": _without_labels,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("read", [lambda path: featbench.load_features(path, "layer3"), read_info])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, damage: str, read: Callable[[Path], object]) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    DAMAGE[damage](path)
    with pytest.raises(CacheError, match=rf"{path.name}.*delete it and run `featbench extract`"):
        read(path)


@pytest.mark.parametrize("what", ["features", "labels", "ids"])
def test_a_flipped_byte_is_detected(tmp_path: Path, what: str) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    with h5py.File(path) as file:
        chunk = file["features/layer3" if what == "features" else what].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError, match="damaged"):
        featbench.load_features(path, "layer3")


def test_no_flipped_byte_of_the_structure_goes_unnoticed(tmp_path: Path) -> None:
    path = write(make_key(tmp_path), {"layer3": features(7)})
    content = path.read_bytes()
    damaged = tmp_path / "damaged.h5"
    for place in [at for at, byte in enumerate(content[:4096]) if byte][::25]:
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            X, y, ids = featbench.load_features(damaged, "layer3")
        except CacheError:
            continue
        assert np.array_equal(X, features(7)), place
        assert y.tolist() == LABELS.tolist(), place
        assert tuple(ids) == IDS, place


@pytest.mark.parametrize("change", [{"weights": "abd"}, {"mean": [0.5]}])
def test_other_content_has_another_name(tmp_path: Path, change: dict[str, Any]) -> None:
    assert make_key(tmp_path).path != make_key(tmp_path, **change).path


def test_the_order_of_keys_does_not_change_the_name(tmp_path: Path) -> None:
    one = CacheKey(tmp_path, "d", "b", "train", {"a": 1, "b": 2})
    other = CacheKey(tmp_path, "d", "b", "train", {"b": 2, "a": 1})
    assert one.path == other.path
