"""environment.json: the versions and the machine that a run was computed with."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import featbench
from featbench.results.files import write_text

ENVIRONMENT = "environment.json"
_PACKAGES = ("h5py", "lightning", "numpy", "pandas", "pillow", "scikit-learn", "torchvision")


def write_environment(folder: Path, device: torch.device) -> None:
    """Write environment.json into a results folder.

    Raises:
        ResultsError: It cannot be written.
    """
    on_gpu = device.type == "cuda"
    content = {
        "versions": {"featbench": featbench.__version__, "torch": torch.__version__}
        | {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "cpu_threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }
    write_text(folder / ENVIRONMENT, json.dumps(content, indent=2) + "\n")


def _git_commit() -> str | None:
    """Return the commit of featbench's own checkout; None where it is installed otherwise."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return None
    return done.stdout.strip() or None
