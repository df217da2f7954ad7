from __future__ import annotations

from pathlib import Path

from featbench.results.images import write_notes, write_skipped


def test_notes(tmp_path: Path) -> None:
    write_notes(tmp_path, [("train", "plain, or nearly", 3, "a/b.png")])
    assert (tmp_path / "notes.csv").read_text() == 'split,note,images,example\ntrain,"plain, or nearly",3,a/b.png\n'


def test_skipped_images(tmp_path: Path) -> None:
    write_skipped(tmp_path, [("train", "a/b.png", "cut, at byte 7")])
    assert (tmp_path / "skipped.csv").read_text() == 'split,id,reason\ntrain,a/b.png,"cut, at byte 7"\n'
