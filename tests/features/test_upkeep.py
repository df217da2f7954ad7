from __future__ import annotations

import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from featbench.cli import app
from featbench.features.cache import CacheKey, write_cache
from featbench.features.spool import Part, Spool
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
    spool = Spool(key(cache_dir, split), ["layer3"])
    spool.add(Part(0, 300, np.arange(300), {"layer3": ROWS}, [], 1.0))
    spool.__exit__(KeyboardInterrupt)
    return spool.folder


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
        assert problem is not None
        assert str(path) in problem


def test_verify_finds_a_file_under_another_name(tmp_path: Path) -> None:
    path = make(tmp_path)
    path.rename(path.with_name("train-0123456789abcdef.h5"))
    ((_, problem),) = verify_cache(tmp_path)
    assert "name of other features" in str(problem)


def test_prune_removes_what_it_is_given_and_the_empty_folders(tmp_path: Path) -> None:
    make(tmp_path)
    interrupt(tmp_path, "val")
    entries = list_cache(tmp_path)
    assert prune_cache(entries) == entries
    assert list(tmp_path.iterdir()) == []


def test_prune_leaves_what_a_process_is_at_work_on(tmp_path: Path) -> None:
    parts, other = interrupt(tmp_path), make(tmp_path, "val")
    with FileLock(key(tmp_path).path.with_suffix(".lock")):
        removed = prune_cache(list_cache(tmp_path))
    assert [entry.path for entry in removed] == [other]
    assert list(parts.iterdir())


def test_files_of_other_programs_are_never_touched(tmp_path: Path) -> None:
    folder = tmp_path / "pets" / "resnet18"
    folder.mkdir(parents=True)
    for name in ("train.h5", "weights-1.h5", "train-0123456789ABCDEF.h5", ".hidden.tmp", "x.partial"):
        (folder / name).write_bytes(b"something else")
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
