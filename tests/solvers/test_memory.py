from __future__ import annotations

from pathlib import Path

import pytest

from featbench.solvers.memory import free_ram_bytes

MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8000 * 1024),
        ({"memory.max": "max\n", "memory.current": "5\n"}, 8000 * 1024),  # a container without a limit
        ({"memory.max": "1000\n", "memory.current": "600\n"}, 400),
        ({"memory.max": "1000\n", "memory.current": "600\n", "memory.stat": "anon 500\ninactive_file 50\n"}, 450),
        ({"memory.max": "1000\n", "memory.current": "600\n", "memory.stat": "no numbers"}, 400),
    ],
)
def test_the_memory_of_a_container_is_what_its_limit_and_its_file_cache_give(
    tmp_path: Path, files: dict[str, str], expected: float
) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert free_ram_bytes(tmp_path / "meminfo", tmp_path) == expected


def test_without_meminfo_it_is_half_of_what_is_installed(tmp_path: Path) -> None:
    total_kb = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert free_ram_bytes(tmp_path / "none", tmp_path) == pytest.approx(float(total_kb) * 1024 / 2, rel=1e-3)
