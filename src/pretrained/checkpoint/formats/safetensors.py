"""safetensors files: eight bytes of length, a JSON header, the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._types import ByteSource, PathLike, Piece
from ...errors import CheckpointChangedError, PretrainedError, ResourceLimitError, TensorError, WeightsFormatError
from ..files import HEAD, fill, open_regular, place, read_up_to, recognise, stamp_of
from ..head import WithHead
from ..tensors import BITS, Entry, FileStamp
from .safetensors_header import DTYPES, MAX_HEADER, MAX_TENSORS, HeaderFlawError, parse_header, quoted
from .safetensors_write import Layout, Outgoing, create, layout, write, write_into

__all__ = [
    "DTYPES", "MAX_HEADER", "MAX_TENSORS", "Header", "Layout", "Outgoing", "create", "layout", "read_header",
    "read_remote_header", "write", "write_into",
]  # fmt: skip

_FIRST_RANGE = 100_000  # bytes; the headers of nearly all files are shorter


@dataclass(frozen=True, eq=False, repr=False)
class Header:
    """An opened safetensors file: everything its header says, checked against the size of the file.

    Attributes:
        path: The file.
        entries: By name, in the order of the file.
        metadata: What the writer noted.
        stamp: Identity of the file when the header was read; None of one that is not on this machine.
        data_start: Position of the first byte of data.
        source: What reads the file where it lies, if it is not on this machine.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    stamp: FileStamp | None
    data_start: int
    source: ByteSource | None = None

    def read(self, entry: Entry) -> Any:
        """The tensor as a numpy array of its own memory, sub-byte elements one to a byte.

        Raises:
            CheckpointChangedError: The file is not the one whose header was read.
            TensorError: The entry is not of this file, or its bytes are no values of its dtype.
        """
        import numpy as np

        if self.entries.get(entry.name) != entry:
            raise self._error(TensorError, "no such entry in this file", entry)
        try:
            raw = np.empty(entry.nbytes, np.uint8)
        except MemoryError:
            raise MemoryError(f"{place(self.path)}: tensor '{entry.name[:200]}' takes {entry.nbytes} bytes") from None
        if self.source is not None:
            self.source.fetch([Piece(entry.offset, entry.nbytes, lambda: raw.data)])
            return self.as_array(raw, entry)
        fd = open_regular(self.path, error=CheckpointChangedError, missing=CheckpointChangedError)
        try:
            before = stamp_of(fd)
            if before != self.stamp:
                raise self._error(CheckpointChangedError, "the file was changed after its header was read", entry)
            count = fill(fd, raw.data, entry.offset)
            if count != entry.nbytes or stamp_of(fd) != before:
                raise self._error(CheckpointChangedError, "the file was changed while it was being read", entry)
        except OSError as cause:
            if isinstance(cause, PretrainedError):
                raise
            raise self._error(WeightsFormatError, f"cannot be read: {cause.strerror}", entry) from cause
        finally:
            os.close(fd)
        return self.as_array(raw, entry)

    def as_array(self, buffer: Any, entry: Entry) -> Any:
        """The array of a tensor's bytes, on their memory where the elements are whole bytes. Raises TensorError."""
        import numpy as np

        raw = np.frombuffer(buffer, np.uint8)
        bits = BITS[entry.dtype]
        if bits < 8:
            # Packed without gaps, the lowest bits first; ml_dtypes has each element in the low bits of a byte.
            raw = np.packbits(np.unpackbits(raw, bitorder="little").reshape(-1, bits), axis=1, bitorder="little")
        elif entry.dtype == "bool" and raw.size and raw.max() > 1:
            raise self._error(TensorError, "a BOOL is neither 0 nor 1", entry)
        return raw.view(_numpy_dtype(entry.dtype)).reshape(entry.shape)

    def _error(self, kind: type[PretrainedError], reason: str, entry: Entry) -> PretrainedError:
        message = f"{place(self.path)}: tensor {quoted(entry.name)}: {reason}"
        return kind(message, path=self.path, tensor=entry.name, reason=reason, offset=entry.offset)


def _numpy_dtype(name: str) -> Any:
    import numpy as np

    if name.startswith(("bfloat16", "float8_", "float6_", "float4_")):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name.removesuffix("_x2")))
    return np.dtype(name).newbyteorder("<")


