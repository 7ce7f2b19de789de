"""A screen for readers that know nothing of the commit record: they see the finished folder while the real one changes.

Files move into a checkpoint folder one after the other, and a reader that does not look for the record could open some
old and some new. So, where the system can exchange two folders in one step, a twin is built beside the folder, complete
and out of hard links. One exchange shows the twin under the folder's name, the moves happen out of sight, and a second
exchange puts the folder back: it keeps its inode, so it stays right for whoever has it open, works in it, watches it or
has it mounted elsewhere, and keeps its mode, owner, lists of access and attributes.

Nothing depends on the screen. It comes up after the record, any trouble with it means going on without, and a crash at
any point leaves a state that the record finishes. It stays down when the folder is changing under us, and what other
programs put into the twin while it is shown is carried over. What remains: a program that makes a temporary file
within the microseconds before one of the exchanges, and renames it after, is told that it does not exist.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from .commit_lock import acquire
from .commit_log import LOCK, PREFIX, Record, is_ours, remove_tree, sync, unlink_if_there

__all__ = ["drop_orphan", "drop_twin", "is_paired", "lower_screen", "raise_screen", "swap", "twin_of"]

MAX_LINKS = 1000  # files of other programs; beyond, the links would take longer than the moves
ACCESS_LIST = "system.posix_acl_access"


def twin_of(root: Path) -> Path:
    """Where the twin of a folder is, while there is one; the name does not grow with the folder's."""
    digest = hashlib.sha256(os.fsencode(root.name)).hexdigest()
    return root.parent / f"{PREFIX}twin-{digest[:32]}"


def is_paired(root: Path, twin: Path) -> bool:
    """Whether the twin was made for this very folder, and not for another that had its name: they share a lock."""
    try:
        return os.path.samestat(os.lstat(root / LOCK), os.lstat(twin / LOCK))
    except (FileNotFoundError, NotADirectoryError):
        return False


def raise_screen(root: Path, record: Record, *, durable: bool) -> None:
    """Shows the folder as the record will leave it, if that can be done here; the folder itself is then at its twin's.

    Call with the record in place and the lock held.
    """
    twin = twin_of(root)
    try:
        if find_call() is None or not _can_screen(root, record):
            return
        os.mkdir(twin)
    except OSError:
        return
    try:
        _build_twin(root, twin, record, durable=durable)
        swap(root, twin)
    except (OSError, NotImplementedError):
        with suppress(OSError):
            remove_tree(twin)


def lower_screen(root: Path, twin: Path) -> None:
    """The folder, its moves done, is back under its name; where that fails, the twin stays and is as good."""
    _carry_over(root, twin)
    with suppress(OSError):
        swap(root, twin)


def drop_twin(twin: Path, root: Path) -> None:
    """What the twin has and the folder has not is carried over; the rest is removed."""
    for name in _carry_over(twin, root):
        unlink_if_there(twin / name)
    rest = os.listdir(twin)
    if not all(map(is_ours, rest)):
        raise OSError(errno.ENOTEMPTY, "is being changed by another program", str(twin))
    for name in sorted(rest, key=LOCK.__eq__):  # the lock last: it says whose twin this is
        remove_tree(twin / name)
    os.rmdir(twin)


def drop_orphan(twin: Path) -> None:
    """Removes the twin of a folder that was meanwhile moved or deleted, unless its saver is alive."""
    try:
        os.lstat(twin)
        lock = acquire(twin / LOCK)
    except FileNotFoundError:
        return
    if lock is not None:
        try:
            remove_tree(twin)
        finally:
            lock.release()


def swap(first: Path, second: Path) -> None:
    """Exchanges two folders in one step.

    Raises:
        OSError: this system or file system cannot, or the folders are in use in a way that forbids it.
    """
    call = find_call()
    code = errno.ENOSYS if call is None else call(os.fsencode(first), os.fsencode(second))
    if code:
        raise OSError(code, os.strerror(code), str(first), None, str(second))


@cache
def find_call() -> Callable[[bytes, bytes], int] | None:
    """The system's exchange, which returns an error number or 0; `None` where there is none."""
    if sys.platform not in ("linux", "darwin"):
        return None
    import ctypes

    try:
        library = ctypes.CDLL(None, use_errno=True)
        function = library.renameat2 if sys.platform == "linux" else library.renamex_np
    except (OSError, AttributeError):
        return None

    def exchange(first: bytes, second: bytes) -> int:
        if sys.platform == "linux":
            here, flag = ctypes.c_int(-100), ctypes.c_uint(2)  # AT_FDCWD, RENAME_EXCHANGE
            failed = function(here, ctypes.c_char_p(first), here, ctypes.c_char_p(second), flag)
        else:
            failed = function(ctypes.c_char_p(first), ctypes.c_char_p(second), ctypes.c_uint(2))  # RENAME_SWAP
        return ctypes.get_errno() if failed else 0

    return exchange


def _can_screen(root: Path, record: Record) -> bool:
    """Whether a twin would look the same to everyone, and whether it is cheap to find out that it cannot be."""
    if any("/" in name for name in (*record.moves, *record.removals)):
        return False
    if os.path.islink(root) or os.path.ismount(root) or not os.access(root.parent, os.W_OK | os.X_OK):
        return False
    if sys.platform == "linux" and ACCESS_LIST in os.listxattr(root):
        return False
    # Relative names that other threads of this process use would lead out of sight.
    return not os.path.samestat(os.stat("."), os.stat(root))


def _build_twin(root: Path, twin: Path, record: Record, *, durable: bool) -> None:
    os.link(root / LOCK, twin / LOCK)  # first: it says whose twin this is
    status = os.stat(root)
    made = os.stat(twin)
    if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
        os.chown(twin, status.st_uid, status.st_gid)
    os.chmod(twin, stat.S_IMODE(status.st_mode))
    found = _scan(root)
    for name in found.keys() - {*record.moves, *record.removals}:
        os.link(root / name, twin / name, follow_symlinks=False)
    for name in record.moves:
        os.link(root / record.stage / name, twin / name, follow_symlinks=False)
    if durable:
        sync(twin)
    if _scan(root) != found:
        raise OSError(errno.EBUSY, "is being changed by another program", str(root))


def _scan(root: Path) -> dict[str, int]:
    """Inodes of the folder's files; OSError when a hard link cannot stand for each."""
    device = os.stat(root).st_dev
    found: dict[str, int] = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if is_ours(entry.name):
                continue
            status = entry.stat(follow_symlinks=False)
            is_plain = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
            if not is_plain or status.st_dev != device or len(found) == MAX_LINKS:
                raise OSError(errno.ENOTSUP, "cannot be linked", entry.path)
            found[entry.name] = status.st_ino
    return found


def _carry_over(source: Path, target: Path) -> list[str]:
    """Gives `target` what other programs did in `source`; returns the names that `source` can do without then."""
    names = []
    for name in os.listdir(source):
        if is_ours(name):
            continue
        mine = os.lstat(source / name)
        try:
            theirs = os.lstat(target / name)
        except FileNotFoundError:
            if stat.S_ISDIR(mine.st_mode):
                os.rename(source / name, target / name)
            else:
                os.link(source / name, target / name, follow_symlinks=False)
        else:
            if not os.path.samestat(mine, theirs) and mine.st_mtime_ns > theirs.st_mtime_ns:
                os.replace(source / name, target / name)
        names.append(name)
    return names
