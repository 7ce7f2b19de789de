"""The few protocol buffers of a TensorFlow checkpoint: its header, what it says of a tensor, its graph of objects.

Source: tensorflow/core/protobuf/tensor_bundle.proto, trackable_object_graph.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..._types import Shape
from .opening import FlawError
from .tf_bundle_table import read_varint

__all__ = ["DTYPES", "STRING", "Described", "full_names", "read_entry", "read_num_shards"]

MAX_SHARDS = 99_999  # the names of the files have five digits
MAX_DIMS = 254
STRING = 7

# DataType by number, as far as its values are plain numbers: no text, no handles, nothing that needs a scale.
_NUMBERED = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
    "float8_e5m2": 24,
    "float8_e4m3fn": 25,
}
DTYPES: Mapping[int, str] = {number: name for name, number in _NUMBERED.items()}

_Value = int | bytes


class Described(NamedTuple):
    """What the index says of a tensor. `crc` is masked; `num_slices` says that it lies elsewhere, in parts."""

    dtype: int
    shape: Shape
    shard: int
    offset: int
    size: int
    crc: int
    num_slices: int


def read_num_shards(raw: bytes) -> int:
    """The number of data files, from the header of a checkpoint.

    Raises:
        FlawError: Its numbers are big-endian, or it is of a later version than we know.
    """
    numbers, messages = _sorted_fields(raw)
    if numbers.get(2, 0) != 0:
        raise FlawError("its numbers are big-endian; load it with TensorFlow and save it again", key="endianness")
    for version in messages.get(3, []):
        if (needed := _sorted_fields(version)[0].get(2, 0)) > 1:
            raise FlawError(f"needs a reader of version {needed}; this one knows version 1", key="version")
    if not 1 <= (count := numbers.get(1, 0)) <= MAX_SHARDS:
        raise FlawError(f"says it has {count} data files", key="num_shards")
    return count


def read_entry(raw: bytes) -> Described:
    """What the index says of a tensor.

    Raises:
        FlawError: Damaged, or with a shape that none can have.
    """
    numbers, messages = _sorted_fields(raw)
    shape: list[int] = []
    for part in messages.get(2, []):
        shape_numbers, shape_messages = _sorted_fields(part)
        if shape_numbers.get(3, 0):
            raise FlawError("its shape is unknown")
        shape += [_sorted_fields(dim)[0].get(1, 0) for dim in shape_messages.get(2, [])]
    if len(shape) > MAX_DIMS or any(dim >> 63 for dim in shape):
        raise FlawError("its shape is impossible")
    shard, offset, size, crc = (numbers.get(field, 0) for field in (3, 4, 5, 6))
    return Described(numbers.get(1, 0), tuple(shape), shard, offset, size, crc, len(messages.get(7, [])))


def full_names(raw: bytes) -> dict[str, str]:
    """Key in the checkpoint → name of the variable, from a graph of objects; of those that have a name.

    Raises:
        FlawError: Damaged.
    """
    names: dict[str, str] = {}
    for node in _sorted_fields(raw)[1].get(1, []):
        for attribute in _sorted_fields(node)[1].get(2, []):
            texts = _sorted_fields(attribute)[1]
            full, key = (b"".join(texts.get(field, [])[-1:]) for field in (2, 3))
            if full and key:
                names[key.decode("utf-8", "replace")] = full.decode("utf-8", "replace")
    return names


def _sorted_fields(raw: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """The fields of a message: the last number under each, and all texts and messages."""
    numbers: dict[int, int] = {}
    messages: dict[int, list[bytes]] = {}
    for field, value in _fields(raw):
        if isinstance(value, int):
            numbers[field] = value
        else:
            messages.setdefault(field, []).append(value)
    return numbers, messages


def _fields(raw: bytes) -> Iterator[tuple[int, _Value]]:
    at = 0
    while at < len(raw):
        tag, at = read_varint(raw, at, len(raw))
        field, kind = tag >> 3, tag & 7
        if field == 0:
            raise FlawError("is described by a damaged message: a field without a number")
        if kind == 0:
            value, at = read_varint(raw, at, len(raw))
            yield field, value
            continue
        if kind == 2:
            size, at = read_varint(raw, at, len(raw))
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise FlawError(f"is described by a damaged message: a field of kind {kind}")
        if at + size > len(raw):
            raise FlawError("is described by a damaged message: a field reaches beyond its end")
        piece = raw[at : at + size]
        at += size
        yield field, piece if kind == 2 else struct.unpack("<Q" if kind == 1 else "<L", piece)[0]
