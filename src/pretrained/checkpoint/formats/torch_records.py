"""The directory of a PyTorch zip archive: where each record lies, checked so that no two readers can differ on it."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..files import read_up_to
from .flaws import FlawError

__all__ = ["Record", "check_crc", "find_root", "read_records", "read_whole"]

MAX_RECORDS = 1_000_000
MAX_DIRECTORY = 256 << 20
MAX_NAME = 1024  # bytes
CHUNK = 4 << 20
WINDOW = 4096

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s4H4xL2L5H2L")
_LOCAL = struct.Struct("<4s3H4x3L2H")
_ZIP64 = 1  # the extra field that holds what does not fit into 32 bits
_FULL = 0xFFFFFFFF
_HAS_DESCRIPTOR, _IS_UTF8 = 0x8, 0x800
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|^/|^[A-Za-z]:/")


class Record(NamedTuple):
    """One file of the archive, stored as it is: `size` bytes from `start` on."""

    name: str
    start: int
    size: int
    crc: int


class _Window:
    """The last stretch that was read of a file: headers of small records lie next to each other."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.start = 0
        self.raw = b""

    def read(self, count: int, offset: int) -> bytes:
        """`count` bytes from `offset` on, or fewer when the file ends before."""
        at = offset - self.start
        if at < 0 or at + count > len(self.raw):
            self.start, at = offset, 0
            self.raw = read_up_to(self.fd, max(count, WINDOW), offset)
        return self.raw[at : at + count]


class _Listed(NamedTuple):
    """A record as the central directory has it."""

    name: str
    raw_name: bytes
    flags: int
    crc: int
    size: int
    header: int


def read_records(fd: int, size: int) -> dict[str, Record]:
    """The records of an archive by name.

    Raises:
        FlawError: Cut off, compressed, encrypted, ambiguous, or with names that lead elsewhere.
    """
    start, end, count = _find_directory(fd, size)
    raw = read_up_to(fd, end - start, start)
    if len(raw) != end - start:
        raise FlawError("the archive is cut off in its directory", offset=start + len(raw))
    listed: dict[str, _Listed] = {}
    for record in _parse_directory(raw, start, count):
        if record.name in listed:
            raise FlawError(f"the archive has two records named {record.name[:200]!r}", key=record.name)
        listed[record.name] = record
    records: dict[str, Record] = {}
    window = _Window(fd)
    last, last_name = 0, ""
    for record in sorted(listed.values(), key=lambda item: item.header):
        if record.header < last:
            reason = f"the records {last_name[:200]!r} and {record.name[:200]!r} of the archive overlap"
            raise FlawError(reason, key=record.name, offset=record.header)
        data, last = _check_local(window, record, start)
        last_name = record.name
        records[record.name] = Record(record.name, data, record.size, record.crc)
    return records


def _find_directory(fd: int, size: int) -> tuple[int, int, int]:
    """Start and end of the central directory, and the number of its entries."""
    tail_size = min(size, _END.size + _LOCATOR.size)
    tail = read_up_to(fd, tail_size, size - tail_size)
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\x05\x06"):
        reason = "the archive has no directory at its end: it is cut off, or something was added after it"
        raise FlawError(reason, offset=size)
    _, disk, first_disk, here, count, length, start, comment = _END.unpack(tail[-_END.size :])
    end = size - _END.size
    if disk or first_disk or here != count or comment:
        raise FlawError("the archive has several parts or a comment, which PyTorch never writes", offset=end)
    locator = tail[: -_END.size]
    if locator.startswith(b"PK\x06\x07"):
        short = (count, length, start)
        end, count, length, start = _read_end64(fd, locator, end - _LOCATOR.size)
        for value, full, wide in zip(short, (0xFFFF, _FULL, _FULL), (count, length, start), strict=True):
            if value not in (full, wide):
                raise FlawError("the two ends of the archive's directory contradict each other", offset=end)
    if count > MAX_RECORDS or length > MAX_DIRECTORY:
        raise FlawError(f"the archive has more than {MAX_RECORDS} records", limit=MAX_RECORDS)
    if start + length != end:
        reason = f"the directory of the archive should be {length} bytes from {start} on and end at {end}"
        raise FlawError(reason, offset=start)
    return start, end, count


