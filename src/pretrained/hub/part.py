"""A file on its way in: what is there of it survives the process, and is not fetched again.

Beside the bytes stands a file of marks: for each chunk, how much of it is there. Every writer writes the same bytes to
the same places, so two that do not know of each other do no harm. Marks are not flushed to the disk: after a power cut
one may be ahead of its bytes, which the checksum at the end finds out.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .._types import Piece
from .cache import new_hash

__all__ = ["Part", "sweep"]

CHUNK = 8 << 20  # bytes that are asked for together
FLUSH = 1 << 20  # bytes that are written together: no more than that is lost of each connection
_ENDING = ".pretrained.incomplete"  # what `hf cache prune` knows for unfinished
_HEAD = struct.Struct("<8sQII")
_MAGIC = b"ptpart\0\1"
_MARK = struct.Struct("<I")
_MAX_AGE = 7 * 24 * 3600  # seconds after which nobody comes back for it
_FLAGS = (
    os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)


class Part:
    """What there is of a file of `size` bytes that will be `target`. Close it."""

    def __init__(self, target: Path, size: int) -> None:
        self.target, self.size = target, size
        self.path = target.with_name(target.name + _ENDING)
        self._marks_path = target.with_name(f"{target.name}.marks{_ENDING}")
        self._fd = os.open(self.path, _FLAGS, 0o666)
        try:
            self._marks_fd = os.open(self._marks_path, _FLAGS, 0o666)
        except OSError:
            os.close(self._fd)
            raise
        self._lengths = [min(CHUNK, size - start) for start in range(0, size, CHUNK)]
        self._there = self._read_marks()
        self._changed = threading.Condition()
        self.was_resumed = any(self._there)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)
        os.close(self._marks_fd)

    @property
    def num_there(self) -> int:
        """Bytes there are."""
        return sum(self._there)

    def pieces(self) -> list[Piece]:
        """What is missing, written and marked as it comes."""
        return [self._piece(i, there) for i, there in enumerate(self._there) if there < self._lengths[i]]

    def digest(self, kind_of: str, is_over: Callable[[], bool]) -> str | None:
        """The digest of the whole file, taken in step with its arrival; None when `is_over` says that it ends early."""
        found = new_hash(kind_of, self.size)
        buffer = memoryview(bytearray(FLUSH))
        for i, length in enumerate(self._lengths):
            with self._changed:
                while self._there[i] < length:
                    self._changed.wait(0.1)
                    if is_over():
                        return None
            start = i * CHUNK
            while start < i * CHUNK + length:
                count = self._read(buffer[: i * CHUNK + length - start], start)
                found.update(buffer[:count])
                start += count
        digest: str = found.hexdigest()
        return digest

    def restart(self) -> None:
        """Takes it that nothing is there."""
        self._there = [0] * len(self._lengths)

    def finish(self) -> None:
        """Makes it the target, whole or not at all."""
        os.fsync(self._fd)
        try:
            os.replace(self.path, self.target)
        except FileNotFoundError:
            if not self.target.exists():
                raise
            # Whoever worked on the same part finished it.
        self._forget_marks()

    def drop(self) -> None:
        """Forgets what there is."""
        with contextlib.suppress(OSError):
            if self.target.exists() and os.path.samestat(os.fstat(self._fd), os.stat(self.target)):
                self.target.unlink()  # another process finished with a byte that this one wrote
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._forget_marks()

    def _forget_marks(self) -> None:
        with contextlib.suppress(OSError):
            self._marks_path.unlink()

    def _read_marks(self) -> list[int]:
        """How much there is of each chunk; nothing if that is not about this file."""
        head = _HEAD.pack(_MAGIC, self.size, CHUNK, len(self._lengths))
        raw = os.pread(self._marks_fd, len(head) + _MARK.size * len(self._lengths) + 1, 0)
        is_ours = raw.startswith(head) and len(raw) == len(head) + _MARK.size * len(self._lengths)
        if is_ours and os.fstat(self._fd).st_size == self.size:
            there = [mark for (mark,) in _MARK.iter_unpack(raw[len(head) :])]
            if all(mark <= length for mark, length in zip(there, self._lengths, strict=True)):
                return there
        os.ftruncate(self._marks_fd, 0)
        os.ftruncate(self._fd, self.size)
        os.pwrite(self._marks_fd, head + bytes(_MARK.size * len(self._lengths)), 0)
        return [0] * len(self._lengths)

    def _piece(self, number: int, first: int) -> Piece:
        start, nbytes = number * CHUNK + first, self._lengths[number] - first
        held: list[memoryview] = []
        written = 0

        def target() -> memoryview:
            held.append(memoryview(bytearray(nbytes)))
            return held[0]

        def progress(there: int) -> None:
            nonlocal written
            if there - written < FLUSH and there < nbytes:
                return
            self._write(held[0][written:there], start + written)
            written = there
            os.pwrite(self._marks_fd, _MARK.pack(first + there), _HEAD.size + _MARK.size * number)
            with self._changed:
                self._there[number] = first + there
                self._changed.notify_all()

        return Piece(start, nbytes, target, lambda memory: held.clear(), progress)

    def _write(self, content: memoryview, offset: int) -> None:
        while len(content):
            count = os.pwrite(self._fd, content, offset)
            content, offset = content[count:], offset + count

    def _read(self, buffer: memoryview, offset: int) -> int:
        count = os.preadv(self._fd, [buffer], offset)
        if count == 0:
            raise OSError(f"{self.path.name} became shorter")
        return count


def sweep(folder: Path) -> None:
    """Removes what downloads left there a week ago and more."""
    for item in _parts(folder):
        with contextlib.suppress(OSError):
            if time.time() - item.stat().st_mtime > _MAX_AGE:
                os.unlink(item.path)


def _parts(folder: Path) -> Iterator[Any]:
    try:
        with os.scandir(folder) as items:
            yield from [item for item in items if item.name.endswith(_ENDING)]
    except OSError:
        return
