"""Arrays that do not fit the memory: written block by block into one file, and mapped into memory.

The file is unlinked when it is created (on Windows, when it is closed), so that its space is freed however the process
ends.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

_SHARE = 0.9  # of the free space; other files grow too


def make_room(folder: Path, n_bytes: int) -> None:
    """Make a folder that has room for a file of so many bytes.

    Raises:
        OSError: It cannot be made, or the disk has too little space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if n_bytes > _SHARE * shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def spill(blocks: Iterable[npt.NDArray[Any]], folder: Path) -> npt.NDArray[Any]:
    """Write blocks of rows (n, ...), alike but for n, into a file in a folder, and map all rows: (N, ...), writable.

    The space is freed with the array.

    Raises:
        OSError: The disk is full.
    """
    with TemporaryFile(dir=folder) as file:
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)
        file.flush()
        mapped: npt.NDArray[Any] = np.memmap(file, block.dtype, "r+")
    return mapped.reshape(-1, *block.shape[1:])
