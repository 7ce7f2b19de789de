"""Flax's files: a tree of maps packed with msgpack, with the arrays as its leaves.

The tree is walked and the arrays are passed over, so a file of any size takes as much memory as its names do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..._types import PathLike, Shape
from ...errors import TensorError
from ..files import HEAD, place, read_up_to, recognise
from ..tensors import BITS, Entry, FileStamp, count_elements, num_bytes
from ..windows import numpy_dtype, read_bytes
from .flaws import FlawError
from .msgpack_items import Cursor, Item
from .opening import opening

__all__ = ["FlaxFile", "read_msgpack"]

MAX_DEPTH = 64
MAX_ITEMS = 1_000_000
MAX_NAMES = 64 << 20  # characters of all names
MAX_KEY = 1024  # bytes
MAX_DIMS = 32
MAX_COUNT = 2**63 - 1

CHUNKED = "__msgpack_chunked_array__"
# Types of ext as Flax gives them out.
ARRAY, COMPLEX, SCALAR = 1, 2, 3
_PLAIN = frozenset({"nil", "bool", "int", "float", "str"})
_DTYPES = frozenset(name for name, bits in BITS.items() if bits % 8 == 0)
_ODD = re.compile("[\x00-\x1f\x7f-\x9f]")


T = TypeVar("T")


class _Piece(NamedTuple):
    """A run of the file with elements of an array."""

    start: int
    nbytes: int


class _Array(NamedTuple):
    """An array as it lies in the file: in one piece, but for those that Flax cuts up for their size."""

    shape: Shape
    dtype: str
    pieces: tuple[_Piece, ...]


@dataclass(frozen=True, eq=False, repr=False)
class FlaxFile:
    """An opened file of Flax: all its arrays, checked against the size of the file.

    Attributes:
        path: The file.
        entries: By name, the keys on the way to the array joined by `/`, in the order of the file.
        metadata: `format` is "flax".
        stamp: Identity of the file when it was opened.
        skipped: Names of leaves that are no arrays, such as the count of steps.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    stamp: FileStamp
    skipped: tuple[str, ...]
    _pieces: Mapping[str, tuple[_Piece, ...]]  # of those arrays that are in several

    def read(self, entry: Entry) -> Any:
        """The tensor as a numpy array of its own memory.

        Raises:
            CheckpointChangedError: The file is not the one that was opened.
            TensorError: The entry is not of this file, or its bytes are no values of its dtype.
            WeightsFormatError: The system cannot read it.
        """
        import numpy as np

        if self.entries.get(entry.name) != entry:
            raise self._error("no such entry in this file", entry)
        try:
            raw = np.empty(entry.nbytes, np.uint8)
        except MemoryError:
            raise MemoryError(f"{place(self.path)}: tensor {entry.name[:200]!r} takes {entry.nbytes} bytes") from None
        done = 0
        for start, nbytes in self._pieces.get(entry.name, (_Piece(entry.offset, entry.nbytes),)):
            read_bytes(self, entry._replace(offset=start), raw.data[done : done + nbytes])
            done += nbytes
        if entry.dtype == "bool" and raw.size and raw.max() > 1:
            raise self._error("a bool is neither 0 nor 1", entry)
        return raw.view(numpy_dtype(entry.dtype)).reshape(entry.shape)

    def _error(self, reason: str, entry: Entry) -> TensorError:
        message = f"{place(self.path)}: tensor {entry.name[:200]!r}: {reason}"
        return TensorError(message, path=self.path, tensor=entry.name, reason=reason, offset=entry.offset)


def read_msgpack(path: PathLike) -> FlaxFile:
    """The arrays that a file of Flax holds; no data is read.

    Raises:
        SourceError: Nothing can be opened at `path`.
        WeightsFormatError: Another kind of file, a damaged one, or one that holds something else than a tree of arrays.
        TensorError: The same, where one place of the tree is to blame; `tensor` names it.
        ResourceLimitError: More items or longer names than any honest file has.
        CheckpointChangedError: The file changed meanwhile.
    """
    file = Path(path)
    with opening(file) as (fd, stamp):
        _check_kind(read_up_to(fd, HEAD))
        tree = _Tree(Cursor(fd, stamp.size))
        tree.read()
    entries = {name: _entry(name, array, file) for name, array in tree.arrays.items()}
    pieces = {name: array.pieces for name, array in tree.arrays.items() if len(array.pieces) != 1}
    return FlaxFile(file, entries, {"format": "flax"}, stamp, tuple(tree.skipped), pieces)


