"""The head of a GGUF file: its metadata and the list of its tensors, parsed and checked.

The head has no length of its own and no index: what follows can only be found by walking over what comes before. Long
arrays, such as a vocabulary, are walked over and not kept, a window of the file at a time.

Source: the GGUF specification, versions 2 and 3 (ggml, docs/gguf.md).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..tensors import Entry, count_elements, num_bytes
from .gguf_types import TYPES, Blocks

__all__ = [
    "MAX_ITEMS",
    "MAX_KEYS",
    "MAX_TENSORS",
    "WINDOW",
    "GgufFlawError",
    "Head",
    "Raw",
    "Read",
    "Skipped",
    "read_head",
    "read_values",
]

MAX_KEYS = 16_384
MAX_TENSORS = 100_000
MAX_ITEMS = 2_000_000  # strings in all arrays together: each has to be walked over
MAX_NAME = 1024  # bytes of a key or of a tensor's name
MAX_TEXT = 4096  # bytes of a string that is kept
MAX_LIST = 64  # numbers of an array that is kept
MAX_DEPTH = 4  # arrays in arrays
MAX_DIMS = 4
MAX_COUNT = 2**63 - 1

_DEFAULT_ALIGNMENT = 32
WINDOW = 1 << 20  # bytes read at a time
_SLICE = 1 << 16  # bytes in which strings are looked for at a time
_STRING, _ARRAY, _BOOL, _FLOAT32 = 8, 9, 7, 6
_ARRAY_COST = 16  # strings that one array in another counts for
# Kind of value → its letter in struct.
_CODES: Mapping[int, str] = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_NUMBERS: Mapping[int, struct.Struct] = {kind: struct.Struct("<" + code) for kind, code in _CODES.items()}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_TENSOR = tuple(struct.Struct(f"<{dims}QIQ") for dims in range(MAX_DIMS + 1))
_ODD = re.compile("[\x00-\x1f\x7f-\x9f]")


Read = Callable[[int, int], bytes]  # so many bytes of a file, from a place on; fewer where it ends


class Skipped(NamedTuple):
    """A value that was walked over: so many items of one kind, or a string of so many bytes."""

    num: int
    what: str


class Raw(NamedTuple):
    """Where the bytes of a tensor are, and what they are."""

    offset: int
    nbytes: int
    blocks: Blocks


class Head(NamedTuple):
    """What the head of a file says.

    Attributes:
        fields: key → number, bool, string, list of numbers, or what was left out of them.
        entries: name → tensor. raw: name → its bytes.
    """

    fields: dict[str, Any]
    entries: dict[str, Entry]
    raw: dict[str, Raw]


class GgufFlawError(Exception):
    """A complaint, before it is known which file it concerns."""

    def __init__(
        self,
        reason: str,
        *,
        tensor: str | None = None,
        key: str | None = None,
        offset: int | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.tensor, self.key, self.offset, self.limit = reason, tensor, key, offset, limit


class _Cursor:
    """A place in a file, and a window of the bytes from there on."""

    def __init__(self, read: Read, size: int) -> None:
        self.read, self.size = read, size
        self.window, self.start, self.at = b"", 0, 0

    @property
    def position(self) -> int:
        """Where the next byte is in the file."""
        return self.start + self.at

    @property
    def left(self) -> int:
        """Bytes from here to the end of the file."""
        return self.size - self.position

    def need(self, count: int) -> None:
        """Makes sure that `count` bytes from here on are in the window."""
        if len(self.window) - self.at >= count:
            return
        position = self.position
        if position + count > self.size:
            raise GgufFlawError(
                f"cut off: the head goes on after byte {self.size}, where the file ends", offset=position
            )
        self.window = self.read(max(count, min(WINDOW, self.size - position)), position)
        self.start, self.at = position, 0
        if len(self.window) < count:
            raise GgufFlawError(f"the file ends at byte {position + len(self.window)}", offset=position)

    def number(self, form: struct.Struct) -> Any:
        """One number."""
        self.need(form.size)
        (value,) = form.unpack_from(self.window, self.at)
        self.at += form.size
        return value

    def take(self, count: int) -> bytes:
        """That many bytes."""
        self.need(count)
        found = self.window[self.at : self.at + count]
        self.at += count
        return found

    def skip(self, count: int) -> None:
        """Goes on by that many bytes, which are not read."""
        if count > self.left:
            raise GgufFlawError(f"{count} bytes are claimed, and the file has {self.left} more", offset=self.position)
        self.at += count
        if self.at > len(self.window):
            self.window, self.start, self.at = b"", self.position, 0

    def name(self, what: str) -> str:
        """A key or the name of a tensor."""
        at, length = self.position, self.number(_U64)
        if length > min(MAX_NAME, self.left):
            raise GgufFlawError(f"{what} of {length} bytes, where {min(MAX_NAME, self.left)} can be", offset=at)
        if not length:
            raise GgufFlawError(f"{what} without characters", offset=at)
        try:
            name = self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise GgufFlawError(f"{what} is not UTF-8", offset=at) from None
        if _ODD.search(name):
            raise GgufFlawError(f"{what} {name[:200]!r} holds a control character", offset=at)
        return name


def read_head(read: Read, file: Path, size: int) -> Head:
    """Everything the head of a file says, checked against the file's size; its magic is known to be right."""
    cursor = _Cursor(read, size)
    cursor.skip(4)
    version = cursor.number(_U32)
    if version not in (2, 3):
        if version & 0xFFFF == 0 and version:
            raise GgufFlawError("its numbers are big-endian; convert it to little-endian first", offset=4)
        raise GgufFlawError(f"GGUF version {version}, and 2 and 3 are known; convert the model again", offset=4)
    num_tensors, num_keys = cursor.number(_U64), cursor.number(_U64)
    for count, least, limit, what in (
        (num_tensors, 24, MAX_TENSORS, "tensors"),
        (num_keys, 13, MAX_KEYS, "metadata keys"),
    ):
        if count * least > cursor.left:
            raise GgufFlawError(f"{count} {what} are claimed, and the file has {cursor.left} more bytes", offset=8)
        if count > limit:
            raise GgufFlawError(f"more than {limit} {what}", limit=limit)
    fields = _read_fields(cursor, num_keys)
    alignment = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > WINDOW:
        reason = f"the alignment is {alignment!r:.80}, which is no power of two up to {WINDOW}"
        raise GgufFlawError(reason, key="general.alignment")
    entries, raw = _read_tensors(cursor, num_tensors, alignment, file)
    return Head(fields, entries, raw)


