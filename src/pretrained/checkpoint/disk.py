"""Bytes from files into memory, the fastest safe way for the place they lie: mapped, or copied by a few threads."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import CheckpointChangedError, ResourceLimitError, WeightsFormatError
from .files import open_regular, stamp_of
from .tensors import FileStamp

__all__ = [
    "MAX_WORKERS",
    "Allowance",
    "Extent",
    "HugePages",
    "allocate",
    "is_remote",
    "is_resident",
    "map_file",
    "num_workers",
    "prefetch",
    "read_extents",
    "reading",
    "run",
    "stamp_at",
]

CHUNK = 16 * 2**20  # bytes a worker reads at a time: large enough for the disk, small enough to share the work
_HUGE_PAGE = 2 * 2**20
_SLOW_FAULT = 1_000_000  # nanoseconds for a huge page; clearing one that is there takes a fifth of it
MAX_WORKERS = 4  # more readers do not help a disk, and contend for page-table locks
_PREFETCH_STEP = 2**20  # a longer WILLNEED is cut off by the kernel's read-ahead limit
_PROBES = 24

# statfs magic numbers of file systems where a page fault is a round trip:
# NFS, SMB, CIFS, SMB2, FUSE, 9p, Ceph, Lustre, AFS, GPFS.
_REMOTE = frozenset(
    {0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x65735546, 0x01021997, 0x00C36400, 0x0BD00BD0, 0x5346414F, 0x47504653}
)

T = TypeVar("T")


class Extent(NamedTuple):
    """A run of bytes of a file and the memory it goes to; `target` is a writable flat buffer of that length."""

    offset: int
    target: memoryview


def num_workers(num_tasks: int) -> int:
    """Threads worth starting for this many independent pieces of work."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, 2 * cores, num_tasks))


def run(work: Callable[[T], Any], items: Sequence[T], initializer: Callable[[], None] | None = None) -> None:
    """Calls `work` on every item, by several threads when there are several items; the first error is raised."""
    workers = num_workers(len(items))
    if workers == 1 and initializer is None:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="pretrained-read", initializer=initializer) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            # What has not begun need not begin; what runs ends within one chunk.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class Allowance:
    """Bytes that the threads of `run` may have in hand together; who wants more than all of them gets in alone."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes, self._taken = nbytes, 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, nbytes: int) -> Iterator[None]:
        """Waits until there is room for `nbytes`, and keeps them for the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + nbytes <= self._nbytes)
            self._taken += nbytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= nbytes
                self._changed.notify_all()


def map_file(path: Path, stamp: FileStamp | None, *, ahead: bool = True) -> mmap.mmap:
    """The whole file as private memory: pages come from the file, writes stay in this process.

    The file was read before, under `stamp`; a file that has changed since is refused, so that no view reaches past
    its end. With `ahead` a cold file begins to be read at once, all of it.

    Raises:
        CheckpointChangedError: the file is not the one whose header was read.
        ResourceLimitError: there is no room in the address space, or the file system cannot map.
    """
    fd = _open_again(path)
    try:
        require_unchanged(path, stamp_of(fd), stamp)
        # NORESERVE: a map larger than memory is fine as long as nobody writes to all of it.
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
        try:
            area = mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            reason = f"cannot be mapped: {error.strerror}; mmap=False copies it"
            raise ResourceLimitError(f"{path}: {reason}", path=path, reason=reason) from error
        if ahead:
            prefetch(fd, len(area))
        return area
    finally:
        os.close(fd)


def _open_again(path: Path) -> int:
    """A descriptor of a file whose header was read before; if it is gone, or no file now, it was replaced."""
    return open_regular(path, error=CheckpointChangedError, missing=CheckpointChangedError)


def require_unchanged(path: Path, now: FileStamp, then: FileStamp | None) -> None:
    """Raises CheckpointChangedError unless both stamps are the same."""
    if then is not None and now != then:
        raise CheckpointChangedError(f"{path} changed while it was being loaded; load it again", path=path)


def stamp_at(path: Path) -> FileStamp:
    """Identity of the file that is at `path` now. Raises OSError when there is none."""
    status = os.stat(path)
    return FileStamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def allocate(nbytes: int) -> memoryview:
    """Private zeroed memory as a flat writable buffer; `HugePages` chooses its pages when it is filled.

    A tensor's memory comes from its own map, so it is given back the moment the last view of it dies.
    """
    if nbytes < _HUGE_PAGE:
        return memoryview(bytearray(nbytes))
    try:
        arena = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no memory for a tensor of {nbytes} bytes") from error
    return memoryview(arena)


