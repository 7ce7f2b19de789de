"""The text of a safetensors header, parsed and checked.

Its grammar is flat, so one pass reads it, without recursion and without an object for anything but the entries: a
hostile header costs what its bytes cost, an honest one less than a JSON parser would take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..._types import Shape
from ..tensors import BITS, Entry, count_elements

__all__ = ["DTYPES", "MAX_HEADER", "MAX_TENSORS", "METADATA", "HeaderFlawError", "parse_header", "quoted"]

MAX_HEADER = 100_000_000
MAX_TENSORS = 1_000_000
METADATA = "__metadata__"
MAX_SLOW = 200_000  # of them may be spelled in a way that takes several times as long to parse
MAX_METADATA = 100_000  # keys
MAX_DIMS = 64
MAX_COUNT = 2**63 - 1
MAX_FIELDS = 8192  # characters in the description of one tensor

# Names in the header, and the names that numpy, ml_dtypes and torch share.
DTYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "I64": "int64",
    "U64": "uint64",
    "F64": "float64",
    "C64": "complex64",
    "F4": "float4_e2m1fn_x2",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
}

_FIELDS = {"dtype", "shape", "data_offsets"}
# A tensor as nearly every writer puts it; anything else takes the slow road. The name has no escapes and no control
# characters; the digits are those of a JSON number; a shape is checked where it is parsed, once per distinct text.
_TENSOR = re.compile(
    r' ?"([^"\\\x00-\x1f\x7f-\x9f]{0,1024})": ?\{"dtype": ?"([A-Z0-9_]{1,16})", ?"shape": ?\[([0-9, ]{0,2048})\], ?'
    r'"data_offsets": ?\[(0|[1-9][0-9]{0,18}), ?(0|[1-9][0-9]{0,18})\]\}([,}])'
)
# The same from writers that sort the fields by name.
_SORTED = re.compile(
    r' ?"([^"\\\x00-\x1f\x7f-\x9f]{0,1024})": ?\{"data_offsets": ?\[(0|[1-9][0-9]{0,18}), ?(0|[1-9][0-9]{0,18})\], ?'
    r'"dtype": ?"([A-Z0-9_]{1,16})", ?"shape": ?\[([0-9, ]{0,2048})\]\}([,}])'
)
_ANY_SPACE = re.compile(r"[ \t\r\n]*")
_MINUS = re.compile(r"[\[, \t\r\n]-")
_INT_ONLY = frozenset({int})
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECODER = json.JSONDecoder()
_PAIRS = json.JSONDecoder(object_pairs_hook=list)


class _Layout(NamedTuple):
    """What dtype and shape come to."""

    dtype: str
    shape: Shape
    nbytes: int


class HeaderFlawError(Exception):
    """A complaint about the header, before it is known which file and byte it concerns."""

    def __init__(
        self, reason: str, tensor: str | None = None, position: int | None = None, limit: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tensor = tensor
        self.position = position
        self.limit = limit


def quoted(name: str) -> str:
    """`name` for a message: in quotes, escaped, not too long."""
    return repr(name if len(name) <= 200 else name[:200] + "…")


def parse_header(text: str, file: Path, data_start: int, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries in the order of the file, and metadata. The loop runs once per tensor, and there may be many."""
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] | None = None
    layouts: dict[tuple[str, str], _Layout] = {}
    position, expected, is_ordered, slow = 1, data_start, True, 0
    if text.count('"data_offsets"') > MAX_TENSORS + 1:
        raise HeaderFlawError(f"more than {MAX_TENSORS} tensors", limit=MAX_TENSORS)
    mark = ","
    if text.startswith("}", after := _skip_space(text, 1)):
        mark, position = "}", after + 1
    while mark == ",":
        start = position
        if match := _TENSOR.match(text, position):
            name, dtype, dims, first, last, mark = match.groups()
            position = match.end()
        elif match := _SORTED.match(text, position):
            name, first, last, dtype, dims, mark = match.groups()
            position = match.end()
        else:
            name, position = _parse_name(text, position)
            if name == METADATA:
                if metadata is not None:
                    raise HeaderFlawError("__metadata__ appears twice", position=start)
                metadata, position = _parse_metadata(text, position)
                mark, position = _parse_mark(text, position)
                continue
            slow += 1
            dtype, dims, first, last, position = _parse_fields(text, position, name)
            mark, position = _parse_mark(text, position)
        layout = layouts.get((dtype, dims))
        if layout is None:
            layout = layouts[dtype, dims] = _layout_of(dtype, dims, name, start)
        begin, end = data_start + int(first), data_start + int(last)
        if end - begin != layout.nbytes:
            raise HeaderFlawError(_size_flaw(layout, int(first), int(last)), name, start)
        if name in entries:
            raise HeaderFlawError("the name appears twice", name, start)
        entries[name] = Entry(name, layout.dtype, layout.shape, file, begin, layout.nbytes)
        if begin != expected:
            is_ordered = False
        expected = end
        if len(entries) > MAX_TENSORS or slow > MAX_SLOW:
            limit = MAX_SLOW if slow > MAX_SLOW else MAX_TENSORS
            raise HeaderFlawError(f"more than {limit} tensors", limit=limit)
    if _skip_space(text, position) != len(text):
        raise HeaderFlawError("the header goes on after its last brace", position=position)
    if METADATA in entries:
        raise HeaderFlawError("__metadata__ is not an object of strings", position=0)
    if not is_ordered:
        entries = _in_order(entries, data_start)
    _check_end(entries, data_start, size)
    return entries, metadata or {}


