"""Rows of features that stay on disk, because they do not fit the memory given: read block by block.

A view (some of the rows, in some order) costs an index; `read` alone reads. What works on arrays and on these goes
through `read_rows` and `blocks`, so that there is one way for both.
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
        memory_bytes: What a fit on them may take.
        change: What rows that were read go through, of the same width.
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
        """What `read` returns, whatever the file holds."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Index) -> StreamedRows:
        return replace(self, index=self.index[rows])

    def read(self, rows: Index = slice(None)) -> npt.NDArray[np.float32]:
        """Read rows (n, D)."""
        X: npt.NDArray[np.float32] = np.asarray(self.file)[self.index[rows]].astype(np.float32, copy=False)
        return X if self.change is None or not len(X) else self.change(X)

    def through(self, change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> StreamedRows:
        """Return the rows as this makes them; it keeps their width."""
        assert self.change is None
        return replace(self, change=change)


FeatureRows = npt.NDArray[Any] | StreamedRows


def read_rows(X: FeatureRows, rows: Index) -> npt.NDArray[Any]:
    """Return rows in memory; for a slice of an array a view."""
    return X.read(rows) if isinstance(X, StreamedRows) else X[rows]


def blocks(n: int, width: int) -> Iterator[slice]:
    """Divide n rows of this width."""
    size = max(1, BLOCK_VALUES // max(width, 1))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def one_after_the_other(X: FeatureRows, others: FeatureRows) -> FeatureRows:
    """Put rows after rows; streamed ones are of the same file."""
    if isinstance(X, StreamedRows) and isinstance(others, StreamedRows):
        assert X.file is others.file
        return replace(X, index=np.concatenate([X.index, others.index]))
    return np.concatenate([X, others])
