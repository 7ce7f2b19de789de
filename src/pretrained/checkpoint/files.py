"""The one door to the file system for names and content that are not ours.

Every name that comes from a file or a caller passes `safe_name` or `safe_join`; every file of a checkpoint is opened by
`open_regular`; every JSON file is read by `read_json`.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from pathlib import Path
from typing import Any

from .._types import PathLike
from ..errors import (
    ConfigError,
    InvalidOptionError,
    PretrainedError,
    ResourceLimitError,
    SourceError,
    UntrustedPathError,
    WeightsFormatError,
)
from .json_text import MAX_DEPTH, MAX_VALUES, parse_json, place
from .tensors import FileStamp

__all__ = [
    "MAX_JSON",
    "fill",
    "open_regular",
    "parse_json",
    "place",
    "read_json",
    "read_up_to",
    "recognise",
    "require_folder",
    "safe_join",
    "safe_name",
    "stamp_of",
]

MAX_JSON = 16 << 20
MAX_NAME = 1024  # characters
HEAD = 4096  # bytes that are enough for `recognise`

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")  # a drive letter is one as well
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/+(.*)", re.DOTALL)
_REPO_FOLDER = re.compile(r"(?:models|datasets|spaces|kernels)--.+")

# A flag that a platform lacks is worth 0 there.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def safe_name(name: object, *, what: str = "name", path: object = None) -> str:
    """`name` itself, if it is a plain relative name with `/` between its parts.

    Args:
        name: Any value that a file or a caller gave for a file name.
        what: What it is, for the message ("shard of the index", "subfolder").
        path: The file that holds the name, for the message.

    Raises:
        UntrustedPathError: Empty, absolute, with `.` or `..` or an empty part, a backslash, a drive letter, a URL
            scheme, a control character, or longer than 1024 characters.
    """
    reason = _name_flaw(name)
    if reason is None:
        assert isinstance(name, str)
        return name
    quoted = repr(name[:200] if isinstance(name, str) else type(name).__name__)
    where = "" if path is None else f"{place(path)}: "
    raise UntrustedPathError(
        f"{where}the {what} {quoted} {reason}; only a plain relative file name is accepted",
        path=path,
        key=name if isinstance(name, str) else None,
        reason=f"the {what} {quoted} {reason}",
    )


def _name_flaw(name: object) -> str | None:
    """What is wrong with `name` as a relative file name, if anything is."""
    if not isinstance(name, str):
        return "is not a string"
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    if _UNPRINTABLE.search(name):
        return "holds a control character"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "is absolute"
    if _SCHEME.match(name):
        return "is a URL or has a drive letter"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has an empty part, '.' or '..'"
    return None


def safe_join(root: PathLike, name: object, *, what: str = "name") -> Path:
    """`root / name`, once it is certain that this stays under `root`, links included.

    A link may leave `root` for one target: the blobs of the Hugging Face cache that `root` itself lies in. The file
    need not exist.

    Raises:
        UntrustedPathError: Not a plain relative name, or a link out of the folder.
    """
    joined = Path(root) / safe_name(name, what=what, path=root)
    real_root = os.path.realpath(root)
    real = os.path.realpath(joined)
    if _is_under(real, real_root) or any(_is_under(real, blobs) for blobs in _blob_folders(Path(root))):
        return joined
    reason = "is a link out of its folder"
    raise UntrustedPathError(f"{place(joined)}: {reason}", path=joined, key=str(name), reason=reason)


def _is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _blob_folders(root: Path) -> list[str]:
    """Where the files of a cached snapshot really lie: `blobs` of the repository, and `blobs` of the cache."""
    for real in (Path(os.path.abspath(root)), Path(os.path.realpath(root))):
        for folder in (real, *real.parents):
            repo = folder.parent.parent
            if folder.parent.name == "snapshots" and _REPO_FOLDER.fullmatch(repo.name):
                return [os.path.realpath(repo / "blobs"), os.path.realpath(repo.parent / "blobs")]
    return []


def open_regular(
    path: PathLike,
    *,
    max_bytes: int | None = None,
    error: type[PretrainedError] = WeightsFormatError,
    missing: type[PretrainedError] = SourceError,
) -> int:
    """A descriptor of a regular file, for reading; the caller closes it.

    Never blocks on a FIFO and never reads a device.

    Args:
        path: The file; links are followed.
        max_bytes: Largest size to accept.
        error: Class of what is raised when this is a folder, a FIFO, a device or a socket.
        missing: Class of what is raised when nothing can be opened there.

    Raises:
        ResourceLimitError: Larger than `max_bytes`.
    """
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except OSError as cause:
        reason, is_other_kind = _why_unopenable(path, cause)
        kind = error if is_other_kind else missing
        raise kind(f"{place(path)}: {reason}", path=path, reason=reason) from cause
    except ValueError:  # a NUL in the path
        reason = "the path holds a NUL character"
        raise UntrustedPathError(f"{place(path)}: {reason}", path=path, reason=reason) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            reason = f"is {_file_kind(status.st_mode)}, not a file"
            raise error(f"{place(path)}: {reason}", path=path, reason=reason)
        if max_bytes is not None and status.st_size > max_bytes:
            reason = f"{status.st_size} bytes; at most {max_bytes} are read"
            raise ResourceLimitError(f"{place(path)}: {reason}", path=path, reason=reason, limit=max_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _why_unopenable(path: PathLike, cause: OSError) -> tuple[str, bool]:
    """Why the system would not open `path`, and whether that is because it is no file at all."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        return f"is {_file_kind(mode)}, not a file", True
    if cause.errno == errno.ENOENT:
        return ("is a link to nothing" if os.path.islink(path) else "does not exist"), False
    if cause.errno == errno.ELOOP:
        return "is a link that leads back to itself", False
    return f"cannot be opened: {cause.strerror or type(cause).__name__}", False