def _parse_string(text: str, position: int, what: str) -> tuple[str, int]:
    """A JSON string at `position`, and where it ends."""
    if text[position : position + 1] != '"':
        raise HeaderFlawError(f"{what} should begin here", position=position)
    try:
        value, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as cause:
        raise HeaderFlawError(f"not valid JSON: {cause.msg}", position=cause.pos) from None
    if _SURROGATE.search(value):
        raise HeaderFlawError(f"{what} holds half of a surrogate pair", position=position)
    return value, end


def _skip(text: str, position: int, mark: str) -> int:
    """Where the next token begins, after white space and one `mark`."""
    position = _skip_space(text, position)
    if text[position : position + 1] != mark:
        raise HeaderFlawError(f"'{mark}' should stand here", position=position)
    return _skip_space(text, position + 1)


def _skip_space(text: str, position: int) -> int:
    match = _ANY_SPACE.match(text, position)
    return match.end() if match else position


def _parse_name(text: str, position: int) -> tuple[str, int]:
    position = _skip_space(text, position)
    name, end = _parse_string(text, position, "the name of a tensor")
    if _CONTROL.search(name):
        raise HeaderFlawError("the name holds a control character", name, position)
    return name, _skip(text, end, ":")


def _parse_mark(text: str, position: int) -> tuple[str, int]:
    """What follows an item of the header: a comma or the closing brace."""
    position = _skip_space(text, position)
    mark = text[position : position + 1]
    if mark not in (",", "}") or not mark:
        raise HeaderFlawError("',' or '}' should stand here", position=position)
    return mark, position + 1


def _parse_metadata(text: str, position: int) -> tuple[dict[str, str], int]:
    """The flat object of strings that `__metadata__` is, and where it ends."""
    metadata: dict[str, str] = {}
    if text[position : position + 1] != "{":
        raise HeaderFlawError("__metadata__ is not an object of strings", position=position)
    position = _skip_space(text, position + 1)
    if text[position : position + 1] == "}":
        return metadata, position + 1
    mark = ","
    while mark == ",":
        key, end = _parse_string(text, _skip_space(text, position), "a key of __metadata__")
        value, end = _parse_string(text, _skip(text, end, ":"), "a string, the value of __metadata__,")
        if key in metadata:
            raise HeaderFlawError(f"the key {quoted(key)} appears twice in __metadata__", position=position)
        metadata[key] = value
        if len(metadata) > MAX_METADATA:
            raise HeaderFlawError(f"more than {MAX_METADATA} keys of metadata", limit=MAX_METADATA)
        mark, position = _parse_mark(text, end)
    return metadata, position


