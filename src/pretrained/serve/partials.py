"""Who writes to which partial upload, so that nobody goes on writing once its content was checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .refusals import RefusedError

__all__ = ["Partials", "Turn"]

Turn = Callable[[Callable[[], None]], None]


@dataclass
class _Partial:
    """One upload while anybody has to do with it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    writers: set[object] = field(default_factory=set)
    users: int = 0


class Partials:
    """All partial uploads that are being written to or completed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._partials: dict[str, _Partial] = {}

    @contextmanager
    def _partial(self, key: str) -> Iterator[_Partial]:
        with self._lock:
            partial = self._partials.setdefault(key, _Partial())
            partial.users += 1
        try:
            yield partial
        finally:
            with self._lock:
                partial.users -= 1
                if not partial.users:
                    del self._partials[key]

    @contextmanager
    def writing(self, key: str) -> Iterator[Turn]:
        """Yields what runs each write; it raises RefusedError once the upload was completed. Waits while it is."""
        writer = object()
        with self._partial(key) as partial:
            with partial.lock:
                partial.writers.add(writer)

            def turn(write: Callable[[], None]) -> None:
                with partial.lock:
                    if writer not in partial.writers:
                        raise RefusedError(409, "The upload was completed meanwhile")
                    write()

            try:
                yield turn
            finally:
                partial.writers.discard(writer)

    @contextmanager
    def completing(self, key: str) -> Iterator[None]:
        """Nobody writes in the block, and who had begun before does not go on after it: a client completes an upload
        when all of it has arrived, so what still writes is a connection that is dead and does not know it."""
        with self._partial(key) as partial, partial.lock:
            partial.writers.clear()
            yield
