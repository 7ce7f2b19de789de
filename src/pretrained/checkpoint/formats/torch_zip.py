"""PyTorch's files, read without PyTorch and without running what they hold.

There are three kinds: zip archives (torch.save since version 1.6), streams (before that) and tar archives (the first).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..._types import PathLike
from ...errors import (
    CheckpointChangedError,
    PretrainedError,
    TensorError,
    WeightsFormatError,
)
from ..disk import run
from ..files import HEAD, fill, open_regular, place, read_up_to, recognise, stamp_of
from ..tensors import BITS, Entry, FileStamp, count_elements
from .flaws import FlawError
from .opening import opening
from .torch_globals import PickledTensor
from .torch_legacy import Parts, begins_stream, read_stream
from .torch_pickle import read_pickle
from .torch_records import Record, check_crc, find_root, read_records, read_whole
from .torch_tar import read_tar

__all__ = ["MAX_PICKLE", "TorchFile", "read_torch"]

MAX_PICKLE = 64 << 20
MAX_TENSORS = 1_000_000
MAX_COUNT = 2**63 - 1

_ODD = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _View:
    """Where in the file the elements of a tensor are: from `start` on, within the `span` bytes that hold them all."""

    record: Record
    start: int
    span: int
    strides: tuple[int, ...]  # bytes
    is_contiguous: bool


@dataclass(frozen=True, eq=False, repr=False)
class TorchFile:
    """An opened PyTorch file: everything its pickle says of tensors, checked against the bytes there are.

    Attributes:
        path: The file.
        entries: By name, in the order of the file.
        metadata: `format` is "pt".
        stamp: Identity of the file when it was opened.
        skipped: Keys beside the tensors whose values are none, in the order of the file.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    stamp: FileStamp
    skipped: tuple[str, ...]
    _views: Mapping[str, _View]
    _unchecked: set[str] = field(default_factory=set)  # records whose checksum nobody has compared yet

    def read(self, entry: Entry) -> Any:
        """The tensor as a contiguous numpy array of its own memory.

        The checksum of a record, where there is one, is compared the first time that one of its tensors is read.

        Raises:
            CheckpointChangedError: The file is not the one that was opened.
            TensorError: The entry is not of this file, or its bytes are no values of its dtype.
            WeightsFormatError: The bytes do not have the recorded checksum.
        """
        if self.entries.get(entry.name) != entry:
            raise self._error(TensorError, "no such entry in this file", entry)
        fd = open_regular(self.path, error=CheckpointChangedError, missing=CheckpointChangedError)
        try:
            if stamp_of(fd) != self.stamp:
                raise self._error(CheckpointChangedError, "the file was changed after it was opened", entry)
            raw = self._read_span(fd, entry)
            if stamp_of(fd) != self.stamp:
                raise self._error(CheckpointChangedError, "the file was changed while it was being read", entry)
        except FlawError as flaw:
            raise self._error(WeightsFormatError, flaw.reason, entry) from None
        except OSError as cause:
            if isinstance(cause, PretrainedError):
                raise
            raise self._error(WeightsFormatError, f"cannot be read: {cause.strerror}", entry) from cause
        finally:
            os.close(fd)
        return self._as_array(raw, entry)

    def require_intact(self, entries: Iterable[Entry]) -> None:
        """Compares the checksums of the records that these tensors lie in, where there are any; each record once.

        Raises:
            CheckpointChangedError: The file is not the one that was opened.
            WeightsFormatError: The bytes do not have the recorded checksum.
        """
        wanted = {self._views[entry.name].record.name: entry for entry in entries}
        run(self._check_record, [entry for name, entry in wanted.items() if name in self._unchecked])

    def _check_record(self, entry: Entry) -> None:
        # Every thread has the file open for itself: reading moves the place where a descriptor stands.
        record = self._views[entry.name].record
        fd = open_regular(self.path, error=CheckpointChangedError, missing=CheckpointChangedError)
        try:
            if stamp_of(fd) != self.stamp:
                raise self._error(CheckpointChangedError, "the file was changed after it was opened", entry)
            check_crc(fd, record)
        except FlawError as flaw:
            raise self._error(WeightsFormatError, flaw.reason, entry) from None
        except OSError as cause:
            if isinstance(cause, PretrainedError):
                raise
            raise self._error(WeightsFormatError, f"cannot be read: {cause.strerror}", entry) from cause
        finally:
            os.close(fd)
        self._unchecked.discard(record.name)

    def _read_span(self, fd: int, entry: Entry) -> Any:
        """The bytes from the first element of a tensor to its last, once the checksum of their record is right."""
        import numpy as np

        view = self._views[entry.name]
        record = view.record
        is_whole = view.span == record.size
        if record.name in self._unchecked and not is_whole:
            check_crc(fd, record)
            self._unchecked.discard(record.name)
        try:
            raw = np.empty(view.span, np.uint8)
        except MemoryError:
            raise MemoryError(f"{place(self.path)}: tensor '{entry.name[:200]}' takes {view.span} bytes") from None
        if fill(fd, raw.data, view.start) != view.span:
            raise self._error(CheckpointChangedError, "the file was changed while it was being read", entry)
        if record.name in self._unchecked and is_whole:
            if zlib.crc32(raw.data) != record.crc:
                reason = f"the bytes of the record {record.name[:200]!r} do not have the recorded checksum"
                raise FlawError(reason, key=record.name)
            self._unchecked.discard(record.name)
        return raw

    def _as_array(self, raw: Any, entry: Entry) -> Any:
        import numpy as np

        dtype = _numpy_dtype(entry.dtype)
        view = self._views[entry.name]
        if entry.dtype == "bool" and raw.size and raw.max() > 1:
            raise self._error(TensorError, "a bool is neither 0 nor 1", entry)
        if view.is_contiguous:
            return raw.view(dtype).reshape(entry.shape)
        # The constructor compares the strides with the size of the buffer once more.
        return np.ndarray(entry.shape, dtype, raw.data, 0, view.strides).copy(order="C")

    def _error(self, kind: type[PretrainedError], reason: str, entry: Entry) -> PretrainedError:
        message = f"{place(self.path)}: tensor {entry.name[:200]!r}: {reason}"
        start = self._views[entry.name].start if entry.name in self._views else None
        return kind(message, path=self.path, tensor=entry.name, reason=reason, offset=start)