class HugePages:
    """Huge pages for memory about to be filled, for as long as the machine has them ready.

    Faulting 4 KiB at a time is most of the cost of a copy. But a virtual machine hands free memory back to its host in
    blocks of this very size, and then each huge page is 512 faults over there, while small pages come out of what was
    used a moment ago. Which of the two it is shows in one page of each piece; two slow ones in a row decide.
    """

    def __init__(self) -> None:
        self.are_fast = sys.platform == "linux" and "MADV_HUGEPAGE" in vars(mmap)
        self._num_slow = 0

    def prepare(self, target: memoryview) -> None:
        """Chooses the pages of a piece of `allocate`d memory that was not written to yet."""
        arena = target.obj
        if not isinstance(arena, mmap.mmap) or "MADV_HUGEPAGE" not in vars(mmap):
            return
        with suppress(OSError):  # a kernel without them
            if self.are_fast:
                arena.madvise(mmap.MADV_HUGEPAGE)
                if len(target) >= 2 * _HUGE_PAGE:  # then the byte in its middle is on a huge page
                    is_slow = _fault_time(target, _HUGE_PAGE) > _SLOW_FAULT
                    self._num_slow = self._num_slow + 1 if is_slow else 0
                    self.are_fast = self._num_slow < 2
            if not self.are_fast:
                arena.madvise(mmap.MADV_NOHUGEPAGE)


def _fault_time(target: memoryview, offset: int) -> int:
    """Nanoseconds this thread works to touch a byte; what others do meanwhile does not count."""
    start = time.thread_time_ns()
    target[offset] = 0
    return time.thread_time_ns() - start


def read_extents(path: Path, stamp: FileStamp | None, extents: Iterable[Extent]) -> int:
    """Fills the targets from the file, in pieces, by several threads; returns the bytes read.

    Raises:
        CheckpointChangedError: the file is not the one whose header was read, or ended early.
        WeightsFormatError: the system cannot read it.
    """
    pieces = list(_pieces(extents))
    pages = HugePages()
    with reading(path, stamp) as read:

        def fill(piece: Extent) -> None:
            pages.prepare(piece.target)
            read(piece.offset, piece.target)

        run(fill, pieces)
    return sum(len(piece.target) for piece in pieces)


@contextmanager
def reading(path: Path, stamp: FileStamp | None) -> Iterator[Callable[[int, memoryview], None]]:
    """What fills memory with the bytes of a file from some place on; threads may share it.

    Raises:
        CheckpointChangedError, WeightsFormatError: as `read_extents`, in the block too.
    """
    fd = _open_again(path)
    try:
        require_unchanged(path, stamp_of(fd), stamp)
        yield lambda offset, target: _read_at(fd, path, offset, target)
    finally:
        os.close(fd)


def _read_at(fd: int, path: Path, offset: int, target: memoryview) -> None:
    done = 0
    while done < len(target):
        try:
            count = os.preadv(fd, [target[done:] if done else target], offset + done)
        except OSError as error:
            reason = f"cannot be read at byte {offset + done}: {error.strerror}"
            raise WeightsFormatError(f"{path}: {reason}", path=path, reason=reason, offset=offset + done) from error
        if count == 0:
            raise CheckpointChangedError(f"{path} became shorter while it was being read", path=path)
        done += count


def _pieces(extents: Iterable[Extent]) -> Iterable[Extent]:
    """The extents in file order, the long ones cut into chunks."""
    for offset, target in sorted(extents, key=lambda extent: extent.offset):
        for start in range(0, len(target), CHUNK):
            yield Extent(offset + start, target[start : start + CHUNK])


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def is_remote(path: Path) -> bool:
    """Whether the file lies on a network file system, where mapping costs a round trip for each fault."""
    if sys.platform != "linux":
        return False
    buffer = (ctypes.c_long * 32)()
    if _libc().statfs(os.fsencode(path), ctypes.byref(buffer)) != 0:
        return False
    return (buffer[0] & 0xFFFFFFFF) in _REMOTE


def is_resident(fd: int, size: int) -> bool:
    """Whether the file is in the page cache, judged by a few dozen reads that are refused rather than wait."""
    if "RWF_NOWAIT" not in vars(os) or size == 0:
        return True
    probe = bytearray(1)
    for i in range(_PROBES):
        try:
            os.preadv(fd, [probe], size * i // _PROBES, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the file system cannot say; a prefetch would be for nothing as often as not
    return True


def prefetch(fd: int, size: int) -> threading.Thread | None:
    """Starts reading a cold file into the page cache, beside whatever happens next; None if it is there already.

    The thread has a descriptor of its own and ends by itself when it has been through the file.
    """
    if "posix_fadvise" not in vars(os) or is_resident(fd, size):
        return None
    own = os.dup(fd)
    thread = threading.Thread(target=_read_ahead, args=(own, size), name="pretrained-prefetch", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads; it was only to be faster
        os.close(own)
        return None
    return thread


def _read_ahead(fd: int, size: int) -> None:
    try:
        for offset in range(0, size, _PREFETCH_STEP):
            os.posix_fadvise(fd, offset, min(_PREFETCH_STEP, size - offset), os.POSIX_FADV_WILLNEED)
    finally:
        os.close(fd)
