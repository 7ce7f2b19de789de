"""PyTorch's stream format (torch.save before version 1.6): a few pickles in a row, then the bare storages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..files import read_up_to
from ..tensors import BITS
from .flaws import CutOffError, FlawError
from .torch_globals import PickledStorage
from .torch_pickle import Pickled, Refer, read_leading
from .torch_records import Record

__all__ = ["Parts", "Stream", "begins_stream", "read_storage", "read_stream"]

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
MAX_PICKLE = 64 << 20
MAX_NOTE = 1 << 20  # bytes of the small pickles
WINDOW = 4096


@dataclass(frozen=True)
class Parts:
    """What a file of an old format holds, before its tensors are placed.

    Attributes:
        value: what was saved.
        records: where each storage is, by key.
        flaw: why storages are missing from `records`, if some are.
    """

    value: Any
    records: Mapping[str, Record]
    flaw: FlawError | None = None


class Stream:
    """A stretch of a file that is read forward: pickles, numbers, and data that is passed over."""

    def __init__(self, fd: int, start: int, stop: int) -> None:
        self._fd = fd
        self.at = start
        self.stop = stop
        self._raw = b""
        self._raw_at = start

    @property
    def left(self) -> int:
        """Bytes to the end."""
        return self.stop - self.at

    def pickle(self, limit: int = MAX_NOTE, refer: Refer | None = None) -> Pickled:
        """The next pickle, of at most `limit` bytes; its length is not known before it was read."""
        size = WINDOW
        while True:
            raw = self.peek(min(size, limit))
            try:
                pickled = read_leading(raw, refer)
            except CutOffError as flaw:
                if len(raw) < min(limit, self.left):
                    size *= 16
                    continue
                if len(raw) < self.left:
                    raise FlawError(f"the file has a pickle of more than {limit} bytes", limit=limit) from None
                raise FlawError(flaw.reason, offset=self.stop) from None
            self.at += pickled.end
            return pickled

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, or fewer at the end; they remain the next."""
        count = min(count, self.left)
        start = self.at - self._raw_at
        if start < 0 or start + count > len(self._raw):
            self._raw = read_up_to(self._fd, min(max(count, WINDOW), self.left), self.at)
            self._raw_at, start = self.at, 0
        return self._raw[start : start + count]

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        raw = self.peek(count)
        if len(raw) != count:
            raise CutOffError(f"the file is cut off: {count} bytes are expected at its end", offset=self.stop)
        self.at += count
        return raw

    def integer(self, size: int = 8) -> int:
        """The next signed number of `size` bytes."""
        return int.from_bytes(self.take(size), "little", signed=True)

    def skip(self, count: int) -> None:
        """Passes over `count` bytes that are there."""
        self.at += count


def begins_stream(head: bytes) -> bool:
    """Whether a file that begins with these bytes is one of the stream format."""
    if head[:1] != b"\x80":
        return False
    try:
        return bool(read_leading(head).value == MAGIC)
    except FlawError:
        return False


def read_stream(fd: int, size: int) -> Parts:
    """What a file of the stream format holds.

    Raises:
        FlawError: Another version, malformed, or with bytes that nothing accounts for.
    """
    stream = Stream(fd, 0, size)
    if stream.pickle().value != MAGIC or stream.pickle().value != VERSION:
        raise FlawError(f"is of another version of the stream format than {VERSION}", key="version")
    # The byte order of the writer stands here too; storages are little-endian whatever it is.
    if not isinstance(stream.pickle().value, dict):
        raise FlawError("does not describe the system that wrote it", key="sys_info")
    pickled = stream.pickle(MAX_PICKLE)
    keys = stream.pickle(MAX_PICKLE).value
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise FlawError("does not list its storages by name", key="storages")
    records: dict[str, Record] = {}
    try:
        for key in keys:
            if key in records or key not in pickled.storages:
                why = "twice" if key in records else "and has no tensor of it"
                raise FlawError(f"lists the storage {key[:200]!r} {why}", key=key[:200], offset=stream.at)
            records[key] = read_storage(stream, pickled.storages[key])
        if stream.left:
            raise FlawError(f"the file goes on for {stream.left} bytes after its last storage", offset=stream.at)
    except FlawError as flaw:
        return Parts(pickled.value, records, flaw)
    return Parts(pickled.value, records)


def read_storage(stream: Stream, storage: PickledStorage) -> Record:
    """Where the next storage lies: the number of its elements comes first, then they do.

    Raises:
        FlawError: It is not of the size it should have, or is cut off.
    """
    numel = stream.integer()
    if numel < 0 or numel != storage.numel:
        reason = f"the storage {storage.key[:200]!r} should have {storage.numel} elements, and {numel} are announced"
        raise FlawError(reason, key=storage.key[:200], offset=stream.at)
    nbytes = numel * (BITS[storage.dtype or "uint8"] // 8)
    if nbytes > stream.left:
        reason = (
            f"the file is cut off: the storage {storage.key[:200]!r} has {nbytes} bytes, and {stream.left} are left"
        )
        raise FlawError(reason, key=storage.key[:200], offset=stream.at)
    start = stream.at
    stream.skip(nbytes)
    return Record(storage.key, start, nbytes, 0)
