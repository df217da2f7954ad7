"""A skops file read as numbers and arrays: no object that it names is created, nothing is imported.

skops creates every object in a file, and scikit-learn's compiled code trusts their arrays: one number in a tree can
make it read outside its memory. Here the reader names each array's dtype and shape, and an array with another header is
not unpacked; `restore` makes the classifier.

A file is a zip of schema.json, a tree of nodes as skops/io/_general.py writes them, and one .npy file for each array.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

_SCHEMA = "schema.json"
_CHUNK_BYTES = 2**20
_SMALL_FILE_BYTES = 2**26
_MAX_RATIO = 50  # of unpacked to packed size; features that are mostly zeros reach twenty
_SCHEMA_BYTES, _SCHEMA_BYTES_PER_TREE = 2**24, 2**15
_OBJECTS = ("ObjectNode", "TreeNode")
_LISTS = ("ListNode", "TupleNode")
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

Shape = tuple[int | range, ...]


class DamagedError(Exception):
    """The file is not one that featbench wrote; the message says what is wrong with it."""


@dataclass(frozen=True)
class Limits:
    """What is known of a model without its file.

    Attributes:
        n_features: Width of its features.
        n_classes: Classes of the data set; it may have been trained on some of them only.
        n_rows: Rows that it was trained on.
        n_trees: The most trees that it can have.
    """

    n_features: int
    n_classes: int
    n_rows: int
    n_trees: int = 0


@dataclass(frozen=True, eq=False)
class Record:
    """An object in a file: the name of its type, and its attributes.

    Attributes:
        type_name: As in "sklearn.svm._classes.LinearSVC".
    """

    type_name: str
    _nodes: Mapping[str, Any]
    _file: SkopsFile

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its attributes."""
        return tuple(self._nodes)

    def has(self, name: str) -> bool:
        """Whether there is such an attribute, and it is not None."""
        return name in self._nodes and not (self._is_plain(name) and self.plain(name) is None)

    def plain(self, name: str) -> bool | int | float | str | None:
        """Return a single value: a number, text, a boolean or None."""
        node = self._node(name)
        if not self._is_plain(name):
            raise DamagedError(f"{name} is not a single value")
        if _loader(node) == "NdArrayNode":
            number: bool | int | float = self._array(name, (), ("f4", "f8", "i4", "i8", "u4", "u8", "b1")).item()
            return number
        value = _parse(_get(node, "content", str))
        if not isinstance(value, bool | int | float | str | None):
            raise DamagedError(f"{name} is not a single value")
        return value

    def plains(self, names: Sequence[str]) -> dict[str, bool | int | float | str | None]:
        """Return those of these attributes that are single values."""
        return {name: self.plain(name) for name in names if name in self._nodes and self._is_plain(name)}

    def record(self, name: str) -> Record:
        """Return an object."""
        return self._file.record(self._node(name))

    def mapping(self, name: str) -> Record:
        """Return a dict, its keys as attributes."""
        node = self._node(name)
        if _loader(node) != "DictNode":
            raise DamagedError(f"{name} is not a dict")
        return Record("dict", _get(node, "content", dict), self._file)

    def items(self, name: str) -> list[Any]:
        """Return a list or tuple: its objects as records, lists of them as lists."""
        return self._items(self._node(name))

    def n_axes(self, name: str) -> int:
        """Return how many axes an array has."""
        return self._file.n_axes(self._entry(name))

    def floats(self, name: str, shape: Shape) -> npt.NDArray[np.floating[Any]]:
        """Read finite numbers, float32 or float64; a size may be a range of allowed sizes."""
        array = self._array(name, shape, ("f4", "f8"))
        if not np.isfinite(array).all():
            raise DamagedError(f"{name} holds numbers that are not finite")
        return array

    def ints(self, name: str, shape: Shape, allowed: range) -> npt.NDArray[np.int64]:
        """Read integers that are all in a range."""
        array = self._array(name, shape, ("i4", "i8", "u4", "u8")).astype(np.int64)
        if array.size and not (array.min() >= allowed.start and array.max() < allowed.stop):
            raise DamagedError(f"{name} holds numbers outside {allowed.start} to {allowed.stop - 1}")
        return array

    def table(self, name: str, dtype: np.dtype[Any], n_rows: range) -> npt.NDArray[Any]:
        """Read a structured array."""
        return self._array(name, (n_rows,), (dtype,))

    def _node(self, name: str) -> Any:
        if name not in self._nodes:
            raise DamagedError(f"{self.type_name} has no {name}")
        return self._nodes[name]

    def _is_plain(self, name: str) -> bool:
        node = self._nodes[name]
        loader = _loader(node)
        return loader == "JsonNode" or (loader == "NdArrayNode" and _get(node, "__class__", str) != "ndarray")

    def _items(self, node: Any) -> list[Any]:
        if _loader(node) not in _LISTS:
            raise DamagedError("there is something else where a list should be")
        content = _get(node, "content", list)
        return [self._items(each) if _loader(each) in _LISTS else self._file.record(each) for each in content]

    def _array(self, name: str, shape: Shape, dtypes: Sequence[Any]) -> npt.NDArray[Any]:
        return self._file.array(self._entry(name), name, shape, dtypes)

    def _entry(self, name: str) -> str:
        node = self._node(name)
        if _loader(node) != "NdArrayNode":
            raise DamagedError(f"{name} is not an array")
        entry: str = _get(node, "file", str)
        return entry


