from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from featbench.cli.main import app
from featbench.features.cache import CacheKey, write_cache
from featbench.features.opening import CacheInUseError, DamagedCacheError
from featbench.features.parts import Part, Parts
from featbench.features.upkeep import list_cache, prune_cache, verify_cache

ROWS = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)


def key(cache_dir: Path, split: str = "train") -> CacheKey:
    content = {"pooling": "avg", "precision": "float32", "store": "float32"}
    return CacheKey(cache_dir, "pets", "resnet18", split, content)


def make(cache_dir: Path, split: str = "train", unused_days: float = 0) -> Path:
    with write_cache(key(cache_dir, split), {"layer3": 7}, "float32") as writer:
        writer.append({"layer3": ROWS}, np.arange(300), [str(row) for row in range(300)])
        writer.finish(key(cache_dir, split), [], 1.5)
    path = key(cache_dir, split).path
    path.with_suffix(".lock").touch()
    then = time.time() - unused_days * 86_400
    os.utime(path, (then, then))
    return path


def interrupt(cache_dir: Path, split: str = "train") -> Path:
    parts = Parts(key(cache_dir, split), ["layer3"])
    parts.add(Part(0, 300, np.arange(300), {"layer3": ROWS}, [], 1.0))
    parts.__exit__(KeyboardInterrupt)
    return parts.folder


def test_the_list_says_what_there_is(tmp_path: Path) -> None:
    path, parts = make(tmp_path, unused_days=3), interrupt(tmp_path, "val")
    (tmp_path / "pets" / "resnet18" / "notes.txt").touch()
    complete, unfinished = list_cache(tmp_path)
    assert (complete.path, complete.n_bytes, complete.state) == (path, path.stat().st_size, "complete")
    assert complete.unused_s == pytest.approx(3 * 86_400, abs=60)
    assert complete.about == "300 images; layer3 (7); avg float32 float32"
    assert (unfinished.path, unfinished.state) == (parts, "unfinished")
    assert unfinished.n_bytes > ROWS.nbytes


def test_an_empty_or_missing_cache_has_no_entries(tmp_path: Path) -> None:
    assert list_cache(tmp_path) == list_cache(tmp_path / "none") == []


