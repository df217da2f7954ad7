from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.digit_rows import digits
from tests.pretend import pretended_gpu
from tests.rows import make_row, save_models

__all__ = ["digits", "make_row", "save_models"]  # fixtures


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The test material beside the repository; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"the shared test material is not at {folder}")
    return folder


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A GPU, which is a pretended one where there is none."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**20))
    with pretended_gpu() as device:
        yield device


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every download fail at once, whether or not the machine has a network."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody answers
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it read the proxies when it was made