class SkopsFile:
    """A skops file, open.

    Args:
        path: The file.
        n_trees: The most trees that it can have; each adds to schema.json.

    Raises:
        DamagedError: It is not a zip, or its schema.json cannot be read.
    """

    def __init__(self, path: Path, n_trees: int) -> None:
        with _unzipping():
            self._zip = zipfile.ZipFile(path)
        self._remaining_bytes = _SMALL_FILE_BYTES + _MAX_RATIO * path.stat().st_size
        try:
            with self._open(_SCHEMA, _SCHEMA_BYTES + n_trees * _SCHEMA_BYTES_PER_TREE) as file:
                self._schema = _parse(file.read())
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def root(self) -> Record:
        """The object that the file is of."""
        return self.record(self._schema)

    def record(self, node: Any) -> Record:
        """Return the object of a node; for anything else, such as a dict, a record without attributes."""
        name = f"{_get(node, '__module__', str)}.{_get(node, '__class__', str)}"
        attributes: Mapping[str, Any] = {}
        if _loader(node) in _OBJECTS and "content" in node:
            attributes = _get(_get(node, "content", dict), "content", dict)
        return Record(name, attributes, self)

    def n_axes(self, entry: str) -> int:
        """Return how many axes the array of a .npy entry has."""
        with self._open(entry, self._remaining_bytes) as file:
            return len(_npy_header(file)[0])

    def array(self, entry: str, name: str, shape: Shape, dtypes: Sequence[Any]) -> npt.NDArray[Any]:
        """Unpack a .npy entry if its header has one of these dtypes and this shape."""
        with self._open(entry, self._remaining_bytes) as file:
            found, fortran, dtype = _npy_header(file)
            if dtype not in dtypes or len(found) != len(shape) or not all(map(_is_size, found, shape)):
                raise DamagedError(f"{name} is of {dtype} and shape {found}")
            array = np.empty(found, dtype, order="F" if fortran else "C")
            _fill(array, file, name)
        return array

    @contextmanager
    def _open(self, entry: str, max_bytes: int) -> Iterator[IO[bytes]]:
        with _unzipping():
            info = self._zip.getinfo(entry)
            if info.compress_type not in _COMPRESSIONS:
                raise DamagedError(f"{entry} is compressed by a method that featbench does not use")
            self._remaining_bytes -= info.file_size
            if info.file_size > max_bytes or self._remaining_bytes < 0:
                raise DamagedError(f"{entry} has {info.file_size:,} bytes, more than such a model takes")
            with self._zip.open(info) as file:
                yield file


@contextmanager
def _unzipping() -> Iterator[None]:
    """Turn whatever zipfile, zlib and numpy raise over the bytes of a file into a DamagedError."""
    try:
        yield
    except DamagedError:
        raise
    except Exception as error:
        raise DamagedError(str(error) or type(error).__name__) from error


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise DamagedError(f"an array is of version {version}")
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _is_size(found: int, wanted: int | range) -> bool:
    return found in wanted if isinstance(wanted, range) else found == wanted


def _fill(array: npt.NDArray[Any], file: IO[bytes], name: str) -> None:
    flat = array.reshape(-1, order="A").view(np.uint8)  # its memory, which is contiguous
    filled = 0
    while chunk := file.read(_CHUNK_BYTES):
        if filled + len(chunk) > len(flat):
            break
        flat[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    if chunk or filled != len(flat):
        raise DamagedError(f"{name} is shorter or longer than its header says")


def _loader(node: Any) -> str:
    loader: str = _get(node, "__loader__", str)
    return loader


def _get(node: Any, key: str, kind: type[Any]) -> Any:
    if not isinstance(node, dict) or not isinstance(node.get(key), kind):
        raise DamagedError(f"{_SCHEMA} has no {key} where there should be one")
    return node[key]


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{_SCHEMA} is not JSON, or nested too deeply") from error
