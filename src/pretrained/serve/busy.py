"""Who writes to which partial upload."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .refusals import RefusedError

__all__ = ["Busy"]


class Busy:
    """Partial uploads that are being written to; none of them is completed meanwhile, since whoever writes could go on
    doing so after the content was checked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writers: dict[str, int] = {}
        self._sealed: set[str] = set()

    @contextmanager
    def writing(self, key: str) -> Iterator[None]:
        """Raises RefusedError while the upload is being completed."""
        with self._lock:
            if key in self._sealed:
                raise RefusedError(409, "The upload is being completed")
            self._writers[key] = self._writers.get(key, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._writers[key] -= 1
                if not self._writers[key]:
                    del self._writers[key]

    @contextmanager
    def completing(self, key: str) -> Iterator[None]:
        """Raises RefusedError while a part arrives, or if somebody else completes the upload."""
        with self._lock:
            if key in self._sealed or key in self._writers:
                raise RefusedError(409, "Parts of the upload are still arriving")
            self._sealed.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._sealed.discard(key)
