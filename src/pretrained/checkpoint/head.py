"""The beginning of a remote file, kept: what came along with its header is not fetched a second time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .._types import ByteSource, Piece

__all__ = ["WithHead"]


class WithHead:
    """A byte source whose first bytes are here already.

    Args:
        source: the file.
        nbytes: how many of them to keep, at most.
    """

    def __init__(self, source: ByteSource, nbytes: int) -> None:
        self.name, self.size = source.name, source.size
        self._source = source
        self._head = memoryview(bytearray(min(nbytes, source.size)))
        source.fetch([Piece(0, len(self._head), lambda: self._head)])

    def read(self, count: int, start: int) -> bytes:
        """Bytes from `start` on, fewer at the end of the file."""
        raw = memoryview(bytearray(max(0, min(count, self.size - start))))
        self.fetch([Piece(start, len(raw), lambda: raw)])
        return bytes(raw)

    def fetch(self, pieces: Sequence[Piece], initializer: Callable[[], None] | None = None) -> None:
        """Reads all pieces, those of the head from memory; see ByteSource."""
        here = [piece for piece in pieces if piece.offset + piece.nbytes <= len(self._head)]
        away = [piece for piece in pieces if piece.offset + piece.nbytes > len(self._head)]
        if away:
            self._source.fetch(away, initializer)
        for piece in here:
            memory = piece.target()
            memory[:] = self._head[piece.offset : piece.offset + piece.nbytes]
            if piece.done is not None:
                piece.done(memory)
