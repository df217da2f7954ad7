"""Checkpoint files of a training: written whole or not at all, read without executing code in them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from featbench.errors import ResultsError
from featbench.results.files import replacing


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning writes and reads the checkpoint of a training."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint in place of the last one.

        Raises:
            ResultsError: The file cannot be written.
        """
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint; only tensors and plain values are taken from the file.

        Raises:
            ResultsError: The file is damaged.
        """
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ResultsError(
                f"the checkpoint {path} is damaged; remove it, and the training starts from the beginning"
            ) from error
        return content
