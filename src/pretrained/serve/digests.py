"""Checksums of files that lie in folders, computed once and remembered as long as the files are the same."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..checkpoint.checksums import digest
from ..checkpoint.files import open_regular, read_json, read_up_to
from ..errors import PretrainedError
from .objects import SAMPLE, is_large
from .repository import HubFile

__all__ = ["Digests", "Stamp", "stamp_of"]

MAX_REMEMBERED = 200_000  # files
PAUSE = 10.0  # seconds between writing them down


class Stamp(NamedTuple):
    """Identity of the content of a file, as far as the system tells."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file whose status this is."""
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Digests:
    """Files as the Hub describes them; content is read only when it is not known.

    Args:
        memory: the file that keeps what is known from one run to the next; None to forget it.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()
        self._is_new = False
        self._written = time.monotonic()
        if memory is not None:
            with suppress(PretrainedError):  # a memory that is damaged or not there is an empty one
                self._known = {key: value for key, value in read_json(memory).items() if isinstance(value, str)}

    def describe(self, name: str, path: Path, progress: Callable[[int], None] | None = None) -> tuple[HubFile, Stamp]:
        """The file at `path` under the name it has in its repository, and the stamp of what was read.

        Raises:
            OSError: it cannot be read, or changes while it is.
        """
        while True:
            fd = open_regular(path)
            try:
                stamp = stamp_of(os.fstat(fd))
                sample = read_up_to(fd, SAMPLE)
            finally:
                os.close(fd)
            kind = "sha256" if is_large(name, stamp.size, sample) else "git"
            value = self._digest(path, stamp, kind, progress)
            if stamp_of(os.stat(path)) == stamp:
                break
        if kind == "git":
            return HubFile(name, stamp.size, value), stamp
        return HubFile.large(name, stamp.size, value), stamp

    def knows(self, path: Path) -> bool:
        """Whether nothing of the file need be read but its first bytes."""
        stamp = stamp_of(os.stat(path))
        with self._lock:
            return any(_key(stamp, kind) in self._known for kind in ("sha256", "git"))

    def _digest(self, path: Path, stamp: Stamp, kind: str, progress: Callable[[int], None] | None) -> str:
        key = _key(stamp, kind)
        with self._lock:
            if key in self._known:
                return self._known[key]
        value = digest(path, [kind], progress)[kind]
        with self._lock:
            self._known[key] = value
            self._is_new = True
        return value

    def remember(self, *, at_once: bool = True) -> None:
        """Writes down what is known, where that is possible: without it, the next run reads the files again.

        Args:
            at_once: whether it cannot wait for a later call, since there may be none.
        """
        now = time.monotonic()
        with self._lock:
            if self._memory is None or not self._is_new or (now < self._written + PAUSE and not at_once):
                return
            self._is_new, self._written = False, now
            kept = dict(list(self._known.items())[-MAX_REMEMBERED:])
        with suppress(OSError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            fd, temporary = tempfile.mkstemp(dir=self._memory.parent, prefix=".digests-")
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            os.replace(temporary, self._memory)


def _key(stamp: Stamp, kind: str) -> str:
    return f"{kind}:{':'.join(map(str, stamp))}"
