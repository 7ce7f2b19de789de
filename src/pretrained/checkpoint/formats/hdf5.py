"""Keras' HDF5 weights: tf_model.h5. h5py tells what is in the file, the elements are read from the file itself.

No attribute is read and no link is followed: what is a tensor, and what it is called, the tree of groups says. In a
file of one piece each layer is a group with an attribute `weight_names`, and its tensors lie below under their full
names; in a shard they lie under their names without the model's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._types import PathLike
from ...errors import CheckpointChangedError, PretrainedError, TensorError
from ..files import HEAD, place, read_up_to, recognise
from ..tensors import Entry, FileStamp
from ..windows import numpy_dtype, read_bytes
from .hdf5_tree import SourceFile, Stored, find_tensors, import_h5py, library_errors
from .opening import FlawError, opening

__all__ = ["HDF5File", "read_hdf5"]

MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, eq=False, repr=False)
class HDF5File:
    """An opened HDF5 file: all its tensors, checked against the size of the file.

    Attributes:
        path: The file.
        entries: By name, in the order of the file. A variable that several layers have lies there several times; the
            second is called `name@layer`.
        metadata: `format` is "tf".
        stamp: Identity of the file when it was opened.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    stamp: FileStamp
    _stored: Mapping[str, Stored]

    def read(self, entry: Entry) -> Any:
        """The tensor as a contiguous numpy array of its own memory.

        Raises:
            CheckpointChangedError: The file is not the one that was opened.
            TensorError: The entry is not of this file, or its bytes are no values of its dtype.
            WeightsFormatError: The file is damaged where the tensor lies.
        """
        import numpy as np

        if self.entries.get(entry.name) != entry:
            raise self._error(TensorError, "no such entry in this file", entry)
        try:
            array = np.empty(entry.shape, numpy_dtype(entry.dtype))
        except MemoryError:
            raise MemoryError(f"{place(self.path)}: tensor '{entry.name[:200]}' takes {entry.nbytes} bytes") from None
        raw = array.reshape(-1).view(np.uint8)
        if entry.offset >= 0:
            read_bytes(self, entry, raw.data)
        else:
            self._decode(entry, array)
        if entry.dtype == "bool" and raw.size and raw.max() > 1:
            raise self._error(TensorError, "a bool is neither 0 nor 1", entry)
        return array

    def _decode(self, entry: Entry, target: Any) -> None:
        """Fills `target` by the HDF5 library, which undoes compression and byte order."""
        h5py = import_h5py(self.path)
        with opening(self.path, missing=CheckpointChangedError) as (fd, stamp):
            if stamp != self.stamp:
                raise self._error(CheckpointChangedError, "the file was changed after it was opened", entry)
            with library_errors(entry.name), _opened(h5py, fd, stamp.size) as tree:
                dataset = h5py.h5d.open(tree.id, self._stored[entry.name].path)
                # A bool is an enumeration there; its numbers are asked for as they are.
                kind = dataset.get_type() if entry.dtype == "bool" else h5py.h5t.py_create(target.dtype)
                every = h5py.h5s.ALL
                dataset.read(every, every, target.view("u1") if entry.dtype == "bool" else target, kind)

    def _error(self, kind: type[PretrainedError], reason: str, entry: Entry) -> PretrainedError:
        message = f"{place(self.path)}: tensor {entry.name[:200]!r}: {reason}"
        return kind(message, path=self.path, tensor=entry.name, reason=reason)


def read_hdf5(path: PathLike) -> HDF5File:
    """All tensors of a Keras HDF5 file; no data is read, and no other file is opened whatever its links say.

    Raises:
        SourceError: Nothing can be opened at `path`.
        WeightsFormatError: Another kind of file, a damaged one, or one with what weights never have.
        TensorError: The same, where one dataset is to blame.
        ResourceLimitError: More objects than any honest file has, or data that grows beyond reason when unpacked.
        MissingFrameworkError: h5py is not installed.
        CheckpointChangedError: The file changed meanwhile.
    """
    file = Path(path)
    with opening(file) as (fd, stamp):
        _check_kind(read_up_to(fd, HEAD), stamp.size)
        h5py = import_h5py(file)
        with library_errors(), _opened(h5py, fd, stamp.size) as tree:
            if tree.userblock_size:
                raise FlawError("has a user block before its content", offset=0)
            stored = find_tensors(h5py, tree.id, stamp.size)
    entries = {
        name: Entry(name, found.dtype, found.shape, file, found.offset, found.nbytes) for name, found in stored.items()
    }
    return HDF5File(file, entries, {"format": "tf"}, stamp, stored)


def _check_kind(head: bytes, size: int) -> None:
    if head.startswith(MAGIC):
        return
    kind = recognise(head)
    if kind in (None, "an HDF5 file"):
        raise FlawError(f"is no HDF5 file: its {size} bytes do not begin as one does", offset=0)
    raise FlawError(f"is no HDF5 file: it {'is' if kind == 'empty' else 'looks like'} {kind}", offset=0)


@contextmanager
def _opened(h5py: Any, fd: int, size: int) -> Iterator[Any]:
    """The HDF5 library's view of an open file, which it reads through us and never opens itself."""
    source = SourceFile(os.dup(fd), size)
    try:
        tree = h5py.File(source, "r")
        try:
            yield tree
        finally:
            tree.close()
    finally:
        source.close()
