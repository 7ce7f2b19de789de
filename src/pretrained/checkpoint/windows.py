"""Tensors at rest, read through a window: for whatever looks at every element and keeps none of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import CheckpointChangedError, PretrainedError, WeightsFormatError
from .files import fill, open_regular, place, stamp_of
from .rules import Op, apply_ops
from .tensors import BITS, Container, Entry, require_intact

__all__ = ["WINDOW", "num_bad_values", "numpy_dtype", "read_bytes", "windows"]

WINDOW = 16 << 20  # bytes: enough for the disk, little enough to be no burden


def numpy_dtype(name: str) -> Any:
    """numpy's dtype of that name, little-endian; ml_dtypes' for what numpy lacks, sub-byte elements one to a byte."""
    import numpy as np

    if name.startswith(("bfloat16", "float8_", "float6_", "float4_")):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name.removesuffix("_x2")))
    return np.dtype(name).newbyteorder("<")


def windows(container: Container, entry: Entry, nbytes: int = WINDOW, ops: tuple[Op, ...] = ()) -> Iterator[Any]:
    """The elements of a tensor in order, as flat numpy arrays of at most `nbytes` at rest.

    With `ops` the order is that of the tensor after them, for which it is read whole.

    Each array is good until the next is asked for: they share one buffer.

    Raises:
        CheckpointChangedError: the file is not the one whose header was read, or became shorter.
        WeightsFormatError: the system cannot read it.
    """
    import numpy as np

    if ops or entry.offset < 0 or BITS[entry.dtype] % 8:
        # Only the container understands these bytes, and it gives the tensor whole.
        flat = np.asarray(apply_ops(ops, container.read(entry))).reshape(-1)
        per_window = max(1, nbytes // flat.dtype.itemsize)
        for start in range(0, flat.size, per_window):
            yield flat[start : start + per_window]
        return
    dtype = numpy_dtype(entry.dtype)
    step = max(dtype.itemsize, nbytes // dtype.itemsize * dtype.itemsize)
    buffer = np.empty(min(step, entry.nbytes), np.uint8)
    with _open(container, entry) as fd:
        for start in range(0, entry.nbytes, step):
            piece = buffer[: min(step, entry.nbytes - start)]
            _fill(fd, piece.data, entry, start)
            yield piece.view(dtype)


def read_bytes(container: Container, entry: Entry, target: memoryview) -> None:
    """Fills `target` with the tensor's bytes as they lie in the file; `entry.offset` must not be negative.

    Raises:
        CheckpointChangedError, WeightsFormatError: as `windows`.
    """
    with _open(container, entry) as fd:
        _fill(fd, target, entry, 0)


def num_bad_values(container: Container, entry: Entry) -> tuple[int, int]:
    """How many elements are (NaN, infinite)."""
    import numpy as np

    num_nan = num_inf = 0
    for window in windows(container, entry, WINDOW // 4):
        if window.dtype.kind == "c":
            window = window.view(f"<f{window.dtype.itemsize // 2}")
        with np.errstate(all="ignore"):
            num_nan += int(np.count_nonzero(np.isnan(window)))
            num_inf += int(np.count_nonzero(np.isinf(window)))
    return num_nan, num_inf


def _fill(fd: int, target: memoryview, entry: Entry, start: int) -> None:
    if fill(fd, target, entry.offset + start) != len(target):
        raise _changed(entry)


@contextmanager
def _open(container: Container, entry: Entry) -> Iterator[int]:
    """The container's file, which must be what it was when its header was read, before and after."""
    require_intact(container, [entry])
    fd = open_regular(container.path, error=CheckpointChangedError, missing=CheckpointChangedError)
    try:
        if container.stamp is not None and stamp_of(fd) != container.stamp:
            raise _changed(entry)
        yield fd
        if container.stamp is not None and stamp_of(fd) != container.stamp:
            raise _changed(entry)
    except OSError as cause:
        if isinstance(cause, PretrainedError):
            raise
        reason = f"cannot be read: {cause.strerror or type(cause).__name__}"
        raise WeightsFormatError(
            f"{place(entry.file)}: tensor {entry.name[:200]!r}: {reason}",
            path=entry.file,
            tensor=entry.name,
            reason=reason,
        ) from cause
    finally:
        os.close(fd)


def _changed(entry: Entry) -> CheckpointChangedError:
    reason = "the file changed after its header was read; run this again"
    return CheckpointChangedError(
        f"{place(entry.file)}: tensor {entry.name[:200]!r}: {reason}",
        path=entry.file,
        tensor=entry.name,
        reason=reason,
    )
