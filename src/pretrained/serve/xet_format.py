"""Xet's two containers, as far as a server has to read them: chunks in a xorb, and the files that a shard describes.

A xorb is a row of chunks: version (1 byte), stored size (3), compression (1), size (3), stored bytes. A shard begins
with 48 bytes, then for every file: its hash (32 bytes), flags (4), number of terms (4), 8 unused; the terms, 48 bytes
each: hash of a xorb (32), flags (4), bytes (4), first chunk (4), chunk after the last (4); 48 bytes a term if bit 31 of
the flags is set; and 48 bytes that begin with the file's sha256 if bit 30 is. A hash of ones ends the list. All numbers
are little-endian.

Source: the Xet protocol specification 1.1 (xorb, shard, api), huggingface.co/docs/xet.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from .refusals import RefusedError

__all__ = ["ChunkPlace", "ShardFile", "Term", "chunk_bytes", "files_of_shard", "places_of", "text_of_hash"]

MAX_CHUNK = 1 << 20  # bytes; clients make them of 128 KiB at most
MAX_CHUNKS = 1 << 16  # of one xorb
MAX_TERMS = 1 << 18  # of one file
_RECORD = 48
_TERM = struct.Struct("<32sIIII")
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30
_END = b"\xff" * 32


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk is in its xorb: `offset` and `stored` bytes there, `size` once it is unpacked."""

    offset: int
    stored: int
    scheme: int
    size: int


@dataclass(frozen=True, slots=True)
class Term:
    """A run of chunks of a xorb, from `start` up to but without `end`, which have `size` bytes."""

    xorb: str
    start: int
    end: int
    size: int


@dataclass(frozen=True)
class ShardFile:
    """A file as a shard describes it; `sha256` is None where the client did not say."""

    terms: tuple[Term, ...]
    sha256: str | None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(term.size for term in self.terms)


def text_of_hash(raw: bytes) -> str:
    """A hash as Xet writes it: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def places_of(fd: int, size: int) -> list[ChunkPlace]:
    """The chunks of a xorb. Raises RefusedError if that is none."""
    found: list[ChunkPlace] = []
    offset = 0
    while offset < size:
        head = os.pread(fd, 8, offset)
        if head[:7] == b"XETBLOB":
            break  # a footer, which clients may leave out
        stored, length = int.from_bytes(head[1:4], "little"), int.from_bytes(head[5:8], "little")
        is_sound = len(head) == 8 and head[0] == 0 and head[4] <= 2 and 0 < length <= MAX_CHUNK and stored <= MAX_CHUNK
        if not is_sound or offset + 8 + stored > size or len(found) >= MAX_CHUNKS:
            raise RefusedError(400, f"The xorb is damaged at byte {offset}")
        found.append(ChunkPlace(offset + 8, stored, head[4], length))
        offset += 8 + stored
    return found


def chunk_bytes(fd: int, place: ChunkPlace) -> bytes:
    """The content of a chunk. Raises RefusedError if it does not unpack to its size."""
    raw = os.pread(fd, place.stored, place.offset)
    if place.scheme:
        import lz4.frame

        try:
            raw = lz4.frame.LZ4FrameDecompressor().decompress(raw, max_length=place.size + 1)
        except (RuntimeError, EOFError) as error:
            raise RefusedError(400, f"A chunk is damaged: {error}") from None
    if len(raw) != place.size:
        raise RefusedError(400, f"A chunk has {len(raw)} bytes; its header says {place.size}")
    return _ungrouped(raw) if place.scheme == 2 else raw


def _ungrouped(raw: bytes) -> bytes:
    """Bytes that were grouped by their place in fours, back in their order."""
    import numpy as np

    flat, whole = np.frombuffer(raw, np.uint8), np.empty(len(raw), np.uint8)
    start = 0
    for group in range(4):
        count = len(whole[group::4])
        whole[group::4] = flat[start : start + count]
        start += count
    return whole.tobytes()


def files_of_shard(shard: IO[bytes]) -> Iterator[ShardFile]:
    """The files that a shard describes, one after the other. Raises RefusedError if that is none."""
    head = shard.read(_RECORD)
    if len(head) != _RECORD or int.from_bytes(head[32:40], "little") != 2:
        raise RefusedError(400, "This is no shard of version 2")
    while True:
        record = _read(shard)
        if record[:32] == _END:
            return
        flags, count = struct.unpack("<II", record[32:40])
        if count > MAX_TERMS:
            raise RefusedError(413, f"A file of {count} terms; at most {MAX_TERMS} are read")
        terms = []
        for _ in range(count):
            xorb, _, size, start, end = _TERM.unpack(_read(shard))
            if not start < end <= MAX_CHUNKS:
                raise RefusedError(400, "A term of the shard has no chunks")
            terms.append(Term(text_of_hash(xorb), start, end, size))
        for _ in range(count if flags & _VERIFIED else 0):
            _read(shard)
        sha256 = None
        if flags & _WITH_SHA256:
            raw = _read(shard)[:32]
            sha256 = text_of_hash(raw) if any(raw) else None
        yield ShardFile(tuple(terms), sha256)


def _read(shard: IO[bytes]) -> bytes:
    record = shard.read(_RECORD)
    if len(record) != _RECORD:
        raise RefusedError(400, "The shard ends in the middle")
    return record
