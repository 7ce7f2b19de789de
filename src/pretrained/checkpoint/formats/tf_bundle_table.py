"""The sorted string table of a TensorFlow checkpoint's index: blocks of keys with shared prefixes, and a footer.

Source: the format is LevelDB's, doc/table_format.md, as TensorFlow writes it (tensorflow/core/lib/io).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ..files import recognise
from .opening import FlawError
from .tf_bundle_crc import crc32c, masked

__all__ = ["MAX_INDEX", "read_table", "read_varint"]

MAX_INDEX = 100_000_000  # bytes
MAX_PAIRS = 1_000_001  # a million tensors and the header
MAX_KEY = 4096  # bytes of one key; and of all of them, which prefixes can make of a small file:
MAX_KEYS = 64 << 20

_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER = 5  # after a block: how it is compressed, its checksum
_SNAPPY = 1


def read_table(raw: bytes) -> list[tuple[bytes, bytes]]:
    """The pairs of key and value in a table, in the order of the keys.

    Raises:
        FlawError: Something else, cut off, damaged, compressed, or out of order.
    """
    footer = raw[-_FOOTER:]
    if len(footer) < _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        kind = recognise(raw[:4096])
        what = (
            "is cut off, or damaged at its end"
            if kind is None
            else f"{'is' if kind == 'empty' else 'looks like'} {kind}"
        )
        raise FlawError(f"is no index of a TensorFlow checkpoint: it {what}", offset=max(0, len(raw) - 8))
    end = len(raw) - _FOOTER
    at = 0
    handles = []
    for _ in range(2):
        start, at = read_varint(footer, at, _FOOTER - 8)
        size, at = read_varint(footer, at, _FOOTER - 8)
        handles.append((start, size))
    for _ in _pairs(_block(raw, *handles[0], end), handles[0][0]):
        pass  # nothing is kept of what describes the table; but it has to be whole
    return list(_data_pairs(raw, *handles[1], end))


def _data_pairs(raw: bytes, start: int, size: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of all blocks that the block of handles lists."""
    last = b""
    count = total = done = 0
    for bound, handle in _pairs(_block(raw, start, size, end), start):
        at, used = read_varint(handle, 0, len(handle))
        length, used = read_varint(handle, used, len(handle))
        if used != len(handle) or at < done:
            raise FlawError("its blocks are listed twice, or out of order", offset=start)
        done = at + length + _TRAILER
        is_first = True
        for key, value in _pairs(_block(raw, at, length, end), at):
            count, total = count + 1, total + len(key)
            if count > MAX_PAIRS or total > MAX_KEYS:
                limit = MAX_PAIRS if count > MAX_PAIRS else MAX_KEYS
                raise FlawError(f"more than {MAX_PAIRS} entries, or {MAX_KEYS} bytes of names", limit=limit)
            if key > bound or (count > 1 and key <= last):
                raise FlawError(f"its keys are out of order at {key[:100]!r}", offset=at)
            last, is_first = key, False
            yield key, value
        if is_first:
            raise FlawError("has an empty block", offset=at)


def _block(raw: bytes, start: int, size: int, end: int) -> memoryview:
    """The content of a block, which is what its checksum was taken of."""
    stop = start + size
    if stop + _TRAILER > end:
        raise FlawError(f"refers to a block of {size} bytes at {start}, and its blocks end at {end}", offset=start)
    content = memoryview(raw)[start : stop + 1]
    if masked(crc32c(content)) != struct.unpack_from("<L", raw, stop + 1)[0]:
        raise FlawError(f"the block of {size} bytes at {start} does not have the recorded checksum", offset=start)
    if content[-1]:
        kind = "snappy" if content[-1] == _SNAPPY else f"method {content[-1]}"
        raise FlawError(f"is compressed with {kind}; load it with TensorFlow and save it again", offset=stop)
    return content[:-1]


def _pairs(block: memoryview, start: int) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of a block that lies at `start`."""
    size = len(block)
    count = struct.unpack_from("<L", block, size - 4)[0] if size >= 4 else 0
    stop = size - 4 - 4 * count
    if stop < 0 or count == 0:
        raise FlawError(f"the block at {start} says it has {count} restarts in {size} bytes", offset=start)
    restarts = set(struct.unpack_from(f"<{count}L", block, stop))
    if 0 not in restarts or len(restarts) != count or max(restarts) >= max(stop, 1):
        raise FlawError(f"the restarts of the block at {start} are not where entries can be", offset=start)
    at = 0
    key = b""
    while at < stop:
        is_restart = at in restarts
        restarts.discard(at)
        shared, at = read_varint(block, at, stop)
        fresh, at = read_varint(block, at, stop)
        length, at = read_varint(block, at, stop)
        if shared > (0 if is_restart else len(key)) or at + fresh + length > stop:
            raise FlawError(f"an entry of the block at {start} reaches beyond what there is", offset=start + at)
        if shared + fresh > MAX_KEY:
            raise FlawError(f"a name of {shared + fresh} bytes; at most {MAX_KEY} are read", limit=MAX_KEY)
        key = key[:shared] + bytes(block[at : at + fresh])
        yield key, bytes(block[at + fresh : at + fresh + length])
        at += fresh + length
    if restarts - {0}:
        raise FlawError(f"a restart of the block at {start} lies between entries", offset=start)


def read_varint(raw: bytes | memoryview, at: int, stop: int) -> tuple[int, int]:
    """A number of at most 64 bits, 7 to a byte and the lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise FlawError("a number is cut off", offset=at)
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise FlawError("a number has more than 64 bits", offset=at)