def _read_fields(cursor: _Cursor, count: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    budget = [MAX_ITEMS]
    for _ in range(count):
        at, key = cursor.position, cursor.name("a metadata key")
        if key in fields:
            raise GgufFlawError("the metadata key appears twice", key=key, offset=at)
        try:
            fields[key] = _read_value(cursor, cursor.number(_U32), budget)
        except GgufFlawError as flaw:
            flaw.key = key
            raise
    return fields


def read_values(read: Read, size: int, prefix: str) -> dict[str, Any]:
    """The metadata whose keys begin with `prefix`, whole, of a file whose head `read_head` has read."""
    cursor = _Cursor(read, size)
    cursor.skip(16)
    count, budget, found = cursor.number(_U64), [MAX_ITEMS], {}
    for _ in range(min(count, MAX_KEYS)):
        key, kind = cursor.name("a metadata key"), cursor.number(_U32)
        if key.startswith(prefix):
            found[key] = _read_whole(cursor, kind)
        else:
            _read_value(cursor, kind, budget)
    return found


def _read_whole(cursor: _Cursor, kind: int) -> Any:
    """A value of the metadata however long it is; arrays of arrays are left out."""
    if kind == _STRING:
        length = cursor.number(_U64)
        return cursor.take(length).decode("utf-8", "replace")
    if kind != _ARRAY:
        return _read_value(cursor, kind, [MAX_ITEMS])
    kind, count = _read_array_head(cursor)
    if kind == _STRING:
        return [_read_whole(cursor, _STRING) for _ in range(count)]
    if kind == _ARRAY:
        _skip_array(cursor, kind, count, [MAX_ITEMS], 1)
        return Skipped(count, "arrays")
    return list(struct.unpack(f"<{count}{_CODES[kind]}", cursor.take(count * _NUMBERS[kind].size)))


def _read_value(cursor: _Cursor, kind: int, budget: list[int]) -> Any:
    """A value of the metadata, or what stands for it where it is too long to keep."""
    if (form := _NUMBERS.get(kind)) is not None:
        value = cursor.number(form)
        return _shortest(value) if kind == _FLOAT32 else bool(value) if kind == _BOOL else value
    if kind == _STRING:
        length = cursor.number(_U64)
        if length > cursor.left:
            raise GgufFlawError(f"a string of {length} bytes, and the file has {cursor.left} more")
        if length <= MAX_TEXT:
            return cursor.take(length).decode("utf-8", "replace")
        cursor.skip(length)
        return Skipped(length, "bytes")
    if kind != _ARRAY:
        raise GgufFlawError(f"a value of the unknown type {kind}", offset=cursor.position)
    kind, count = _read_array_head(cursor)
    if kind in _CODES and count <= MAX_LIST:
        found = struct.unpack(f"<{count}{_CODES[kind]}", cursor.take(count * _NUMBERS[kind].size))
        return [bool(value) for value in found] if kind == _BOOL else list(found)
    _skip_array(cursor, kind, count, budget, 1)
    return Skipped(count, {_STRING: "strings", _ARRAY: "arrays"}.get(kind, "numbers"))


def _shortest(value: float) -> float:
    """A float of 32 bits as the shortest decimal that means it: 1e-05 rather than 9.999999747378752e-06."""
    exact = struct.pack("<f", value)
    decimals = (float(f"{value:.{digits}g}") for digits in (6, 7, 8))
    return next((decimal for decimal in decimals if struct.pack("<f", decimal) == exact), value)


def _read_array_head(cursor: _Cursor) -> tuple[int, int]:
    """The kind and the number of an array's items, for which the file has room."""
    kind, count = cursor.number(_U32), cursor.number(_U64)
    least = _NUMBERS[kind].size if kind in _NUMBERS else {_STRING: 8, _ARRAY: 12}.get(kind)
    if least is None:
        raise GgufFlawError(f"an array of the unknown type {kind}", offset=cursor.position)
    if count * least > cursor.left:
        raise GgufFlawError(f"an array of {count} items, and the file has {cursor.left} more bytes")
    return kind, count


def _skip_array(cursor: _Cursor, kind: int, count: int, budget: list[int], depth: int) -> None:
    if kind in _NUMBERS:
        cursor.skip(count * _NUMBERS[kind].size)
        return
    if depth > MAX_DEPTH:
        raise GgufFlawError(f"arrays in arrays, more than {MAX_DEPTH} deep", offset=cursor.position)
    budget[0] -= count * (_ARRAY_COST if kind == _ARRAY else 1)
    if budget[0] < 0:
        raise GgufFlawError(f"more than {MAX_ITEMS} strings, or too many arrays", limit=MAX_ITEMS)
    if kind == _STRING:
        _skip_strings(cursor, count)
        return
    for _ in range(count):
        _skip_array(cursor, *_read_array_head(cursor), budget, depth + 1)


def _skip_strings(cursor: _Cursor, count: int) -> None:
    """Goes past that many strings: nearly all of them found at once by numpy, the others one by one."""
    unpack = _U64.unpack_from
    while count:
        cursor.need(max(8, min(_SLICE, cursor.left)))
        window, stop = cursor.window, min(len(cursor.window), cursor.at + _SLICE)
        found, at = _string_run(window, cursor.at, stop, count)
        count -= found
        while count and at + 8 <= stop:
            at += 8 + unpack(window, at)[0]
            count -= 1
        cursor.skip(at - cursor.at)


def _string_run(window: bytes, at: int, stop: int, count: int) -> tuple[int, int]:
    """How many strings from `at` on are shorter than 256 bytes and lie in the window up to `stop`, and where they end.

    A length below 256 is a byte with seven zeros behind it. A run of such places, each of them where the string of the
    one before ends, is a run of strings.
    """
    import numpy as np

    area = np.frombuffer(window, np.uint8, stop - at, at)
    num_places = len(area) - 7
    if num_places < 1:
        return 0, at
    zero = area == 0
    two = zero[1:-1] & zero[2:]
    four = two[:-2] & two[2:]
    starts = np.flatnonzero(four[:num_places] & two[4 : 4 + num_places] & zero[7:])[:count]
    if not len(starts) or starts[0]:
        return 0, at
    ends = starts + 8 + area[starts]
    breaks = np.flatnonzero(ends[:-1] != starts[1:])
    num = int(breaks[0]) + 1 if len(breaks) else len(starts)
    num -= int(ends[num - 1] > len(area))
    return num, at + (int(ends[num - 1]) if num else 0)


def _read_tensors(cursor: _Cursor, count: int, alignment: int, file: Path) -> tuple[dict[str, Entry], dict[str, Raw]]:
    listed: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(count):
        at, name = cursor.position, cursor.name("the name of a tensor")
        if name in listed:
            raise GgufFlawError("the name appears twice", tensor=name, offset=at)
        num_dims = cursor.number(_U32)
        if num_dims > MAX_DIMS:
            raise GgufFlawError(
                f"{num_dims} dimensions, and {MAX_DIMS} are the most there can be", tensor=name, offset=at
            )
        form = _TENSOR[num_dims]
        *dims, kind, offset = form.unpack(cursor.take(form.size))
        listed[name] = (tuple(reversed(dims)), kind, offset)  # in the file the fastest axis comes first
    data_start = -(-cursor.position // alignment) * alignment
    entries: dict[str, Entry] = {}
    raw: dict[str, Raw] = {}
    for name, (shape, kind, offset) in listed.items():
        blocks = TYPES.get(kind)
        if blocks is None:
            raise GgufFlawError(f"the type {kind} is unknown", tensor=name)
        nbytes = _checked_size(name, shape, blocks)
        begin = data_start + offset
        if offset % alignment:
            raise GgufFlawError(f"its offset {offset} is no multiple of the alignment {alignment}", tensor=name)
        if begin + nbytes > cursor.size:
            reason = f"reaches to byte {begin + nbytes} of a file of {cursor.size} bytes"
            raise GgufFlawError(reason, tensor=name, offset=begin)
        raw[name] = Raw(begin, nbytes, blocks)
        dtype = blocks.dtype or "float32"
        entries[name] = Entry(name, dtype, shape, file, -1 if blocks.dtype is None else begin, num_bytes(shape, dtype))
    _check_overlap(raw)
    return entries, raw


def _checked_size(name: str, shape: tuple[int, ...], blocks: Blocks) -> int:
    """Bytes that a tensor takes in the file."""
    # A zero must not hide what the other dimensions come to: frameworks multiply them in 64 bits.
    if count_elements(tuple(max(dim, 1) for dim in shape)) * 8 > MAX_COUNT:
        raise GgufFlawError(f"the shape {list(shape)} is larger than any memory", tensor=name)
    row = shape[-1] if shape else 1
    if row % blocks.size:
        reason = f"rows of {row} elements are not whole blocks of {blocks.size}, as {blocks.name} has them"
        raise GgufFlawError(reason, tensor=name)
    return count_elements(shape) // blocks.size * blocks.nbytes


def _check_overlap(raw: Mapping[str, Raw]) -> None:
    end, last = 0, ""
    for name, (offset, nbytes, _) in sorted(raw.items(), key=lambda item: item[1][:2]):
        if offset < end:
            reason = f"overlaps the tensor {last[:200]!r}: begins at byte {offset}, before {end}"
            raise GgufFlawError(reason, tensor=name, offset=offset)
        if nbytes:
            end, last = offset + nbytes, name
