from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.docs.manual import PAGES, ROOT


def test_the_wheel_has_every_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"featbench/docs/{page.name}" for page in PAGES} <= set(names)
    assert "featbench/experiments/digits.toml" in names
