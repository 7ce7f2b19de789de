"""safetensors files, written: one tensor in memory at a time, every tensor that can be at a multiple of 64 bytes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..._types import PathLike, Shape
from ...errors import InvalidOptionError, ResourceLimitError, SaveError
from ..files import place, read_up_to
from ..tensors import BITS, Entry, count_elements, num_bytes
from ..write_parts import Parts, runs
from .safetensors_header import DTYPES, MAX_HEADER, MAX_TENSORS, METADATA, quoted

__all__ = ["ALIGNMENT", "Layout", "Outgoing", "create", "layout", "write", "write_into"]

ALIGNMENT = 64  # what JAX and TensorFlow want of memory that they are to use in place
PIECE = 32 << 20  # bytes per call of the system; after each of them the disk is told to begin

_CODES: Mapping[str, str] = {name: code for code, name in DTYPES.items()}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SYNC_FILE_RANGE_WRITE = 2


class Outgoing(NamedTuple):
    """One tensor to be written.

    `data()` gives its elements as a buffer, contiguous, row-major, little-endian, sub-byte dtypes packed, of exactly
    the bytes that dtype and shape come to. It is called once, and what it gave is let go before the next is called.
    `parts()`, where there is one, stands in for it: the same elements, in parts.
    """

    name: str
    dtype: str
    shape: Shape
    data: Callable[[], Any]
    parts: Callable[[], Parts] | None = None


class Layout(NamedTuple):
    """A file that is to be: its header, and the tensors in the order in which their data follows it."""

    header: bytes
    tensors: Sequence[Outgoing]
    entries: list[Entry]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.entries[-1].offset + self.entries[-1].nbytes if self.entries else len(self.header)


def write(
    path: PathLike,
    tensors: Sequence[Outgoing],
    metadata: Mapping[str, str],
    *,
    begin_writeback: bool = True,
) -> list[Entry]:
    """Writes a new safetensors file and returns its entries in the order of the file.

    Tensors keep their order, except that those whose size is no multiple of 64 bytes come last: every other tensor is
    then aligned. The caller does the fsync. What fails leaves no file.

    Args:
        path: A file that does not exist yet.
        tensors: What to write.
        metadata: Strings for the header; `format` is "pt" unless it is given here.
        begin_writeback: Let the disk begin while the rest is still being written, where the system can.

    Raises:
        InvalidOptionError: A name, dtype, shape, buffer or metadata that the format cannot hold; `tensor` names it.
        ResourceLimitError: A header that no reader would accept.
        OSError: From the system, as it was.
    """
    file = Path(path)
    planned = layout(file, tensors, metadata)
    with _created(file) as fd:
        _write_all(fd, planned, begin_writeback)
    return planned.entries


def layout(path: PathLike, tensors: Sequence[Outgoing], metadata: Mapping[str, str]) -> Layout:
    """Where everything will be in a file; the same for everyone who asks with the same arguments.

    Raises:
        InvalidOptionError, ResourceLimitError: as `write`.
    """
    file = Path(path)
    sizes = {id(tensor): _size_of(tensor, file) for tensor in tensors}
    ordered = sorted(tensors, key=lambda tensor: sizes[id(tensor)] % ALIGNMENT != 0)
    bounds = list(accumulate((sizes[id(tensor)] for tensor in ordered), initial=0))
    header = _header(ordered, bounds, metadata, file)
    entries = [
        Entry(tensor.name, tensor.dtype, tuple(tensor.shape), file, len(header) + begin, end - begin)
        for tensor, (begin, end) in zip(ordered, pairwise(bounds), strict=True)
    ]
    return Layout(header, ordered, entries)


def create(path: PathLike, planned: Layout) -> None:
    """Makes the file with its header and room for the data, that several processes then `write_into`.

    Raises:
        OSError: from the system, as it was.
    """
    with _created(Path(path)) as fd:
        _write_piece(fd, memoryview(planned.header))
        os.ftruncate(fd, planned.size)


def write_into(path: PathLike, planned: Layout, *, durable: bool) -> int:
    """Writes what this process has of each tensor into a file that was created; returns the bytes written.

    Raises:
        SaveError: the file is not there, or was made for other tensors.
        OSError: from the system, as it was.
    """
    file = Path(path)
    flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(file, flags)
    except FileNotFoundError:
        reason = "is not there, where another process made it: the folder must be on a file system that all share"
        raise SaveError(f"{place(file)}: {reason}", path=file, reason=reason) from None
    try:
        found = read_up_to(fd, len(planned.header))
        if found != planned.header or os.fstat(fd).st_size != planned.size:
            reason = "was made by another process for other tensors: all have to save the same model"
            raise SaveError(f"{place(file)}: {reason}", path=file, reason=reason)
        done = sum(
            _write_parts(fd, tensor, entry)
            for tensor, entry in zip(planned.tensors, planned.entries, strict=True)
            if tensor.parts is not None
        )
        if durable and done:
            os.fsync(fd)
        return done
    finally:
        os.close(fd)


@contextlib.contextmanager
def _created(file: Path) -> Iterator[int]:
    """A descriptor of a new file, which is gone again if the block fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    fd = os.open(file, flags, 0o666)
    try:
        try:
            yield fd
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            file.unlink()
        raise