def _entry(name: str, array: _Array, file: Path) -> Entry:
    offset = array.pieces[0].start if len(array.pieces) == 1 else -1
    return Entry(name, array.dtype, array.shape, file, offset, num_bytes(array.shape, array.dtype))


def _check_kind(head: bytes) -> None:
    kind = recognise(head)
    if kind is None and head[:1] and not (0x80 <= head[0] < 0x90 or head[0] in (0xDE, 0xDF)):
        raise FlawError("is no msgpack file of Flax: it does not begin with a map", offset=0)
    if kind not in (None, "a msgpack file"):
        raise FlawError(f"is no msgpack file: it {'is' if kind == 'empty' else 'looks like'} {kind}", offset=0)


@dataclass
class _Tree:
    """One walk through a file.

    Attributes:
        cursor: where it is. arrays: what was found. skipped: leaves that are none.
        num_items, num_chars: what was met so far, to be bounded.
    """

    cursor: Cursor
    arrays: dict[str, _Array] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    num_items: int = 0
    num_chars: int = 0

    def read(self) -> None:
        """Walks through all of the file."""
        item = self.cursor.item()
        if item.kind != "map":
            raise FlawError(f"holds {item.kind} where a map of arrays is expected", offset=0)
        self._read_map("", item.value, 1)
        if self.cursor.left:
            reason = f"the file goes on for {self.cursor.left} bytes after its end"
            raise FlawError(reason, offset=self.cursor.at)

    def _read_map(self, prefix: str, count: int, depth: int) -> None:
        """The items of a map; `prefix` is its own name, with a `/` at the end but for the root's."""
        if depth > MAX_DEPTH:
            raise FlawError(f"{prefix[:200]!r}: maps within maps, more than {MAX_DEPTH}", limit=MAX_DEPTH)
        keys: set[str] = set()
        for _ in range(count):
            key = self._key(prefix, keys)
            if key == CHUNKED:
                if count != 3 or len(keys) != 1 or not prefix:
                    raise self._flaw(prefix, f"has the key {key!r} where no array in chunks can be")
                self._add(prefix[:-1], self._chunked(prefix[:-1]))
                return
            try:
                self._read_value(prefix + key, depth)
            except FlawError as flaw:
                flaw.tensor = flaw.tensor or prefix + key
                raise

    def _key(self, prefix: str, keys: set[str]) -> str:
        item = self.cursor.item()
        if item.kind != "str":
            raise self._flaw(prefix, f"a key of a map is {item.kind}, not text")
        if item.value > MAX_KEY:
            raise self._flaw(prefix, f"a key of a map has {item.value} bytes; at most {MAX_KEY} are read")
        try:
            key = self.cursor.take(item.value).decode("utf-8")
        except UnicodeDecodeError:
            raise self._flaw(prefix, "a key of a map is not UTF-8") from None
        if not key or _ODD.search(key):
            raise self._flaw(prefix, f"a key of a map is {'empty' if not key else 'no plain text'}: {key!r:.200}")
        if key in keys:
            raise self._flaw(prefix, f"the key {key!r:.200} is there twice")
        keys.add(key)
        self._count(len(prefix) + len(key))
        return key

    def _count(self, num_chars: int) -> None:
        self.num_items += 1
        self.num_chars += num_chars
        if self.num_items > MAX_ITEMS:
            raise FlawError(f"the file has more than {MAX_ITEMS} items", limit=MAX_ITEMS)
        if self.num_chars > MAX_NAMES:
            raise FlawError(f"the names of the file have more than {MAX_NAMES} characters", limit=MAX_NAMES)

    def _read_value(self, name: str, depth: int) -> None:
        item = self.cursor.item()
        if item.kind == "map":
            self._read_map(f"{name}/", item.value, depth + 1)
        elif item.kind == "ext":
            self._read_ext(name, item)
        elif item.kind in _PLAIN:
            self.cursor.skip(item.value if item.kind == "str" else 0)
            self.skipped.append(name)
        else:
            raise self._flaw(name, f"is {item.kind}, where a map or an array of numbers is expected")

    def _read_ext(self, name: str, item: Item) -> None:
        if item.code == COMPLEX:
            end = self.cursor.at + item.value
            parts = [self.cursor.item().kind for _ in range(3)]
            if parts[0] != "array" or set(parts[1:]) - {"int", "float"} or self.cursor.at != end:
                raise self._flaw(name, "is a damaged complex number")
            self.skipped.append(name)
            return
        array = self._array(name, item)
        if item.code == SCALAR and array.shape:
            raise self._flaw(name, f"is a single number of the shape {list(array.shape)}")
        self._add(name, array)

    def _add(self, name: str, array: _Array) -> None:
        if name in self.arrays:
            raise self._flaw(name, "two arrays have this name")
        self.arrays[name] = array

    def _array(self, name: str, item: Item) -> _Array:
        """An array, which the cursor is at the content of: its shape, the name of its dtype, its bytes."""
        if item.kind != "ext" or item.code not in (ARRAY, SCALAR):
            what = f"ext of the type {item.code}" if item.kind == "ext" else item.kind
            raise self._flaw(name, f"is {what}, where an array of numbers is expected")
        end = self.cursor.at + item.value
        if self.cursor.item() != Item("array", 3):
            raise self._flaw(name, "does not say its shape, dtype and bytes")
        shape = self._shape(name)
        told = self.cursor.item()
        if told.kind != "str" or told.value > 64:
            raise self._flaw(name, "has no name of a dtype")
        dtype = self.cursor.take(told.value).decode("utf-8", "backslashreplace")
        if dtype not in _DTYPES:
            raise self._flaw(name, f"has the dtype {dtype!r}, which no tensor of ours has")
        held = self.cursor.item()
        if held.kind != "bin":
            raise self._flaw(name, f"has {held.kind} in place of its bytes")
        start, nbytes = self.cursor.at, num_bytes(shape, dtype)
        if held.value != nbytes:
            raise self._flaw(name, f"{list(shape)} of {dtype} takes {nbytes} bytes, and {held.value} are there")
        self.cursor.skip(nbytes)
        if self.cursor.at != end:
            raise self._flaw(name, f"ends at {self.cursor.at}, and should at {end}")
        return _Array(shape, dtype, (_Piece(start, nbytes),))

    def _shape(self, name: str) -> Shape:
        """Sizes of the axes: a list, or a map with the keys "0", "1", … as there is beside chunks."""
        item = self.cursor.item()
        if item.kind not in ("array", "map") or item.value > MAX_DIMS:
            raise self._flaw(name, f"has {item.kind} of {item.value} for its shape")
        if item.kind == "map":
            shape = tuple(self._numbered(name, item.value, self._axis))
        else:
            shape = tuple(self._axis(name) for _ in range(item.value))
        if count_elements(tuple(max(size, 1) for size in shape)) * 16 > MAX_COUNT:
            raise self._flaw(name, "has an impossible shape")
        return shape

    def _axis(self, name: str) -> int:
        item = self.cursor.item()
        if item.kind != "int" or item.value < 0:
            raise self._flaw(name, f"has an axis of {item.value if item.kind == 'int' else item.kind} elements")
        return item.value

    def _numbered(self, name: str, count: int, read: Callable[[str], T]) -> list[T]:
        """What a map with the keys "0", "1", … holds, in the order of these."""
        found: dict[str, T] = {}
        keys: set[str] = set()
        for _ in range(count):
            key = self._key(f"{name}/", keys)
            found[key] = read(name)
        lost = next((str(i) for i in range(count) if str(i) not in found), None)
        if lost is not None:
            raise self._flaw(name, f"is in {count} parts, and there is none of the number {lost}")
        return [found[str(i)] for i in range(count)]

    def _chunked(self, name: str) -> _Array:
        """An array in chunks, from behind the key that says so."""
        if self.cursor.item() != Item("bool", 1):
            raise self._flaw(name, f"does not say {CHUNKED}: true")
        shape: Shape = ()
        chunks: list[_Array] = []
        keys: set[str] = set()
        for _ in range(2):
            key = self._key(f"{name}/", keys)
            if key == "shape":
                shape = self._shape(name)
            elif key == "chunks":
                item = self.cursor.item()
                if item.kind != "map" or not item.value:
                    raise self._flaw(name, f"has {item.kind} of {item.value} for its chunks")
                chunks = self._numbered(name, item.value, lambda name: self._array(name, self.cursor.item()))
            else:
                raise self._flaw(name, f"is in chunks and has the key {key!r:.200}")
        dtype = chunks[0].dtype
        if any(len(chunk.shape) != 1 or chunk.dtype != dtype for chunk in chunks):
            raise self._flaw(name, "has chunks of several dtypes, or of more than one axis")
        nbytes, found = num_bytes(shape, dtype), sum(chunk.pieces[0].nbytes for chunk in chunks)
        if found != nbytes:
            raise self._flaw(name, f"{list(shape)} of {dtype} takes {nbytes} bytes, and its chunks have {found}")
        return _Array(shape, dtype, tuple(chunk.pieces[0] for chunk in chunks))

    def _flaw(self, name: str, reason: str) -> FlawError:
        return FlawError(reason, tensor=name.rstrip("/") or "(root)", offset=self.cursor.at)