def _read_end64(fd: int, locator: bytes, stop: int) -> tuple[int, int, int, int]:
    """Where the wide end of the directory begins, and what it says: entries, length, start."""
    _, disk, begin, disks = _LOCATOR.unpack(locator)
    raw = read_up_to(fd, _END64.size, begin) if begin + _END64.size == stop else b""
    if len(raw) != _END64.size or disk or disks != 1:
        raise FlawError("the wide end of the archive's directory is not where it should be", offset=stop)
    magic, rest, _, _, disk, first_disk, here, count, length, start = _END64.unpack(raw)
    if magic != b"PK\x06\x06" or rest != _END64.size - 12 or disk or first_disk or here != count:
        raise FlawError("the wide end of the archive's directory is damaged", offset=begin)
    return begin, count, length, start


def _parse_directory(raw: bytes, start: int, count: int) -> Iterator[_Listed]:
    at = 0
    for _ in range(count):
        where = start + at
        if len(raw) - at < _CENTRAL.size or raw[at : at + 4] != b"PK\x01\x02":
            raise FlawError("the directory of the archive is damaged", offset=where)
        fields = _CENTRAL.unpack_from(raw, at)
        _, _, _, flags, method, crc, packed, size, name_size, extra_size, comment, disk, _, _, header = fields
        at += _CENTRAL.size
        if len(raw) - at < name_size + extra_size + comment:
            raise FlawError("the directory of the archive is damaged", offset=where)
        raw_name = raw[at : at + name_size]
        name = _checked_name(raw_name, where)
        extra = raw[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment
        size, packed, header = _widen((size, packed, header), extra, name)
        if method or flags & ~(_HAS_DESCRIPTOR | _IS_UTF8) or disk or packed != size:
            kind = "encrypted" if flags & 1 else "compressed" if method else "not stored plainly"
            reason = f"the record {name[:200]!r} of the archive is {kind}; PyTorch stores its records as they are"
            raise FlawError(reason, key=name, offset=where)
        yield _Listed(name, raw_name, flags, crc, size, header)
    if at != len(raw):
        raise FlawError("the directory of the archive has more than its entries", offset=start + at)


def _checked_name(raw: bytes, offset: int) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FlawError("the name of a record of the archive is not UTF-8", offset=offset) from None
    if _UNSAFE.search(name) or len(raw) > MAX_NAME or any(part in ("", ".", "..") for part in name.split("/")):
        reason = f"the archive has a record with the impossible name {name[:200]!r}"
        raise FlawError(reason, key=name, offset=offset, is_path=True)
    return name


def _widen(values: tuple[int, ...], extra: bytes, name: str) -> Iterator[int]:
    """`values`, those of them that are all ones replaced by what the zip64 field has for them."""
    wide: list[int] = []
    found = False
    at = 0
    # What is left over at the end, fewer than four bytes, is padding.
    while len(extra) - at >= 4:
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if length > len(extra) - at or (kind == _ZIP64 and found):
            raise FlawError(f"the record {name[:200]!r} of the archive has a damaged extra field", key=name)
        if kind == _ZIP64:
            found = True
            wide = [value for (value,) in struct.iter_unpack("<Q", extra[at : at + length // 8 * 8])]
        at += length
    if sum(value == _FULL for value in values) > len(wide):
        raise FlawError(f"the record {name[:200]!r} of the archive has no full sizes", key=name)
    return iter([wide.pop(0) if value == _FULL else value for value in values])


def _check_local(window: _Window, record: _Listed, directory: int) -> tuple[int, int]:
    """Where the bytes of a record begin, and where all that belongs to it ends.

    The local header says everything a second time; a reader that trusts the one must see the same as one that trusts
    the other.
    """

    def flawed(why: str) -> FlawError:
        return FlawError(f"the record {record.name[:200]!r} of the archive {why}", key=record.name, offset=at)

    at = record.header
    raw = window.read(_LOCAL.size, at) if at < directory else b""
    if len(raw) != _LOCAL.size or not raw.startswith(b"PK\x03\x04"):
        raise flawed("is not where the directory says")
    _, _, flags, method, crc, packed, size, name_size, extra_size = _LOCAL.unpack(raw)
    both = window.read(name_size + extra_size, at + _LOCAL.size)
    if both[:name_size] != record.raw_name or flags != record.flags or method:
        raise flawed("is another one than the directory says")
    start = at + _LOCAL.size + name_size + extra_size
    end = start + record.size
    if end > directory:
        raise flawed(f"is cut off: {record.size} bytes from {start} on, and the directory begins at {directory}")
    size, packed = _widen((size, packed), both[name_size:], record.name)
    if flags & _HAS_DESCRIPTOR and (crc, packed, size) == (0, 0, 0):
        end += _descriptor_size(window.read(24, end), record)
        if not end - start - record.size or end > directory:
            raise flawed("has a descriptor that contradicts the directory")
    elif (crc, packed, size) != (record.crc, record.size, record.size):
        raise flawed("has another size or checksum than the directory says")
    elif flags & _HAS_DESCRIPTOR:
        end += _descriptor_size(window.read(24, end), record)
    return start, end


def _descriptor_size(raw: bytes, record: _Listed) -> int:
    """Bytes of the note after a record of unknown size; 0 if there is none that agrees with the directory."""
    for form in ("<4sL2Q", "<4s3L"):
        if form.endswith("L") and record.size > _FULL:
            continue
        expected = struct.pack(form, b"PK\x07\x08", record.crc, record.size, record.size)
        for note in (expected, expected[4:]):
            if raw.startswith(note):
                return len(note)
    return 0


def read_whole(fd: int, record: Record, limit: int, *, is_checked: bool) -> bytes:
    """All bytes of a small record."""
    if record.size > limit:
        reason = f"the record {record.name[:200]!r} of the archive has {record.size} bytes; at most {limit} are read"
        raise FlawError(reason, key=record.name, limit=limit)
    raw = read_up_to(fd, record.size, record.start)
    if len(raw) != record.size or (is_checked and zlib.crc32(raw) != record.crc):
        raise FlawError(_BAD_CRC.format(record.name[:200]), key=record.name, offset=record.start)
    return raw


def check_crc(fd: int, record: Record) -> None:
    """Reads a record through, without keeping it, and compares its checksum.

    Raises:
        FlawError: The bytes are not the recorded ones.
    """
    crc, done = 0, 0
    while done < record.size:
        piece = read_up_to(fd, min(CHUNK, record.size - done), record.start + done)
        if not piece:
            break
        crc = zlib.crc32(piece, crc)
        done += len(piece)
    if done != record.size or crc != record.crc:
        raise FlawError(_BAD_CRC.format(record.name[:200]), key=record.name, offset=record.start)


_BAD_CRC = "the bytes of the record '{}' of the archive do not have the recorded checksum"


def find_root(records: Mapping[str, Record]) -> str:
    """The one folder that all records of the archive lie in.

    Raises:
        FlawError: Several, or this is no archive of `torch.save`.
    """
    roots = {name.partition("/")[0] for name in records}
    if not any(name.endswith("/data.pkl") and name.count("/") == 1 for name in records):
        raise FlawError("is a zip archive, but not one of PyTorch: it has no record 'data.pkl'")
    if len(roots) != 1:
        raise FlawError(f"the archive has several roots: {', '.join(sorted(repr(root[:60]) for root in roots)[:4])}")
    root = roots.pop()
    if f"{root}/constants.pkl" in records or any(name.startswith(f"{root}/code/") for name in records):
        reason = "is a TorchScript archive, a program and not a state dict; load it with torch.jit.load"
        raise FlawError(f"{reason} and save its state_dict()")
    return root