def read_header(path: PathLike) -> Header:
    """Everything the header of a safetensors file says; no data is read.

    Raises:
        SourceError: Nothing can be opened at `path`.
        WeightsFormatError: Another kind of file, or a damaged one; `offset` is the byte where that showed.
        TensorError: The same, where one tensor is to blame.
        ResourceLimitError: A header of more than 100 MB or a million tensors.
        CheckpointChangedError: The file changed meanwhile.
    """
    file = Path(path)
    fd = open_regular(file)
    try:
        stamp = stamp_of(fd)
        length, raw = _header_bytes(lambda count, start: read_up_to(fd, count, start), file, stamp.size, HEAD)
        if stamp_of(fd) != stamp:
            reason = "the file was changed while its header was read"
            raise CheckpointChangedError(f"{place(file)}: {reason}", path=file, reason=reason)
    except OSError as cause:
        if isinstance(cause, PretrainedError):
            raise
        raise _flawed(file, f"cannot be read: {cause.strerror or type(cause).__name__}", None) from cause
    finally:
        os.close(fd)
    entries, metadata = _parsed(raw, file, length, stamp.size)
    return Header(file, entries, metadata, stamp, 8 + length)


def read_remote_header(source: ByteSource) -> Header:
    """The same of a file that is not on this machine: its header is read by one range, or two if it is long.

    Raises:
        WeightsFormatError, TensorError, ResourceLimitError: as `read_header`.
        HubError, CheckpointChangedError: as `ByteSource.fetch`.
    """
    file = Path(source.name)
    headed = WithHead(source, _FIRST_RANGE)
    length, raw = _header_bytes(headed.read, file, source.size, _FIRST_RANGE)
    entries, metadata = _parsed(raw, file, length, source.size)
    return Header(file, entries, metadata, None, 8 + length, headed)


def _parsed(raw: bytes, file: Path, length: int, size: int) -> tuple[Mapping[str, Entry], Mapping[str, str]]:
    """(entries, metadata) of the bytes of a header."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as cause:
        at = 8 + cause.start
        raise _flawed(file, f"the header is not UTF-8 at byte {at}", at) from None
    del raw
    try:
        return parse_header(text, file, 8 + length, size)
    except HeaderFlawError as flaw:
        raise _located(flaw, file, text) from None


def _header_bytes(read: Callable[[int, int], bytes], file: Path, size: int, first: int) -> tuple[int, bytes]:
    """Length of the header as the file says it, which is known to be possible, and its bytes without the padding.

    `read` gives a number of bytes from a position on; `first` is how many it is asked for first.
    """
    head = read(first, 0)
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > size - 8 or head[8:9] != b"{":
        kind = recognise(head)
        if kind not in (None, "a safetensors file"):
            raise _flawed(file, f"is no safetensors file: it {'is' if kind == 'empty' else 'looks like'} {kind}", 0)
        if len(head) < 8:
            raise _flawed(file, f"is no safetensors file: it has only {size} bytes", 0)
        if length > size - 8:
            reason = f"the header claims {length} bytes, and the file has {size}: cut off, or no safetensors file"
            raise _flawed(file, reason, 0)
        raise _flawed(file, "is no safetensors file: the header does not begin with '{'", 8)
    if length > MAX_HEADER:
        reason = f"the header claims {length} bytes; at most {MAX_HEADER} are read"
        raise ResourceLimitError(f"{place(file)}: {reason}", path=file, reason=reason, limit=MAX_HEADER)
    raw = head[8 : 8 + length] if len(head) >= 8 + length else read(length, 8)
    if len(raw) < length:
        raise _flawed(file, f"the header ends at byte {8 + len(raw)} of {8 + length}", 8 + len(raw))
    return length, raw.rstrip(b" \t\r\n")


def _flawed(file: Path, reason: str, offset: int | None) -> WeightsFormatError:
    return WeightsFormatError(f"{place(file)}: {reason}", path=file, reason=reason, offset=offset)


def _located(flaw: HeaderFlawError, file: Path, text: str) -> PretrainedError:
    """The error to raise for a complaint of the parser."""
    if flaw.limit is not None:
        return ResourceLimitError(f"{place(file)}: {flaw.reason}", path=file, reason=flaw.reason, limit=flaw.limit)
    offset = flaw.position
    if offset is not None:
        offset = 8 + (offset if text.isascii() else len(text[:offset].encode("utf-8")))
    if flaw.tensor is None:
        at = "" if offset is None else f" (at byte {offset})"
        return WeightsFormatError(f"{place(file)}: {flaw.reason}{at}", path=file, reason=flaw.reason, offset=offset)
    message = f"{place(file)}: tensor {quoted(flaw.tensor)}: {flaw.reason}"
    return TensorError(message, path=file, tensor=flaw.tensor, reason=flaw.reason, offset=offset)
