"""What readers of weight files have in common: a file is opened once, and every complaint about it names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import CheckpointChangedError, PretrainedError, SourceError, WeightsFormatError
from ..files import open_regular, place, stamp_of
from ..tensors import FileStamp
from .flaws import FlawError, located

__all__ = ["FlawError", "located", "opening"]


@contextmanager
def opening(
    file: Path, *, max_bytes: int | None = None, missing: type[PretrainedError] = SourceError
) -> Iterator[tuple[int, FileStamp]]:
    """A descriptor of the file and its stamp, for a block that reads what it says of its tensors.

    Raises:
        PretrainedError: as `missing`, where there is no file.
        WeightsFormatError: what the block complains of in a FlawError, or the system in an OSError.
        CheckpointChangedError: the file changed before the block came to its end.
    """
    fd = open_regular(file, max_bytes=max_bytes, missing=missing)
    try:
        stamp = stamp_of(fd)
        yield fd, stamp
        if stamp_of(fd) != stamp:
            reason = "the file was changed while it was being opened"
            raise CheckpointChangedError(f"{place(file)}: {reason}", path=file, reason=reason)
    except FlawError as flaw:
        raise located(flaw, file) from None
    except OSError as cause:
        if isinstance(cause, PretrainedError):
            raise
        reason = f"cannot be read: {cause.strerror or type(cause).__name__}"
        raise WeightsFormatError(f"{place(file)}: {reason}", path=file, reason=reason) from cause
    finally:
        os.close(fd)