def _numpy_dtype(name: str) -> Any:
    import numpy as np

    if name.startswith(("bfloat16", "float8_")):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name).newbyteorder("<")


def read_torch(path: PathLike) -> TorchFile:
    """Everything a PyTorch file says of its tensors; no data is read and nothing is run.

    The file may hold the tensors by name, or a dict with one such mapping among its values ("state_dict", "model").

    Raises:
        SourceError: Nothing can be opened at `path`.
        WeightsFormatError: Another kind of file, a damaged one, or one that names more than tensors need; `key` is the
            global or the record to blame.
        TensorError: The same, where one tensor is to blame.
        UntrustedPathError: A record of the archive has a name that leads out of it.
        ResourceLimitError: A pickle of more than 64 MiB, or more objects in it than any honest one has.
        CheckpointChangedError: The file changed meanwhile.
    """
    file = Path(path)
    with opening(file) as (fd, stamp):
        return _open(fd, file, stamp)


def _open(fd: int, file: Path, stamp: FileStamp) -> TorchFile:
    is_checked = False
    match _kind_of(read_up_to(fd, HEAD), stamp.size):
        case "tar":
            parts = read_tar(fd, stamp.size)
        case "stream":
            parts = read_stream(fd, stamp.size)
        case _:
            parts, is_checked = _read_zip(fd, stamp.size)
    tensors, skipped = _choose_tensors(parts.value)
    entries: dict[str, Entry] = {}
    views: dict[str, _View] = {}
    for name, tensor in tensors.items():
        if _ODD.search(name):
            raise FlawError("its name has a control character or half of a pair", tensor=name)
        record = parts.records.get(tensor.storage.key)
        if record is None and parts.flaw is not None:
            raise FlawError(parts.flaw.reason, tensor=name, key=parts.flaw.key, offset=parts.flaw.offset)
        view = views[name] = _place_tensor(name, tensor, record)
        nbytes = count_elements(tensor.shape) * BITS[tensor.dtype] // 8
        offset = view.start if view.is_contiguous else -1
        entries[name] = Entry(name, tensor.dtype, tensor.shape, file, offset, nbytes)
    if parts.flaw is not None:
        raise parts.flaw
    unchecked = {view.record.name for view in views.values()} if is_checked else set()
    return TorchFile(file, entries, {"format": "pt"}, stamp, skipped, views, unchecked)


def _read_zip(fd: int, size: int) -> tuple[Parts, bool]:
    """What a zip archive holds, and whether its records have checksums."""
    records = read_records(fd, size)
    root = find_root(records)
    pickled = records[f"{root}/data.pkl"]
    # PyTorch can be told to write no checksums, and has zeros for all of them then.
    is_checked = pickled.crc != 0
    order = records.get(f"{root}/byteorder")
    if order is not None and (told := read_whole(fd, order, 64, is_checked=is_checked).strip()) != b"little":
        known = "big-endian" if told == b"big" else f"in an unknown byte order ({told!r})"
        raise FlawError(f"its numbers are {known}; load it with PyTorch and save it again", key="byteorder")
    value = read_pickle(read_whole(fd, pickled, MAX_PICKLE, is_checked=is_checked))
    folder = f"{root}/data/"
    stored = {name[len(folder) :]: record for name, record in records.items() if name.startswith(folder)}
    return Parts(value, stored), is_checked


