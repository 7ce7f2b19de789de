"""PyTorch's first format (torch.save before version 0.1.10): a tar archive of storages, tensors and a pickle.

The members are read where they lie; nothing is unpacked to a disk.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ...errors import UntrustedPathError
from ..files import read_up_to, safe_name
from .flaws import FlawError
from .torch_calls import kind_of
from .torch_globals import Global, PickledStorage, PickledTensor
from .torch_legacy import MAX_PICKLE, Parts, Stream, read_storage
from .torch_records import Record

__all__ = ["read_tar"]

BLOCK = 512
MAX_MEMBERS = 64
MAX_PADDING = 1 << 20  # bytes of zeros after the last member; tar writes 10 KiB at most
MAX_EXTENDED = 1 << 16
MAX_TENSORS = 1_000_000
MAX_DIMS = 64

_ZEROS = bytes(BLOCK)
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a FIFO",
}
_NEEDED = ("storages", "tensors", "pickle")


class _Member(NamedTuple):
    """A member of the archive: `size` bytes from `start` on."""

    name: str
    kind: bytes
    start: int
    size: int


def read_tar(fd: int, size: int) -> Parts:
    """What a tar archive of PyTorch holds.

    Raises:
        FlawError: Damaged, not of PyTorch, or with members that are links or have names that lead elsewhere.
    """
    members = _read_members(fd, size)
    if lacking := [name for name in _NEEDED if name not in members]:
        raise FlawError(f"is a TAR archive, but not one of PyTorch: it has no member {lacking[0]!r}", key=lacking[0])
    storages, records = _read_storages(_stream(fd, members["storages"]))
    tensors = _read_tensors(_stream(fd, members["tensors"]), storages)

    def refer(token: object) -> PickledTensor | PickledStorage:
        key = str(token) if type(token) in (str, int) else ""
        found = tensors.get(key) or storages.get(key)
        if found is None:
            raise FlawError(f"the pickle refers to {key or kind_of(token)!r:.60}, which is no tensor of the archive")
        return found

    stream = _stream(fd, members["pickle"])
    value = stream.pickle(MAX_PICKLE, refer).value
    _require_end(stream, "pickle")
    return Parts(value, records)


def _stream(fd: int, member: _Member) -> Stream:
    return Stream(fd, member.start, member.start + member.size)


def _require_end(stream: Stream, name: str) -> None:
    if stream.left:
        reason = f"the member {name!r} of the archive goes on for {stream.left} bytes after its end"
        raise FlawError(reason, key=name, offset=stream.at)


# The archive


def _read_members(fd: int, size: int) -> dict[str, _Member]:
    members: dict[str, _Member] = {}
    at, wide = 0, None
    for _ in range(2 * MAX_MEMBERS):
        header = read_up_to(fd, BLOCK, at)
        if header == _ZEROS:
            _check_padding(fd, at, size)
            return members
        member = _parse_header(header, at, wide)
        if member.start + member.size > size:
            reason = f"is cut off: the member {member.name[:100]!r} of the archive has {member.size} bytes"
            raise FlawError(f"{reason}, and {max(0, size - member.start)} are left", key=member.name[:100], offset=at)
        at = member.start + -(-member.size // BLOCK) * BLOCK
        if member.kind in (b"x", b"g"):
            raw = b"" if member.size > MAX_EXTENDED else read_up_to(fd, member.size, member.start)
            wide = _extended_size(raw, member)
            continue
        wide = None
        _check_member(member, members)
        members[member.name] = member
    raise FlawError(f"the archive has more than {MAX_MEMBERS} members", limit=MAX_MEMBERS)


def _check_padding(fd: int, at: int, size: int) -> None:
    """After the last member there are zeros, two blocks at least."""
    padding = read_up_to(fd, MAX_PADDING + 1, at)
    if len(padding) < 2 * BLOCK or len(padding) > MAX_PADDING or padding.strip(b"\0"):
        raise FlawError(f"the archive does not end as one should: {size - at} bytes after its last member", offset=at)


def _parse_header(header: bytes, at: int, wide: int | None) -> _Member:
    if len(header) != BLOCK:
        raise FlawError("is cut off: the archive has no end", offset=at)
    told = header[148:156].strip(b" \0")
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if not re.fullmatch(rb"[0-7]{1,7}", told) or int(told, 8) != total:
        raise FlawError("a header of the archive does not have the recorded checksum", offset=at)
    raw = header[:100].rstrip(b"\0")
    prefix = header[345:500].rstrip(b"\0") if header[257:263] == b"ustar\0" else b""
    name = (prefix + b"/" + raw if prefix else raw).decode("utf-8", "backslashreplace")
    return _Member(name, header[156:157], at + BLOCK, _size(header[124:136], at) if wide is None else wide)


def _size(field: bytes, at: int) -> int:
    if field[:1] == b"\x80":  # GNU's way of writing what octal digits have no room for
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,12}", digits):
        raise FlawError("a header of the archive has no size", offset=at)
    return int(digits, 8)


def _extended_size(raw: bytes, member: _Member) -> int | None:
    """The size that an extended header gives the member after it, if it gives one.

    Times and owners may stand there as well, but no other name: the names of PyTorch's members are short.
    """
    size, at = None, 0
    while at < len(raw):
        match = re.match(rb"(\d{1,6}) ([^=]{1,100})=", raw[at : at + 128])
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(raw) - at or raw[at + length - 1 : at + length] != b"\n":
            break
        value = raw[at + match.end() : at + length - 1]
        if match[2] in (b"path", b"linkpath") or match[2].startswith(b"GNU.sparse"):
            break
        if match[2] == b"size":
            if member.kind == b"g" or not re.fullmatch(rb"\d{1,18}", value):
                break
            size = int(value)
        at += length
    if at < len(raw) or not raw:
        raise FlawError("the archive has an extended header that PyTorch never writes", offset=member.start)
    return size


def _check_member(member: _Member, members: dict[str, _Member]) -> None:
    name = member.name[:100]
    if member.kind not in (b"0", b"\0"):
        kind = _KINDS.get(member.kind, f"of the kind {member.kind!r}")
        raise FlawError(f"the member {name!r} of the archive is {kind}, not a file", key=name, offset=member.start)
    try:
        safe_name(member.name, what="member of the archive")
    except UntrustedPathError as error:
        raise FlawError(error.reason, key=name, offset=member.start, is_path=True) from None
    if member.name in members:
        raise FlawError(f"the archive has two members named {name!r}", key=name, offset=member.start)


# Its members


def _count(stream: Stream, name: str) -> int:
    number = stream.pickle().value
    if type(number) is not int or not 0 <= number <= MAX_TENSORS:
        raise FlawError(f"the member {name!r} of the archive has an impossible number of entries", key=name)
    return number


def _read_storages(stream: Stream) -> tuple[dict[str, PickledStorage], dict[str, Record]]:
    """Storages by key, the views of them included; and where the storages themselves lie."""
    storages: dict[str, PickledStorage] = {}
    records: dict[str, Record] = {}
    for _ in range(_count(stream, "storages")):
        match stream.pickle().value:
            case (int(number), str(), Global(kind="storage", dtype=str(dtype))) if str(number) not in storages:
                key = str(number)
                numel = int.from_bytes(stream.peek(8), "little", signed=True)
                storages[key] = PickledStorage(key, dtype, numel)
                records[key] = read_storage(stream, storages[key])
            case _:
                raise FlawError("the archive describes a storage as PyTorch never does", key="storages")
    views = stream.pickle(MAX_PICKLE).value
    if type(views) is not list:
        raise FlawError("the archive does not list the views of its storages", key="storages")
    for view in views:
        match view:
            case (int(number), int(root), int(first), int(count)) if (
                str(root) in records and str(number) not in storages
            ):
                whole = storages[str(root)]
                storages[str(number)] = PickledStorage(whole.key, whole.dtype, whole.numel, (first, count))
            case _:
                raise FlawError("the archive describes a view as PyTorch never does", key="storages")
    _require_end(stream, "storages")
    return storages, records


def _read_tensors(stream: Stream, storages: dict[str, PickledStorage]) -> dict[str, PickledTensor]:
    tensors: dict[str, PickledTensor] = {}
    for _ in range(_count(stream, "tensors")):
        match stream.pickle().value:
            case (int(number), int(root), Global(kind="class" | "storage")) if str(root) in storages:
                key = str(number)
                if key in tensors or key in storages:
                    raise FlawError(f"the archive has two objects of the key {key[:40]}", key=key[:40])
                tensors[key] = _read_tensor(stream, storages[str(root)])
            case _:
                raise FlawError("the archive describes a tensor as PyTorch never does", key="tensors")
    _require_end(stream, "tensors")
    return tensors


def _read_tensor(stream: Stream, storage: PickledStorage) -> PickledTensor:
    num_dims = stream.integer(4)
    stream.take(4)  # once the number of dimensions had eight bytes
    if not 0 <= num_dims <= MAX_DIMS:
        raise FlawError(f"the archive has a tensor of {num_dims} dimensions", key="tensors", offset=stream.at)
    shape = tuple(stream.integer() for _ in range(num_dims))
    strides = tuple(stream.integer() for _ in range(num_dims))
    assert storage.dtype is not None
    return PickledTensor(storage, stream.integer(), shape, strides, storage.dtype, is_lazy=False)
