"""Tensors at rest: what a header says of one, before any byte of it is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .._types import ByteSource, Shape

__all__ = [
    "BITS", "Container", "Entry", "FileStamp", "count_elements", "num_bytes", "remote_source",
    "require_intact",
]  # fmt: skip

# Bits per element of every dtype that a format of ours can store, under the names numpy, ml_dtypes and torch share.
BITS: Mapping[str, int] = {
    "bool": 8,
    "uint8": 8,
    "int8": 8,
    "float8_e5m2": 8,
    "float8_e4m3fn": 8,
    "float8_e8m0fnu": 8,
    "int16": 16,
    "uint16": 16,
    "float16": 16,
    "bfloat16": 16,
    "int32": 32,
    "uint32": 32,
    "float32": 32,
    "int64": 64,
    "uint64": 64,
    "float64": 64,
    "complex64": 64,
    "complex128": 128,
    "float4_e2m1fn_x2": 4,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
}


class Entry(NamedTuple):
    """One tensor at rest.

    `offset` is the position of its first byte in `file`, when the file holds the elements plainly: little-endian,
    contiguous, row-major, uncompressed. Where it does not, `offset` is -1 and only the container can read it.
    """

    name: str
    dtype: str
    shape: Shape
    file: Path
    offset: int
    nbytes: int


class FileStamp(NamedTuple):
    """Identity of a file's content as far as the file system tells: the same stamp before and after means unchanged."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Container(Protocol):
    """One opened weight file: its entries are known, its data is not yet read."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the writer noted: `format` ("pt", "tf", "flax", …) and anything else, all strings."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Its tensors by name."""

    @property
    def stamp(self) -> FileStamp | None:
        """Identity of the file when its header was read; `None` when there is no file."""

    def read(self, entry: Entry) -> Any:
        """The tensor as a numpy array of its own memory (ml_dtypes for what numpy lacks)."""


def remote_source(container: Container) -> ByteSource | None:
    """What reads the container's file in ranges, where that is not on this machine; None where it is."""
    source: ByteSource | None = getattr(container, "source", None)
    return source


def require_intact(container: Container, entries: Iterable[Entry]) -> None:
    """Compares the checksums that the file's own format has for these tensors, before they are read past its reader.

    Raises:
        WeightsFormatError: the bytes are not the recorded ones. CheckpointChangedError: the file is another now.
    """
    check = getattr(container, "require_intact", None)
    if check is not None:
        check(entries)


def count_elements(shape: Shape) -> int:
    """Number of elements of a tensor of this shape; Python integers, so nothing wraps."""
    total = 1
    for dim in shape:
        total *= dim
    return total


def num_bytes(shape: Shape, dtype: str) -> int:
    """Bytes that a contiguous tensor of this shape and dtype takes; sub-byte types are packed."""
    bits = count_elements(shape) * BITS[dtype]
    return (bits + 7) // 8
