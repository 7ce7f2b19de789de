"""One saver per folder: a lock file that the system frees when its holder dies, however it dies."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FolderLock", "acquire"]

ATTEMPTS = 100  # each lost only when another holder removed the file between our open and our lock
WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL})
PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class FolderLock:
    """A held lock file; between processes and between threads of one.

    Attributes:
        sure: whether the file system really locks. Where it does not, nobody can tell a live saver from a dead one.
        is_new: whether the file was made for this holder; then no saver has left anything.
    """

    def __init__(self, path: Path, fd: int, sure: bool, is_new: bool) -> None:
        self.sure = sure
        self.is_new = is_new
        self._path = path
        self._fd = fd
        self._is_discarded = False

    def discard(self) -> None:
        """The lock file is removed while it is still held, so that whoever waits on it sees that it is gone."""
        self._is_discarded = True
        if sys.platform != "win32":
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    def release(self) -> None:
        """The lock is free, for children forked meanwhile too."""
        with suppress(OSError):
            _unlock(self._fd)
        with suppress(OSError):
            os.close(self._fd)
        if sys.platform == "win32" and self._is_discarded:  # an open file cannot be removed there
            with suppress(OSError):
                os.unlink(self._path)


def acquire(path: Path) -> FolderLock | None:
    """The lock at `path`, made if there is none; `None` when somebody holds it.

    Raises:
        OSError: the file can be neither made nor opened.
    """
    for _ in range(ATTEMPTS):
        fd, is_new = _open(path)
        try:
            sure = _lock(fd)
            if _is_current(fd, path):
                return FolderLock(path, fd, sure, is_new)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            if is_new:
                with suppress(OSError):
                    os.unlink(path)
            os.close(fd)
            raise
        os.close(fd)
    return None


def _open(path: Path) -> tuple[int, bool]:
    """The file, and whether it was made here."""
    with suppress(FileExistsError):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | PLAIN, 0o666), True
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | PLAIN, 0o666), False
    except OSError as error:
        # Somebody else's file, or a file system that is read-only to us: it can still be locked.
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | PLAIN), False


def _is_current(fd: int, path: Path) -> bool:
    """Whether the file that was locked is still the one that others would open."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _lock(fd: int) -> bool:
    """Whether the file system locks at all; raises BlockingIOError when the lock is held."""
    if sys.platform == "win32":
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
    else:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return False
            raise
    return True


def _unlock(fd: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)
