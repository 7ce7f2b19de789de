"""Recorded checksums: where a file's content was noted when it was known to be good, and whether it still is that."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import WeightsFormatError
from .files import open_regular, place, read_up_to, safe_name

__all__ = ["SUMS", "Recorded", "digest", "dump_sums", "is_sums_file", "read_sums", "recorded_by_cache"]

SUMS = "SHA256SUMS"  # the name we write under
MAX_SUMS = 16 << 20  # bytes; a line has about a hundred
PIECE = 4 << 20  # bytes hashed at a time

_SUMS_NAME = re.compile(r"sha256sums?(\.txt)?|.+\.sha256(sum)?", re.IGNORECASE)
_GNU_LINE = re.compile(r"([0-9a-fA-F]{64})(?: [ *](.+))?")
_BSD_LINE = re.compile(r"SHA256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})")
_BLOB_NAME = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


class Recorded(NamedTuple):
    """A checksum that somebody wrote down. `where` says who; `kind` is "sha256", or "git" for git's hash of a blob."""

    kind: str
    expected: str
    where: str


def is_sums_file(name: str) -> bool:
    """Whether a file of this name lists checksums."""
    return _SUMS_NAME.fullmatch(name) is not None


def read_sums(path: Path) -> dict[str, str]:
    """File name, relative to the folder of `path` → its sha256 in lower case.

    Lines are those of sha256sum, of `shasum --tag`, or a lone digest in a file called after the one it is of. Blank
    lines and those that begin with # are passed over.

    Raises:
        WeightsFormatError: a line is none of these; a file is listed twice with two digests.
        UntrustedPathError: a name leads out of the folder.
        ResourceLimitError: more than 16 MiB.
    """
    fd = open_regular(path, max_bytes=MAX_SUMS)
    try:
        text = read_up_to(fd, MAX_SUMS).decode("utf-8", "replace").removeprefix("\ufeff")
    finally:
        os.close(fd)
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, value = _parse_line(path, number, line.rstrip())
        if found.setdefault(name, value) != value:
            raise _flawed(path, f"line {number}: {name!r:.200} is listed before, with another checksum")
    return found


def _parse_line(path: Path, number: int, line: str) -> tuple[str, str]:
    if match := _BSD_LINE.fullmatch(line):
        name, value = match.groups()
    elif match := _GNU_LINE.fullmatch(line):
        value, name = match.group(1), match.group(2) or re.sub(r"\.sha256(sum)?$", "", path.name, flags=re.IGNORECASE)
        if name == path.name:
            raise _flawed(path, f"line {number} has a checksum and no file name")
    else:
        raise _flawed(path, f"line {number} is no line of sha256sum: {line[:80]!r}")
    return safe_name(name.removeprefix("./"), what=f"file of line {number}", path=path), value.lower()


def _flawed(path: Path, reason: str) -> WeightsFormatError:
    return WeightsFormatError(f"{place(path)}: {reason}", path=path, reason=reason, offset=None)


def recorded_by_cache(path: Path) -> Recorded | None:
    """The checksum that a Hugging Face cache keeps in the name of the blob that `path` links to."""
    if not path.is_symlink():
        return None
    blob = Path(os.path.realpath(path))
    if blob.parent.name != "blobs" or not _BLOB_NAME.fullmatch(blob.name):
        return None
    return Recorded("sha256" if len(blob.name) == 64 else "git", blob.name, "the cache's blob name")


def digest(path: Path, kinds: Iterable[str], progress: Callable[[int], None] | None = None) -> Mapping[str, str]:
    """The checksums of a file, all kinds in one pass.

    Args:
        path: a regular file.
        kinds: of "sha256" and "git".
        progress: called with the number of bytes after each piece.

    Raises:
        SourceError, WeightsFormatError: it cannot be opened, or is no file.
        OSError: as the system gives it.
    """
    fd = open_regular(path)
    with os.fdopen(fd, "rb", buffering=0) as file:
        size = os.fstat(fd).st_size
        hashes = {kind: hashlib.sha256() if kind == "sha256" else _git_blob(size) for kind in kinds}
        buffer = bytearray(PIECE)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            for one in hashes.values():
                one.update(view[:count])
            if progress is not None:
                progress(count)
    return {kind: one.hexdigest() for kind, one in hashes.items()}


def _git_blob(size: int) -> hashlib._Hash:
    # git's own identifiers are SHA-1; this recognises a file and protects nothing.
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def dump_sums(sums: Mapping[str, str]) -> bytes:
    """The content of a SHA256SUMS file, as `sha256sum --check` reads it."""
    return "".join(f"{value} *{name}\n" for name, value in sorted(sums.items())).encode("utf-8")
