"""Rows of features that do not fit the memory and stay on disk, to be read block by block.

Indexing makes a view, which holds indices only; `read` reads. Code that works on arrays and on these uses `read_rows`
and `blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_VALUES = 2**19  # 4 MB of float64
Index = slice | npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class StreamedRows:
    """Rows of a memory-mapped file; indexing makes a view.

    Attributes:
        file: (M, D) float16 or float32.
        index: (N,) intp, which rows of the file.
        memory_bytes: Budget for a fit on them.
        change: Transform applied to rows after reading; it keeps their width.
    """

    file: npt.NDArray[Any]
    index: npt.NDArray[np.intp]
    memory_bytes: float
    change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self.index), self.file.shape[1]

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """The dtype that `read` returns, whatever the file's."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Index) -> StreamedRows:
        return replace(self, index=self.index[rows])

    def read(self, rows: Index = slice(None)) -> npt.NDArray[np.float32]:
        """Read rows (n, D)."""
        X: npt.NDArray[np.float32] = np.asarray(self.file)[self.index[rows]].astype(np.float32, copy=False)
        return X if self.change is None or not len(X) else self.change(X)

    def transformed(self, change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> StreamedRows:
        """Return the rows with a transform applied whenever they are read; it keeps their width."""
        assert self.change is None
        return replace(self, change=change)


FeatureRows = npt.NDArray[Any] | StreamedRows


def read_rows(X: FeatureRows, rows: Index) -> npt.NDArray[Any]:
    """Return rows in memory; a slice of an array is a view."""
    return X.read(rows) if isinstance(X, StreamedRows) else X[rows]


def blocks(n: int, width: int) -> Iterator[slice]:
    """Divide n rows of this width."""
    size = max(1, BLOCK_VALUES // max(width, 1))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def concatenated(X: FeatureRows, others: FeatureRows) -> FeatureRows:
    """Concatenate rows; streamed ones must be of the same file."""
    if isinstance(X, StreamedRows) and isinstance(others, StreamedRows):
        assert X.file is others.file
        return replace(X, index=np.concatenate([X.index, others.index]))
    return np.concatenate([X, others])
