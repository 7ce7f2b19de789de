"""Complaints of the readers about a file, before anybody says which file it is."""

from __future__ import annotations

from pathlib import Path

from ...errors import PretrainedError, ResourceLimitError, TensorError, UntrustedPathError, WeightsFormatError
from ..files import place

__all__ = ["CutOffError", "FlawError", "located"]


class FlawError(Exception):
    """A complaint about a file, not yet located: the reader of the file knows its path.

    Attributes:
        reason: The complaint.
        tensor: The tensor to blame, if it is one.
        offset: Byte of the file where it showed, if known.
        limit: The bound that was passed, if that is the complaint.
        key: The global, or the record of an archive, that it is about.
        is_path: The complaint is that a name leads out of its folder.
    """

    def __init__(
        self,
        reason: str,
        *,
        tensor: str | None = None,
        offset: int | None = None,
        limit: int | None = None,
        key: str | None = None,
        is_path: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tensor = tensor
        self.offset = offset
        self.limit = limit
        self.key = key
        self.is_path = is_path


class CutOffError(FlawError):
    """The bytes end where more of them are needed."""


def located(flaw: FlawError, file: Path) -> PretrainedError:
    """The error to raise for a complaint about a file."""
    kind: type[PretrainedError] = WeightsFormatError
    where = place(file)
    if flaw.is_path:
        kind = UntrustedPathError
    elif flaw.tensor is not None:
        kind = TensorError
        where += f": tensor {flaw.tensor[:200]!r}"
    message = f"{where}: {flaw.reason}"
    if flaw.limit is not None:
        return ResourceLimitError(message, path=file, tensor=flaw.tensor, reason=flaw.reason, limit=flaw.limit)
    return kind(message, path=file, tensor=flaw.tensor, key=flaw.key, reason=flaw.reason, offset=flaw.offset)
