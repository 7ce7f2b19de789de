"""The commit record: what a save is about to do to a folder, written down so that anyone can finish it."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import UntrustedPathError, WeightsFormatError

__all__ = [
    "LOCK",
    "RECORD",
    "STAGE",
    "Record",
    "check_targets",
    "draft",
    "is_ours",
    "make_folders",
    "parents",
    "pending",
    "plain_name",
    "read_record",
    "redo",
    "remove_tree",
    "seal",
    "sync",
    "unlink_if_there",
]

PREFIX = ".pretrained-"  # of every name that is ours and no file of a checkpoint
LOCK = ".pretrained-save.lock"
RECORD = ".pretrained-commit.json"
STAGE = ".pretrained-save-"
VERSION = 1
MAX_RECORD = 16 << 20  # bytes; an honest record has some 50 bytes per file
WITHOUT_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS})


class Record(NamedTuple):
    """A commit: the files of folder `stage` take their final names, after the files `removals` are gone."""

    stage: str
    moves: tuple[str, ...]
    removals: tuple[str, ...]


def is_ours(name: str) -> bool:
    """Whether this entry of a folder belongs to a save, not to a checkpoint."""
    return name in (LOCK, RECORD) or name.startswith(STAGE)


def plain_name(name: str) -> str:
    """`name` itself, if it is a relative name that stays in its folder and is not one of ours.

    Raises:
        UntrustedPathError: it is not.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or parts[0].startswith(PREFIX) or re.search(r"[\0\\]|^\w:", name):
        raise UntrustedPathError(f"{name!r} is no plain name of a file inside a checkpoint folder", path=name)
    return name


def parents(names: Iterable[str]) -> list[str]:
    """The subfolders that lie between a folder and these files in it; outer ones first."""
    found = {str(folder) for name in names for folder in PurePosixPath(name).parents if folder.parts}
    return sorted(found, key=lambda folder: (folder.count("/"), folder))


def draft(stage: Path, record: Record, *, durable: bool) -> int:
    """Writes the record where it does not count yet; returns the permissions that a new file gets here."""
    text = json.dumps({"version": VERSION, **record._asdict()}).encode("ascii")
    fd = os.open(stage / RECORD, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        while text:
            text = text[os.write(fd, text) :]
        if durable:
            os.fsync(fd)
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def read_record(folder: Path) -> Record | None:
    """The record in `folder`; `None` when there is none.

    Raises:
        WeightsFormatError: it is damaged. Ours never are, but for a power cut after a save without `durable`.
        UntrustedPathError: it names something outside the folder.
    """
    path = folder / RECORD
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        text = os.read(fd, MAX_RECORD + 1) if is_file else b""
    finally:
        os.close(fd)
    try:
        if not is_file:
            raise ValueError("not a regular file")
        if len(text) > MAX_RECORD:
            raise ValueError(f"more than {MAX_RECORD} bytes")
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.get("version") != VERSION:
            raise ValueError("not a record of this version")
        stage, moves, removals = fields["stage"], fields["moves"], fields["removals"]
        if not isinstance(stage, str) or not re.fullmatch(re.escape(STAGE) + "[0-9a-f]{1,64}", stage):
            raise ValueError("the stage is no folder of ours")
        if not all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in (moves, removals)):
            raise ValueError("the names are not a list of strings")
        return Record(stage, tuple(map(plain_name, moves)), tuple(map(plain_name, removals)))
    except UntrustedPathError as error:
        raise UntrustedPathError(f"{path}: {error}", path=path, key=error.path) from error
    except (ValueError, KeyError, RecursionError) as error:
        raise WeightsFormatError(
            f"{path}: the record of an interrupted save is damaged ({error}); the files beside it may belong to two "
            "checkpoints. Save to the folder again, or remove the record if you know that they belong together.",
            path=path,
            reason=str(error),
        ) from error


def check_targets(folder: Path, record: Record) -> None:
    """Raises OSError when a move or removal could not be carried out: better now than when it is recorded."""
    for name in (".", *parents((*record.moves, *record.removals))):
        place = _status(folder / name)
        if place is None or name in record.removals:
            continue
        if stat.S_ISLNK(place.st_mode) or not stat.S_ISDIR(place.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "is no folder, and files are to be saved in it", str(folder / name))
        if not os.access(folder / name, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder / name))
    for name in (*record.moves, *record.removals):
        path = folder / name
        target = _status(path)
        if target is None:
            continue
        if stat.S_ISDIR(target.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder, where a file is to be saved or removed", str(path))
        if sys.platform != "win32":
            around = os.stat(path.parent)
            if around.st_mode & stat.S_ISVTX and os.geteuid() not in (0, around.st_uid, target.st_uid):
                raise PermissionError(errno.EPERM, "belongs to another user, in a sticky folder", str(path))


def seal(path: Path, mode: int, *, durable: bool) -> None:
    """A staged file gets the permissions of a new file, and reaches the disk if it must."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "staged, but no regular file", str(path))
    if stat.S_IMODE(status.st_mode) != mode:
        os.chmod(path, mode)
    if durable:
        sync(path)


def redo(folder: Path, record: Record) -> None:
    """Carries out a record, or what is left of it. Doing so twice is the same as once."""
    stage = folder / record.stage
    if not _is_folder(stage):
        return  # the stage is dropped only after every file of it is in its place
    for name in record.removals:
        if _has_plain_parents(folder, name):
            unlink_if_there(folder / name)
    for name in record.moves:
        _has_plain_parents(stage, name)
        if not _has_plain_parents(folder, name):
            make_folders((folder / name).parent, [])
        with suppress(FileNotFoundError):  # moved already
            os.replace(stage / name, folder / name)


def pending(folder: Path) -> dict[str, Path | None]:
    """What `redo` would still do, for those who can only read: name to the staged file, or to `None` if removed."""
    record = read_record(folder)
    if record is None or not _is_folder(folder / record.stage):
        return {}
    found: dict[str, Path | None] = dict.fromkeys(record.removals)
    for name in record.moves:
        _has_plain_parents(folder / record.stage, name)
        if _status(folder / record.stage / name) is not None:
            found[name] = folder / record.stage / name
    return found


def _has_plain_parents(folder: Path, name: str) -> bool:
    """Whether the subfolders of `name` exist; UntrustedPathError when a link among them leads elsewhere."""
    for part in parents([name]):
        status = _status(folder / part)
        if status is not None and stat.S_ISLNK(status.st_mode):
            raise UntrustedPathError(f"{folder / part} is a link; {name} would leave {folder}", path=folder / part)
        if status is None or not stat.S_ISDIR(status.st_mode):
            return False
    return True


def _is_folder(path: Path) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def make_folders(path: Path, made: list[Path]) -> None:
    """Makes `path` and what lacks above it; `made` gets each new folder as it appears, the outermost first."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(path)) from None
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_folders(path.parent, made)
        make_folders(path, made)
    else:
        made.append(path)


def unlink_if_there(path: Path) -> None:
    """The file is gone, whether or not it was there."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: Path) -> None:
    """The file or folder is gone; links are removed, not followed."""
    status = _status(path)
    if status is None:
        return
    if not stat.S_ISDIR(status.st_mode):
        unlink_if_there(path)
        return
    for name in os.listdir(path):
        remove_tree(path / name)
    os.rmdir(path)


def sync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    if is_folder and sys.platform == "win32":
        return  # folders cannot be opened there
    fd = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if not is_folder or error.errno not in WITHOUT_FOLDER_SYNC:
            raise
    finally:
        os.close(fd)


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
