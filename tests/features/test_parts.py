from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featbench.errors import CacheError
from featbench.features import spool as spool_
from featbench.features.cache import CacheKey
from featbench.features.parts import Part, Spool, remove_finished

LAYERS = ("layer1", "features.2")


def key(cache_dir: Path) -> CacheKey:
    return CacheKey(cache_dir, "pets", "resnet18", "train", {"weights": "abc"})


def part(start: int, stop: int, dtype: Any = np.float32) -> Part:
    rng = np.random.default_rng(start)
    rows = np.arange(start, stop)[1:]  # the first image of each part cannot be read
    features = {layer: rng.normal(size=(len(rows), 3)).astype(dtype) for layer in LAYERS}
    skipped = [(f"züge/{start}.jpg", "no image, it says 'x'")]
    return Part(start, stop, rows, features, skipped, 0.5, {"constant": (1, f"züge/{start + 1}.jpg")})


def joined(spool: Spool) -> Part:
    return spool_._join(list(spool.parts()))


def assert_same(one: Part, other: Part) -> None:
    assert (one.start, one.stop, list(one.skipped)) == (other.start, other.stop, list(other.skipped))
    assert one.seconds == other.seconds
    assert one.notes == other.notes
    assert np.array_equal(one.rows, other.rows)
    for layer in LAYERS:
        assert one.features[layer].dtype == other.features[layer].dtype
        assert np.array_equal(one.features[layer], other.features[layer])


class Stopped(BaseException):
    pass


def stop_after(spool: Spool, *parts: Part) -> None:
    def work() -> None:
        with spool:
            for each in parts:
                spool.add(each)
            raise Stopped

    with pytest.raises(Stopped):
        work()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_was_added_is_there_after_the_process_was_stopped(tmp_path: Path, dtype: Any) -> None:
    stop_after(Spool(key(tmp_path), LAYERS), part(0, 4, dtype), part(4, 8, dtype))
    again = Spool(key(tmp_path), LAYERS)
    assert again.next_row == 8
    again.add(part(8, 10, dtype))
    assert_same(joined(again), spool_._join([part(0, 4, dtype), part(4, 8, dtype), part(8, 10, dtype)]))


def test_notes_of_parts_add_up_and_parts_of_earlier_versions_have_none(tmp_path: Path) -> None:
    spool = Spool(key(tmp_path), LAYERS)
    stop_after(spool, part(0, 4), part(4, 8))
    assert joined(Spool(key(tmp_path), LAYERS)).notes == {"constant": (2, "züge/1.jpg")}
    (path,) = spool.folder.glob("*.npz")
    with np.load(path) as file:
        arrays = dict(file)
    *earlier, notes = json.loads(str(arrays["rest"]))
    assert notes == {"constant": [2, "züge/1.jpg"]}
    np.savez(path, **(arrays | {"rest": np.asarray(json.dumps(earlier))}))
    assert joined(Spool(key(tmp_path), LAYERS)).notes == {}
    assert joined(Spool(key(tmp_path), LAYERS)).stop == 8


def test_a_job_of_seconds_writes_no_parts(tmp_path: Path) -> None:
    with Spool(key(tmp_path), LAYERS) as spool:
        spool.add(part(0, 4))
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(("setting", "value"), [("_PART_BYTES", 40), ("_PART_SECONDS", 0.0)])
def test_parts_go_to_disk_by_size_and_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: float
) -> None:
    monkeypatch.setattr(spool_, setting, value)
    spool = Spool(key(tmp_path), LAYERS)
    for start in (0, 4, 8):
        spool.add(part(start, start + 4))
    assert [path.name for path in sorted(spool.folder.iterdir())] == [
        "000000000-000000004.npz",
        "000000004-000000008.npz",
        "000000008-000000012.npz",
    ]
    spool.remove()
    assert not spool.folder.exists()
    assert list(spool.parts()) == []


def test_other_layers_and_other_content_have_other_parts(tmp_path: Path) -> None:
    stop_after(Spool(key(tmp_path), LAYERS), part(0, 4))
    assert Spool(key(tmp_path), LAYERS[:1]).next_row == 0
    assert Spool(CacheKey(tmp_path, "pets", "resnet18", "train", {"weights": "x"}), LAYERS).next_row == 0


def test_parts_of_an_older_version_stay(tmp_path: Path) -> None:
    spool = Spool(key(tmp_path), LAYERS)
    stop_after(spool, part(0, 4))
    (file,) = spool.folder.iterdir()
    arrays = dict(np.load(file))
    arrays["rest"] = np.array(json.dumps(json.loads(str(arrays["rest"]))[:4]))
    np.savez(file, **arrays)
    remove_finished(key(tmp_path), LAYERS)
    assert file.exists()
    assert Spool(key(tmp_path), LAYERS).next_row == 0  # and are computed anew


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "method"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_work_goes_on_before_a_damaged_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, damage: str
) -> None:
    monkeypatch.setattr(spool_, "_PART_BYTES", 0)
    spool = Spool(key(tmp_path), LAYERS)
    for start in (0, 4, 8):
        spool.add(part(start, start + 4))
    file = sorted(spool.folder.iterdir())[number]
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[content.index(part(number * 4, number * 4 + 4).features[LAYERS[1]].tobytes())] ^= 1
    if damage == "method":
        content[content.index(b"PK\1\2") + 10] = 99  # a compression that there is not
    file.write_bytes({"cut": content[:-9], "empty": b""}.get(damage, content))
    again = Spool(key(tmp_path), LAYERS)
    assert again.next_row == number * 4
    for start in range(number * 4, 12, 4):
        again.add(part(start, start + 4))
    whole = spool_._join([part(0, 4), part(4, 8), part(8, 12)])
    assert_same(joined(again), whole)
    assert_same(joined(Spool(key(tmp_path), LAYERS)), whole)


def test_a_part_that_damage_makes_smaller_is_computed_anew(tmp_path: Path) -> None:
    rows = {layer: np.zeros((2, 20_000), np.float32) for layer in LAYERS}
    spool = Spool(key(tmp_path), LAYERS)
    stop_after(spool, Part(0, 2, np.arange(2), rows, [], 1.0))
    assert Spool(key(tmp_path), LAYERS).next_row == 2
    (file,) = spool.folder.iterdir()
    file.write_bytes(file.read_bytes().replace(b"(2, 20000)", b"(1, 20000)"))
    assert Spool(key(tmp_path), LAYERS).next_row == 0


def test_a_part_that_cannot_be_written_is_a_cache_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_, "_PART_BYTES", 0)
    spool = Spool(key(tmp_path), LAYERS)
    spool.folder.parent.mkdir(parents=True)
    spool.folder.touch()
    with pytest.raises(CacheError, match="cannot be written"):
        spool.add(part(0, 4))


def test_a_part_that_is_too_large_for_the_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    stop_after(Spool(key(tmp_path), LAYERS), part(0, 4))
    spool = Spool(key(tmp_path), LAYERS)
    monkeypatch.setattr(spool_, "_PART_BYTES", 0)
    monkeypatch.setattr(spool_, "_PART_SECONDS", 0.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CacheError, match="free some space"):
            spool.add(part(4, 400))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in spool.folder.iterdir()] == ["000000000-000000004.npz"]
