"""What a variant measures with: clocks, memory, and the state of memory and page cache before it begins."""

from __future__ import annotations

import gc
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "drop_files",
    "memory",
    "read_through",
    "reset_peak",
    "resident_share",
    "timed",
    "warm_files",
    "warm_memory",
    "weight_files",
]


@contextmanager
def timed(result: dict[str, Any], key: str = "seconds") -> Iterator[None]:
    """Adds the seconds of the block to `result` under `key`, with garbage collected before."""
    gc.collect()
    start = time.perf_counter()
    try:
        yield
    finally:
        result[key] = time.perf_counter() - start


def warm_memory(nbytes: int) -> None:
    """Touches and gives back memory, so that what follows does not pay the host for it; then forgets the peak.

    Once with small pages and once with huge ones, because the kernel takes them from different lists.
    """
    for advice in ("MADV_NOHUGEPAGE", "MADV_HUGEPAGE"):
        area = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, advice):
            area.madvise(getattr(mmap, advice))
        for offset in range(0, nbytes, mmap.PAGESIZE):
            area[offset] = 1
        area.close()
    reset_peak()


def reset_peak() -> None:
    """VmHWM counts anew from here."""
    with suppress(OSError):  # then the peak is the process's, which is more
        Path("/proc/self/clear_refs").write_text("5")


def memory() -> dict[str, float]:
    """Bytes of this process: anonymous, proportional share, resident, and the highest that was resident."""
    found: dict[str, float] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split(":")
        if key in ("Anonymous", "Pss", "Rss"):
            found[key.lower()] = int(value.split()[0]) * 1024
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            found["peak"] = int(line.split()[1]) * 1024
    return found


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that hold tensors."""
    return sorted(path for path in Path(folder).iterdir() if path.suffix in (".safetensors", ".pt", ".tensors"))


def read_through(path: Path) -> None:
    """Brings a file into the page cache."""
    buffer = bytearray(16 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def warm_files(folder: Path) -> None:
    """Brings a checkpoint into the page cache."""
    for path in weight_files(folder):
        read_through(path)


def drop_files(folder: Path) -> None:
    """Takes a checkpoint out of the page cache, and says so when the system did not."""
    for path in weight_files(folder):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if (share := resident_share(fd)) > 0.05:
                print(f"  {path.name}: {share:.0%} of it stays in the page cache", file=sys.stderr)
        finally:
            os.close(fd)


def resident_share(fd: int) -> float:
    """How much of a file is in the page cache, by 200 reads that may not wait."""
    size, there = os.fstat(fd).st_size, 0
    for i in range(200):
        with suppress(BlockingIOError):
            os.preadv(fd, [bytearray(1)], size * i // 200, os.RWF_NOWAIT)
            there += 1
    return there / 200