def _write_parts(fd: int, tensor: Outgoing, entry: Entry) -> int:
    """Writes the parts of a tensor to their places in the file; returns the bytes."""
    assert tensor.parts is not None
    parts, done = tensor.parts(), 0
    for offset, piece in runs(parts, BITS[tensor.dtype] // 8):
        os.lseek(fd, entry.offset + offset, os.SEEK_SET)
        done += _write_piece(fd, piece)
    return done


def _write_all(fd: int, planned: Layout, begin_writeback: bool) -> None:
    begin = _starter() if begin_writeback else None
    started = 0
    position = _write_piece(fd, memoryview(planned.header))
    for tensor, entry in zip(planned.tensors, planned.entries, strict=True):
        if tensor.parts is not None:
            if (done := _write_parts(fd, tensor, entry)) != entry.nbytes:
                raise _refused(tensor, entry.file, f"its parts are {done} bytes of {entry.nbytes}")
            position = os.lseek(fd, entry.offset + entry.nbytes, os.SEEK_SET)
            if begin is not None:
                begin(fd, started, position - started)
                started = position
            continue
        with _bytes_of(tensor, entry) as view:
            for first in range(0, len(view), PIECE):
                with view[first : first + PIECE] as piece:
                    position += _write_piece(fd, piece)
                if begin is not None and position - started >= PIECE:
                    begin(fd, started, position - started)
                    started = position


def _write_piece(fd: int, piece: memoryview) -> int:
    done = 0
    while done < len(piece):
        with piece[done:] as rest:
            done += os.write(fd, rest)
    return done


def _bytes_of(tensor: Outgoing, entry: Entry) -> memoryview:
    """The data of one tensor as plain bytes, of the right number."""
    import numpy as np

    buffer = tensor.data()
    try:
        # memoryview alone refuses complex numbers, the dtypes of ml_dtypes, and zeros in a shape.
        view = np.frombuffer(buffer, np.uint8).data
    except (TypeError, ValueError) as cause:
        raise _refused(tensor, entry.file, f"its data is no plain buffer: {cause}") from cause
    if len(view) != entry.nbytes:
        reason = f"{len(view)} bytes of data; {tensor.dtype} of shape {list(tensor.shape)} takes {entry.nbytes}"
        raise _refused(tensor, entry.file, reason)
    return view


def _size_of(tensor: Outgoing, file: Path) -> int:
    if tensor.dtype not in _CODES:
        raise _refused(tensor, file, f"safetensors has no dtype {tensor.dtype!r}")
    if any(type(dim) is not int or dim < 0 for dim in tensor.shape):
        raise _refused(tensor, file, f"the shape {tensor.shape!r} is not made of integers from 0 up")
    if count_elements(tensor.shape) * BITS[tensor.dtype] % 8:
        raise _refused(tensor, file, f"{tensor.dtype} of shape {list(tensor.shape)} does not fill whole bytes")
    return num_bytes(tensor.shape, tensor.dtype)


def _header(tensors: Sequence[Outgoing], bounds: Sequence[int], metadata: Mapping[str, str], file: Path) -> bytes:
    """Length and header, padded so that the data begins at a multiple of the alignment."""
    described: dict[str, Any] = {METADATA: {"format": "pt", **metadata}}
    for key, value in described[METADATA].items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidOptionError(f"{place(file)}: metadata must be strings, not {key!r}: {value!r}", path=file)
    for tensor, span in zip(tensors, pairwise(bounds), strict=True):
        if not isinstance(tensor.name, str) or tensor.name == METADATA or _UNPRINTABLE.search(tensor.name):
            raise _refused(tensor, file, "no tensor may have this name")
        if tensor.name in described:
            raise _refused(tensor, file, "two tensors have this name")
        described[tensor.name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": span,
        }
    try:
        text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidOptionError(f"{place(file)}: metadata holds half of a surrogate pair", path=file) from None
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER or len(tensors) > MAX_TENSORS:
        limit = MAX_HEADER if len(text) > MAX_HEADER else MAX_TENSORS
        reason = f"a header of {len(text)} bytes for {len(tensors)} tensors; readers accept no more than {limit}"
        raise ResourceLimitError(f"{place(file)}: {reason}", path=file, reason=reason, limit=limit)
    return len(text).to_bytes(8, "little") + text


def _refused(tensor: Outgoing, file: Path, reason: str) -> InvalidOptionError:
    name = str(tensor.name)
    return InvalidOptionError(f"{place(file)}: tensor {quoted(name)}: {reason}", path=file, tensor=name, reason=reason)


@functools.cache
def _starter() -> Callable[[int, int, int], None] | None:
    """A call that makes the system begin to write a part of a file to its disk; `None` where there is none."""
    if sys.platform != "linux":
        return None
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    call.restype = ctypes.c_int

    def begin(fd: int, first: int, count: int) -> None:
        call(fd, first, count, _SYNC_FILE_RANGE_WRITE)  # only a hint: what it cannot do, fsync does

    return begin
