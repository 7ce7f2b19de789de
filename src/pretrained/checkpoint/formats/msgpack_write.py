"""Flax's files, written: a tree of maps with arrays as its leaves, one array in memory at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from ..._types import PathLike
from .msgpack import ARRAY, CHUNKED
from .safetensors_write import Outgoing

__all__ = ["CHUNK", "write"]

CHUNK = 2**30  # bytes of one array that are written as one: Flax cuts up what is larger


def write(path: PathLike, tensors: Sequence[Outgoing]) -> None:
    """Writes a new file as `flax.serialization` reads it. The caller does the fsync. What fails leaves no file.

    Args:
        path: A file that does not exist yet.
        tensors: What to write; the parts of a name, divided by `/`, are the keys that lead to it.

    Raises:
        OSError: From the system, as it was.
    """
    tree: dict[str, Any] = {}
    for tensor in tensors:
        inner = tree
        *parents, leaf = tensor.name.split("/")
        for key in parents:
            inner = inner.setdefault(key, {})
        inner[leaf] = tensor
    try:
        with open(path, "xb") as file:
            _write_map(file, tree)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _packed(value: Any) -> bytes:
    import msgpack

    found: bytes = msgpack.packb(value, use_bin_type=True)
    return found


def _map_head(count: int) -> bytes:
    import msgpack

    found: bytes = msgpack.Packer().pack_map_header(count)
    return found


def _write_map(file: BinaryIO, tree: Mapping[str, Any]) -> None:
    file.write(_map_head(len(tree)))
    for key, value in tree.items():
        file.write(_packed(key))
        if isinstance(value, Mapping):
            _write_map(file, value)
        else:
            _write_tensor(file, value)


def _write_tensor(file: BinaryIO, tensor: Outgoing) -> None:
    elements = memoryview(tensor.data()).cast("B")
    if len(elements) <= CHUNK:
        _write_array(file, tensor.shape, tensor.dtype, elements)
        return
    size = len(elements)
    for dim in tensor.shape:
        size //= dim
    step = CHUNK // size * size
    pieces = [elements[start : start + step] for start in range(0, len(elements), step)]
    file.write(_map_head(3) + _packed(CHUNKED) + _packed(True) + _packed("shape"))
    file.write(_packed({str(axis): dim for axis, dim in enumerate(tensor.shape)}))
    file.write(_packed("chunks") + _map_head(len(pieces)))
    for number, piece in enumerate(pieces):
        file.write(_packed(str(number)))
        _write_array(file, (len(piece) // size,), tensor.dtype, piece)


def _write_array(file: BinaryIO, shape: Sequence[int], dtype: str, elements: memoryview) -> None:
    """An ext of the type of arrays: a list of shape, dtype and bytes, packed in turn."""
    head = b"\x93" + _packed(list(shape)) + _packed(dtype) + _length(b"\xc4\xc5\xc6", len(elements))
    file.write(_length(b"\xc7\xc8\xc9", len(head) + len(elements)) + bytes([ARRAY]) + head)
    file.write(elements)


def _length(codes: bytes, count: int) -> bytes:
    """The first byte of something of so many bytes, and how many, in one, two or four bytes."""
    power = 0 if count < 2**8 else 1 if count < 2**16 else 2
    return codes[power : power + 1] + count.to_bytes(1 << power, "big")
