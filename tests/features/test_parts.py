from __future__ import annotations

import json
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featbench.errors import CacheError
from featbench.features.cache import CacheKey
from featbench.features.parts import Part, Parts, remove_finished

LAYERS = ("layer1", "features.2")


def key(cache_dir: Path) -> CacheKey:
    return CacheKey(cache_dir, "pets", "resnet18", "train", {"weights": "abc"})


def part(start: int, stop: int, dtype: Any = np.float32) -> Part:
    rng = np.random.default_rng(start)
    rows = np.arange(start, stop)[1:]  # the first image of each part cannot be read
    features = {layer: rng.normal(size=(len(rows), 3)).astype(dtype) for layer in LAYERS}
    skipped = [(f"züge/{start}.jpg", "no image, it says 'x'")]
    return Part(start, stop, rows, features, skipped, 0.5, {"constant": (1, f"züge/{start + 1}.jpg")})


def joined(parts: Iterable[Part]) -> Part:
    """Put parts one behind the other."""
    each = list(parts)
    return Part(
        each[0].start,
        each[-1].stop,
        np.hstack([one.rows for one in each]),
        {layer: np.vstack([one.features[layer] for one in each]) for layer in LAYERS},
        [left_out for one in each for left_out in one.skipped],
        sum(one.seconds for one in each),
        {"constant": (sum(one.notes.get("constant", (0, ""))[0] for one in each), "züge/1.jpg")},
    )


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


def stop_after(made: Parts, *parts: Part) -> None:
    def work() -> None:
        with made:
            for each in parts:
                made.add(each)
            raise Stopped

    with pytest.raises(Stopped):
        work()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_was_added_is_there_after_the_process_was_stopped(tmp_path: Path, dtype: Any) -> None:
    stop_after(Parts(key(tmp_path), LAYERS), part(0, 4, dtype), part(4, 8, dtype))
    again = Parts(key(tmp_path), LAYERS)
    assert again.next_row == 8
    again.add(part(8, 10, dtype))
    assert_same(joined(again.read()), joined([part(0, 4, dtype), part(4, 8, dtype), part(8, 10, dtype)]))


def test_notes_of_parts_add_up_and_parts_of_earlier_versions_have_none(tmp_path: Path) -> None:
    parts = Parts(key(tmp_path), LAYERS)
    stop_after(parts, part(0, 4), part(4, 8))
    (both,) = Parts(key(tmp_path), LAYERS).read()
    assert both.notes == {"constant": (2, "züge/1.jpg")}
    (path,) = parts.folder.glob("*.npz")
    with np.load(path) as file:
        arrays = dict(file)
    *earlier, notes = json.loads(str(arrays["rest"]))
    assert notes == {"constant": [2, "züge/1.jpg"]}
    np.savez(path, **(arrays | {"rest": np.asarray(json.dumps(earlier))}))
    (both,) = Parts(key(tmp_path), LAYERS).read()
    assert both.notes == {}
    assert both.stop == 8


def test_a_job_of_seconds_writes_no_parts(tmp_path: Path) -> None:
    with Parts(key(tmp_path), LAYERS) as parts:
        parts.add(part(0, 4))
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("setting", [{"part_bytes": 40}, {"part_s": 0.0}])
def test_parts_go_to_disk_by_size_and_by_time(tmp_path: Path, setting: dict[str, Any]) -> None:
    parts = Parts(key(tmp_path), LAYERS, **setting)
    for start in (0, 4, 8):
        parts.add(part(start, start + 4))
    assert [path.name for path in sorted(parts.folder.iterdir())] == [
        "000000000-000000004.npz",
        "000000004-000000008.npz",
        "000000008-000000012.npz",
    ]
    parts.remove()
    assert not parts.folder.exists()
    assert list(parts.read()) == []


def test_other_layers_and_other_content_have_other_parts(tmp_path: Path) -> None:
    stop_after(Parts(key(tmp_path), LAYERS), part(0, 4))
    assert Parts(key(tmp_path), LAYERS[:1]).next_row == 0
    assert Parts(CacheKey(tmp_path, "pets", "resnet18", "train", {"weights": "x"}), LAYERS).next_row == 0


def test_parts_of_an_older_version_stay(tmp_path: Path) -> None:
    parts = Parts(key(tmp_path), LAYERS)
    stop_after(parts, part(0, 4))
    (file,) = parts.folder.iterdir()
    arrays = dict(np.load(file))
    arrays["rest"] = np.array(json.dumps(json.loads(str(arrays["rest"]))[:4]))
    np.savez(file, **arrays)
    remove_finished(key(tmp_path), LAYERS)
    assert file.exists()
    assert Parts(key(tmp_path), LAYERS).next_row == 0  # and are computed anew


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "method"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_work_goes_on_before_a_damaged_part(tmp_path: Path, number: int, damage: str) -> None:
    parts = Parts(key(tmp_path), LAYERS, part_bytes=0)
    for start in (0, 4, 8):
        parts.add(part(start, start + 4))
    file = sorted(parts.folder.iterdir())[number]
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[content.index(part(number * 4, number * 4 + 4).features[LAYERS[1]].tobytes())] ^= 1
    if damage == "method":
        content[content.index(b"PK\1\2") + 10] = 99  # a compression that there is not
    file.write_bytes({"cut": content[:-9], "empty": b""}.get(damage, content))
    again = Parts(key(tmp_path), LAYERS, part_bytes=0)
    assert again.next_row == number * 4
    for start in range(number * 4, 12, 4):
        again.add(part(start, start + 4))
    whole = joined([part(0, 4), part(4, 8), part(8, 12)])
    assert_same(joined(again.read()), whole)
    assert_same(joined(Parts(key(tmp_path), LAYERS).read()), whole)


def test_a_part_that_damage_makes_smaller_is_computed_anew(tmp_path: Path) -> None:
    rows = {layer: np.zeros((2, 20_000), np.float32) for layer in LAYERS}
    parts = Parts(key(tmp_path), LAYERS)
    stop_after(parts, Part(0, 2, np.arange(2), rows, [], 1.0))
    assert Parts(key(tmp_path), LAYERS).next_row == 2
    (file,) = parts.folder.iterdir()
    file.write_bytes(file.read_bytes().replace(b"(2, 20000)", b"(1, 20000)"))
    assert Parts(key(tmp_path), LAYERS).next_row == 0


def test_a_part_that_cannot_be_written_is_a_cache_error(tmp_path: Path) -> None:
    parts = Parts(key(tmp_path), LAYERS, part_bytes=0)
    parts.folder.parent.mkdir(parents=True)
    parts.folder.touch()
    with pytest.raises(CacheError, match="cannot be written"):
        parts.add(part(0, 4))


def test_a_part_that_is_too_large_for_the_disk_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    stop_after(Parts(key(tmp_path), LAYERS), part(0, 4))
    parts = Parts(key(tmp_path), LAYERS, part_bytes=0, part_s=0.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CacheError, match="free some space"):
            parts.add(part(4, 400))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in parts.folder.iterdir()] == ["000000000-000000004.npz"]