def _kind_of(head: bytes, size: int) -> str:
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if begins_stream(head):
        return "stream"
    kind = recognise(head)
    if kind == "a TAR archive":
        return "tar"
    if kind is None:
        raise FlawError(f"is no PyTorch file: its {size} bytes do not begin as one does", offset=0)
    raise FlawError(f"is no PyTorch file: it {'is' if kind == 'empty' else 'looks like'} {kind}", offset=0)


def _choose_tensors(value: object) -> tuple[dict[str, PickledTensor], tuple[str, ...]]:
    """The tensors by name, and the keys beside them that are left out."""
    if not isinstance(value, dict):
        kind = "a tensor" if isinstance(value, PickledTensor) else f"a {type(value).__name__}"
        raise FlawError(f"holds {kind} where a dict of tensors by name is expected")
    chosen = value
    if value and not _has_tensors(value):
        inner = [key for key, part in value.items() if isinstance(part, dict) and _has_tensors(part)]
        if len(inner) != 1:
            keys = ", ".join(repr(str(key)[:60]) for key in list(value)[:12])
            many = "several dicts" if inner else "no dict"
            raise FlawError(f"holds {many} of tensors by name; its keys are {keys}")
        chosen = value[inner[0]]
    if len(chosen) > MAX_TENSORS:
        raise FlawError(f"more than {MAX_TENSORS} tensors", limit=MAX_TENSORS)
    tensors: dict[str, PickledTensor] = {}
    skipped: list[str] = []
    for key, part in chosen.items():
        if isinstance(part, PickledTensor):
            if not isinstance(key, str):
                raise FlawError(f"a tensor has the key {str(key)[:60]}, which is no name")
            tensors[key] = part
        else:
            skipped.append(str(key))
    return tensors, tuple(skipped)


def _has_tensors(value: dict[Any, Any]) -> bool:
    """Whether this maps names to tensors; the state of an optimizer has numbers for names."""
    return any(isinstance(part, PickledTensor) and isinstance(key, str) for key, part in value.items())


def _place_tensor(name: str, tensor: PickledTensor, record: Record | None) -> _View:
    """Where the elements of a tensor are, once it is certain that they all lie in its record."""
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    if record is None:
        raise FlawError(f"its storage {storage.key[:200]!r} is not in the file", tensor=name, key=storage.key[:200])
    unit = BITS[storage.dtype or "uint8"] // 8
    if storage.numel < 0 or storage.numel * unit != record.size:
        told = f"{storage.numel} elements of {unit} bytes"
        raise FlawError(f"its storage should have {told}, and the record has {record.size} bytes", tensor=name)
    first, numel = storage.part or (0, storage.numel)
    if first < 0 or numel < 0 or first + numel > storage.numel:
        raise FlawError(f"its part of the storage, {numel} elements from {first} on, is not in it", tensor=name)
    if tensor.is_lazy:
        reason = "is conjugated or negated by a flag; save it resolved (torch.resolve_conj, torch.resolve_neg)"
        raise FlawError(reason, tensor=name)
    if len(shape) != len(strides):
        raise FlawError(f"has {len(shape)} dimensions and {len(strides)} strides", tensor=name)
    if tensor.offset < 0 or min(shape, default=0) < 0 or min(strides, default=0) < 0:
        raise FlawError("has a negative size, stride or offset", tensor=name)
    itemsize = BITS[tensor.dtype] // 8
    if count_elements(tuple(max(dim, 1) for dim in shape)) * itemsize > MAX_COUNT:
        raise FlawError("has an impossible shape", tensor=name)
    count = count_elements(shape)
    if count == 0:
        return _View(record, record.start, 0, (), True)
    capacity = numel * unit // itemsize
    last = tensor.offset + sum((dim - 1) * stride for dim, stride in zip(shape, strides, strict=True))
    if last >= capacity:
        raise FlawError(f"reaches to element {last} of a storage of {capacity}", tensor=name)
    if count > capacity:
        reason = f"repeats elements: {count} of a storage of {capacity}; save a contiguous copy"
        raise FlawError(reason, tensor=name)
    # An axis of one element has any stride, also one that fits into no integer of numpy's.
    steps = tuple(stride * itemsize if dim > 1 else 0 for dim, stride in zip(shape, strides, strict=True))
    start = record.start + first * unit + tensor.offset * itemsize
    return _View(record, start, (last - tensor.offset + 1) * itemsize, steps, _is_contiguous(shape, strides))


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie one after the other, the last axis fastest; an axis of one element has any stride."""
    expected = 1
    for dim, stride in zip(reversed(shape), reversed(strides), strict=True):
        if dim != 1 and stride != expected:
            return False
        expected *= dim
    return True