def test_verify_finds_every_flipped_byte_of_the_features(tmp_path: Path) -> None:
    path = make(tmp_path)
    with h5py.File(path) as file:
        chunk = file["features/layer3"].id.get_chunk_info(0)
    content = path.read_bytes()
    for offset in range(chunk.byte_offset, chunk.byte_offset + chunk.size, chunk.size // 20):
        flipped = bytearray(content)
        flipped[offset] ^= 4
        path.write_bytes(flipped)
        ((_, problem),) = verify_cache(tmp_path)
        assert isinstance(problem, DamagedCacheError)
        assert str(path) in str(problem)


def test_verify_finds_a_file_under_another_name(tmp_path: Path) -> None:
    path = make(tmp_path)
    path.rename(path.with_name("train-0123456789abcdef.h5"))
    ((_, problem),) = verify_cache(tmp_path)
    assert "name of other features" in str(problem)


def test_prune_removes_what_it_is_given_and_the_empty_folders(tmp_path: Path) -> None:
    make(tmp_path)
    interrupt(tmp_path, "val")
    entries = list_cache(tmp_path)
    assert prune_cache(entries) == [(entry, None) for entry in entries]
    assert list(tmp_path.iterdir()) == []


def test_prune_leaves_what_a_process_is_at_work_on(tmp_path: Path) -> None:
    parts, other = interrupt(tmp_path), make(tmp_path, "val")
    with FileLock(key(tmp_path).path.with_suffix(".lock")):
        outcomes = {entry.path: problem for entry, problem in prune_cache(list_cache(tmp_path))}
    assert outcomes.keys() == {parts, other}
    assert outcomes[other] is None
    assert isinstance(outcomes[parts], CacheInUseError)
    assert list(parts.iterdir())


def test_prune_leaves_what_was_used_since_it_was_listed(tmp_path: Path) -> None:
    path = make(tmp_path, unused_days=40)
    entries = list_cache(tmp_path)
    os.utime(path)
    ((_, problem),) = prune_cache(entries)
    assert "was used since it was listed" in str(problem)
    assert path.exists()


def test_one_odd_file_does_not_stop_the_others(tmp_path: Path) -> None:
    whole, odd, folder = make(tmp_path), make(tmp_path, "test"), make(tmp_path, "val")
    with h5py.File(odd, "r+") as file:
        del file["labels"]
        file.create_group("labels")
    folder.unlink()
    folder.mkdir()
    entries = {entry.path: entry for entry in list_cache(tmp_path)}
    assert {path: entry.state for path, entry in entries.items()} == {
        whole: "complete",
        odd: "damaged",
        folder: "foreign",
    }
    assert "labels is no dataset" in entries[odd].about
    problems = dict(verify_cache(tmp_path))
    assert problems.keys() == {whole, odd, folder}
    assert problems[whole] is None
    command = ["cache", "prune", "--yes", "--cache", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert (whole.exists(), odd.exists(), folder.exists()) == (True, False, True)
    assert f"{folder} stays: it is no file" in result.output


def _elsewhere(tmp_path: Path) -> tuple[Path, Path]:
    """Make a cache folder, and files outside it that are a hundred days old, as old as a file of the cache is."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    for path in (make(outside, unused_days=100), interrupt(outside, "val"), outside / "notes.txt"):
        for file in path.iterdir() if path.is_dir() else [path]:
            file.touch()
            os.utime(file, (1e9, 1e9))
    os.utime(make(cache, unused_days=100))
    return cache, outside


def _link_a_data_set(cache: Path, outside: Path) -> None:
    (cache / "linked").symlink_to(outside / "pets")


def _link_a_backbone(cache: Path, outside: Path) -> None:
    (cache / "pets" / "linked").symlink_to(outside / "pets" / "resnet18")


def _link_a_file(cache: Path, outside: Path) -> None:
    (cache / "pets" / "resnet18" / "test-0123456789abcdef.h5").symlink_to(key(outside).path)


def _link_parts(cache: Path, outside: Path) -> None:
    (parts,) = outside.glob("*/*/*.partial")
    (cache / "pets" / "resnet18" / parts.name).symlink_to(parts)


def _leave_a_dangling_link(cache: Path, outside: Path) -> None:
    folder = cache / "pets" / "resnet18"
    (folder / "test-0123456789abcdef.h5").symlink_to(outside / "gone")
    (folder / ".test-0123456789abcdef-01234567.partial").symlink_to(outside / "gone")
    (cache / "gone").symlink_to(outside / "gone")
    (cache / "loop").symlink_to(cache / "loop")


@pytest.mark.parametrize(
    "link", [_link_a_data_set, _link_a_backbone, _link_a_file, _link_parts, _leave_a_dangling_link]
)
def test_prune_follows_no_link(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    cache, outside = _elsewhere(tmp_path)
    link(cache, outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    links = [path for path in cache.rglob("*") if path.is_symlink()]
    assert len(before) == 4  # with the lock's file
    result = CliRunner().invoke(app, ["cache", "prune", "--older-than", "0", "--yes", "--cache", str(cache)])
    assert result.exit_code == 0
    assert "removed 1," in result.output
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before
    assert [path for path in cache.rglob("*") if path.is_symlink()] == links
    assert not key(cache).path.exists()
    code = CliRunner().invoke(app, ["cache", "list", "--cache", str(cache)]).exit_code
    assert code == 0


def test_a_folder_of_parts_keeps_what_is_not_a_part(tmp_path: Path) -> None:
    parts = interrupt(tmp_path)
    (part,) = parts.iterdir()
    (parts / "thesis.txt").write_text("mine")
    (parts / "000000300-000000400.npz").mkdir()
    ((_, problem),) = prune_cache(list_cache(tmp_path))
    assert "not featbench's" in str(problem)
    assert "thesis.txt" in str(problem)
    assert not part.exists()
    assert (parts / "thesis.txt").read_text() == "mine"
    result = CliRunner().invoke(app, ["cache", "prune", "--older-than", "0", "--yes", "--cache", str(tmp_path)])
    assert result.exit_code == 1


def test_files_of_other_programs_are_never_touched(tmp_path: Path) -> None:
    folder = tmp_path / "pets" / "resnet18"
    folder.mkdir(parents=True)
    for name in ("train.h5", "weights-1.h5", "train-0123456789ABCDEF.h5", ".hidden.tmp", "x.partial"):
        (folder / name).write_bytes(b"something else")
    (folder / "train.partial").mkdir()
    assert list_cache(tmp_path) == []
    assert list(verify_cache(tmp_path)) == []


def test_the_commands(tmp_path: Path) -> None:
    old, new = make(tmp_path, unused_days=40), make(tmp_path, "test")

    def command(*arguments: str, answer: str = "") -> tuple[int, str]:
        result = CliRunner().invoke(app, ["cache", *arguments, "--cache", str(tmp_path)], input=answer)
        return result.exit_code, result.output

    code, text = command("list")
    assert (code, text.count("complete")) == (0, 2)
    assert "40 days" in text
    assert command("verify") == (0, "2 cache files read, none damaged\n")
    code, text = command("prune", answer="n\n")
    assert (code, old.exists()) == (0, True)
    assert "Remove these 1 (" in text
    code, text = command("prune", answer="y\n")
    assert (code, old.exists(), new.exists()) == (0, False, True)
    assert command("prune") == (0, f"nothing in {tmp_path} is damaged or was unused for 30 days\n")
    new.write_bytes(new.read_bytes()[:-2000])
    code, text = command("verify")
    assert code == 1
    assert "1 cache files read, 1 damaged" in text
    assert str(new) in text
    assert command("prune", "--yes")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_prune_asks_on_a_closed_terminal_and_removes_nothing(tmp_path: Path) -> None:
    path = make(tmp_path)
    result = CliRunner().invoke(app, ["cache", "prune", "--older-than", "0", "--cache", str(tmp_path)], input="")
    assert result.exit_code != 0
    assert path.exists()