def _parse_fields(text: str, position: int, name: str) -> tuple[str, str, str, str, int]:
    """dtype, shape and both offsets as text, of a tensor described in a way of its own, and where that ends."""
    if text[position : position + 1] != "{":
        raise HeaderFlawError("is not described by an object", name, position)
    end = text.find("}", position, position + MAX_FIELDS) + 1
    if not end:
        raise HeaderFlawError(f"no end of the description within {MAX_FIELDS} characters", name, position)
    try:
        pairs = _PAIRS.decode(text[position:end])
    except (ValueError, RecursionError):
        raise HeaderFlawError("the description is not a flat JSON object", name, position) from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise HeaderFlawError("a field appears twice", name, position)
    if fields.keys() != _FIELDS:
        odd = quoted(", ".join(sorted(fields.keys() ^ _FIELDS)))
        raise HeaderFlawError(
            f"the fields must be dtype, shape and data_offsets; missing or unknown: {odd}", name, position
        )
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if type(dtype) is not str:
        raise HeaderFlawError("dtype is not a string", name, position)
    for field, values in (("shape", shape), ("data_offsets", offsets)):
        if type(values) is not list or not _INT_ONLY.issuperset(map(type, values)):
            raise HeaderFlawError(f"{field} is not a list of integers", name, position)
    if len(offsets) != 2:
        raise HeaderFlawError("data_offsets are not two integers", name, position)
    if _MINUS.search(text, position, end):  # -0 is one, too
        raise HeaderFlawError("a negative number in shape or data_offsets", name, position)
    return dtype, ",".join(map(str, shape)), str(offsets[0]), str(offsets[1]), end


def _layout_of(dtype: str, dims: str, name: str, position: int) -> _Layout:
    """What the dtype and shape of a tensor come to, checked."""
    known = DTYPES.get(dtype)
    if known is None:
        raise HeaderFlawError(f"the dtype {quoted(dtype)} is unknown", name, position)
    if dims.count(",") >= MAX_DIMS or len(dims) > MAX_FIELDS:
        raise HeaderFlawError(f"more than {MAX_DIMS} dimensions, or impossible ones", name, position)
    try:
        shape = tuple(_DECODER.raw_decode(f"[{dims}]")[0])
    except ValueError:
        raise HeaderFlawError("shape is not a list of integers", name, position) from None
    # A zero must not hide what the other dimensions come to: frameworks multiply them in 64 bits.
    bits = count_elements(tuple(filter(None, shape))) * BITS[known]
    if bits > 8 * MAX_COUNT:
        raise HeaderFlawError("the shape is larger than any memory", name, position)
    if 0 in shape:
        bits = 0
    if bits % 8:
        raise HeaderFlawError(f"{bits} bits of {dtype} are not whole bytes", name, position)
    return _Layout(known, shape, bits // 8)


def _size_flaw(layout: _Layout, first: int, last: int) -> str:
    if last < first:
        return f"data_offsets run backwards, from {first} to {last}"
    return (
        f"{layout.dtype} of shape {list(layout.shape)} takes {layout.nbytes} bytes; "
        f"data_offsets {first} to {last} span {last - first}"
    )


def _in_order(entries: dict[str, Entry], data_start: int) -> dict[str, Entry]:
    """The entries sorted as they lie in the file, which they must fill without hole or overlap."""
    expected = data_start
    ordered: dict[str, Entry] = {}
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != expected:
            what = "overlaps the tensor before it" if entry.offset < expected else "leaves a hole before it"
            raise HeaderFlawError(f"{what}: begins at byte {entry.offset}, not at {expected}", entry.name)
        ordered[entry.name] = entry
        expected = entry.offset + entry.nbytes
    return ordered


def _check_end(entries: dict[str, Entry], data_start: int, size: int) -> None:
    """The data must end exactly where the file does."""
    last = next(reversed(entries.values()), None)
    end = data_start if last is None else last.offset + last.nbytes
    if end < size:
        raise HeaderFlawError(f"{size - end} bytes too many: the data ends at byte {end}, the file at {size}")
    if end > size:
        cut = next(entry for entry in entries.values() if entry.offset + entry.nbytes > size)
        raise HeaderFlawError(f"cut off: the data ends at byte {end}, the file at {size}", cut.name)