def _file_kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def stamp_of(fd: int) -> FileStamp:
    """Identity of the content of an open file."""
    status = os.fstat(fd)
    return FileStamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def fill(fd: int, target: memoryview, offset: int) -> int:
    """Bytes read from `offset` into `target`; fewer than it holds only when the file ends before."""
    done = 0
    with io.FileIO(fd, closefd=False) as file:
        file.seek(offset)
        while done < len(target):
            count = file.readinto(target[done:])
            if not count:
                break
            done += count
    return done


def require_folder(directory: PathLike) -> None:
    """Raises InvalidOptionError if a save is to go to a URL, which as a path would be a folder of that name, here."""
    text = os.fspath(directory)
    # A Path has lost one of the slashes.
    match = _URL.fullmatch(text) if isinstance(text, str) else None
    if match is None or (not isinstance(directory, str) and os.path.isdir(f"{match[1]}:")):
        return
    if match[1].lower() == "hf":
        hint = "push_to_hub('organisation/name') writes to a hub"
    else:
        hint = (
            "save to a folder, and copy that: `fs, path = fsspec.url_to_fs(url); fs.put('folder/', path, "
            "recursive=True)`. Several files there never change as one, so give each save a path of its own"
        )
    shown = f"{match[1]}://{match[2].partition('?')[0].rpartition('@')[2]:.200}"  # without user, password and query
    raise InvalidOptionError(
        f"{shown!r} is a URL, and a save goes to a folder of this machine: {hint}", key="save_directory"
    )


def read_up_to(fd: int, limit: int, offset: int = 0) -> bytes:
    """`limit` bytes of a file from `offset` on, or fewer when it ends before."""
    pieces: list[bytes] = []
    # The size is only a hint (0 for files that the kernel makes up), so one more read than it needs.
    step = max(0, min(limit, os.fstat(fd).st_size - offset + 1))
    with io.FileIO(fd, closefd=False) as file:
        file.seek(offset)
        while limit > 0 and (piece := file.read(min(step, limit))):
            pieces.append(piece)
            limit -= len(piece)
            step = max(step, 1 << 16)
    return b"".join(pieces)


def read_json(
    path: PathLike,
    *,
    error: type[PretrainedError] = ConfigError,
    max_bytes: int = MAX_JSON,
    max_depth: int = MAX_DEPTH,
    max_values: int = MAX_VALUES,
) -> dict[str, Any]:
    """The object that a JSON file holds; at most `max_bytes` of it are ever read.

    Raises:
        PretrainedError: As `error`, for a file that is missing, unreadable, no regular file, or not the JSON text of
            one object within the bounds of `parse_json`.
        ResourceLimitError: Too large, or too many values.
    """
    fd = open_regular(path, max_bytes=max_bytes, error=error, missing=error)
    try:
        raw = read_up_to(fd, max_bytes + 1)
    except OSError as cause:
        reason = f"cannot be read: {cause.strerror or type(cause).__name__}"
        raise error(f"{place(path)}: {reason}", path=path, reason=reason) from cause
    finally:
        os.close(fd)
    if len(raw) > max_bytes:
        reason = f"more than {max_bytes} bytes"
        raise ResourceLimitError(f"{place(path)}: {reason}", path=path, reason=reason, limit=max_bytes)
    kind = None if raw[:1] == b"{" else recognise(raw[:HEAD])
    if kind not in (None, "a JSON document", "a text file", "UTF-16 text"):
        reason = f"is {kind}, not JSON"
        raise error(f"{place(path)}: {reason}", path=path, reason=reason)
    return parse_json(raw, path=path, error=error, max_depth=max_depth, max_values=max_values)


_MAGICS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer (run 'git lfs pull')"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
# The magic number of torch.save before version 1.6, pickled with protocol 2.
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# A map of a few entries whose first key is a string, as Flax writes its trees.
_MSGPACK = re.compile(rb"(?:[\x81-\x8f]|\xde..)[\xa1-\xbf\xd9]", re.DOTALL)
_MARKUP = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


def recognise(head: bytes) -> str | None:
    """What a file really is, told from its first bytes (512 or more, or all of it); `None` if that is not known."""
    if not head:
        return "empty"
    if not head.strip(b"\0"):
        return "all zero bytes"
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return "a PyTorch zip archive" if b"data.pkl" in head or b".data/serialization_id" in head else "a zip archive"
    if head.startswith(_LEGACY_TORCH):
        return "a PyTorch file of the legacy format (a pickle)"
    if head[0] == 0x80 and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "a pickle"
    if head[257:262] == b"ustar":
        return "a TAR archive"
    if int.from_bytes(head[:8], "little") <= 100_000_000 and head[8:9] == b"{":
        return "a safetensors file"
    if _MSGPACK.match(head):
        return "a msgpack file"
    return _recognise_text(head)


def _recognise_text(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        return "white space only"
    if text[:1] in (b"{", b"["):
        return "a JSON document"
    if text[:1] == b"<":
        if _MARKUP.match(text):
            return "an HTML page"
        return "an XML document"
    if not head.translate(None, bytes(range(32, 127)) + b"\t\r\n"):
        return "a text file"
    return None
