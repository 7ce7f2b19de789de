"""Bytes from files into memory."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrained.checkpoint import disk
from pretrained.checkpoint.disk import (
    Allowance,
    Extent,
    allocate,
    is_remote,
    is_resident,
    map_file,
    num_workers,
    prefetch,
    read_extents,
    run,
    stamp_at,
)
from pretrained.checkpoint.tensors import FileStamp
from pretrained.errors import CheckpointChangedError, ResourceLimitError, WeightsFormatError

CONTENT = bytes(range(256)) * 64


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    gc.collect()
    before = open_fds()
    yield
    gc.collect()
    assert open_fds() <= before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pretrained")]


def targets(*spans: tuple[int, int]) -> tuple[list[Extent], list[bytearray]]:
    buffers = [bytearray(stop - start) for start, stop in spans]
    return [Extent(start, memoryview(b)) for (start, _), b in zip(spans, buffers, strict=True)], buffers


# Mapping


def test_a_map_is_the_file_and_writes_stay_here(file: Path) -> None:
    area = map_file(file, stamp_at(file))
    assert area[:] == CONTENT
    area[0] = 99
    assert file.read_bytes() == CONTENT
    assert map_file(file, stamp_at(file))[0] == 0
    assert not memoryview(area).readonly


def test_a_map_outlives_the_name(file: Path) -> None:
    area = map_file(file, None)
    file.unlink()
    assert area[:] == CONTENT


def test_a_file_that_changed_is_not_mapped(file: Path) -> None:
    stamp = stamp_at(file)
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(CheckpointChangedError, match="changed while it was being loaded") as caught:
        map_file(file, stamp)
    assert caught.value.path == str(file)
    file.unlink()
    for use in (lambda: map_file(file, stamp), lambda: read_extents(file, stamp, [])):
        with pytest.raises(CheckpointChangedError, match="does not exist"):
            use()
    file.mkdir()
    with pytest.raises(CheckpointChangedError, match="is a folder"):
        map_file(file, stamp)


def test_a_replaced_file_of_the_same_content_is_another_file(file: Path) -> None:
    stamp = stamp_at(file)
    (file.parent / "new").write_bytes(CONTENT)
    os.replace(file.parent / "new", file)
    with pytest.raises(CheckpointChangedError):
        map_file(file, stamp)


def test_no_room_for_a_map(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(disk.mmap, "mmap", refuse)
    with pytest.raises(ResourceLimitError, match="cannot be mapped: Cannot allocate memory; mmap=False") as caught:
        map_file(file, None)
    assert caught.value.path == str(file)
    with pytest.raises(MemoryError, match="no memory for a tensor of 4194304 bytes"):
        allocate(4 * 2**20)


# Reading


@settings(max_examples=60)
@given(
    spans=st.lists(st.tuples(st.integers(0, len(CONTENT)), st.integers(0, 700)), max_size=12),
    chunk=st.sampled_from([1, 7, 64, 10**6]),
)
def test_extents_are_filled(tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], chunk: int) -> None:
    path = tmp_path_factory.getbasetemp() / "extents"
    if not path.exists():
        path.write_bytes(CONTENT)
    extents, buffers = targets(*((start, min(start + size, len(CONTENT))) for start, size in spans))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "CHUNK", chunk)
        count = read_extents(path, stamp_at(path), extents)
    assert count == sum(map(len, buffers))
    assert buffers == [bytearray(CONTENT[e.offset : e.offset + len(b)]) for e, b in zip(extents, buffers, strict=True)]


def test_a_file_that_ends_early(file: Path) -> None:
    extents, _ = targets((len(CONTENT) - 4, len(CONTENT) + 4))
    with pytest.raises(CheckpointChangedError, match="became shorter while it was being read") as caught:
        read_extents(file, None, extents)
    assert caught.value.path == str(file)
    extents, _ = targets((len(CONTENT) + 100, len(CONTENT) + 104))
    with pytest.raises(CheckpointChangedError):
        read_extents(file, stamp_at(file), extents)


def test_a_file_that_changed_is_not_read(file: Path) -> None:
    stamp = stamp_at(file)._replace(mtime_ns=0)
    extents, buffers = targets((0, 4))
    with pytest.raises(CheckpointChangedError):
        read_extents(file, stamp, extents)
    assert buffers == [bytearray(4)]


def test_short_reads_are_finished(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset, *flags: whole(fd, [buffers[0][:3]], offset, *flags))
    extents, buffers = targets((10, 100))
    assert read_extents(file, None, extents) == 90
    assert buffers[0] == CONTENT[10:100]


def test_a_disk_that_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, buffers: object, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    extents, _ = targets((10, 100))
    with pytest.raises(WeightsFormatError, match="cannot be read at byte 10: Input/output error") as caught:
        read_extents(file, None, extents)
    assert (caught.value.path, caught.value.offset) == (str(file), 10)


# Memory


@pytest.mark.parametrize("size", [0, 1, 100, 2 * 2**20 - 1, 2 * 2**20, 5 * 2**20 + 3])
def test_memory_is_flat_zeroed_and_its_own(size: int) -> None:
    first, second = allocate(size), allocate(size)
    assert (first.nbytes, first.ndim, first.itemsize, first.readonly) == (size, 1, 1, False)
    assert first == bytes(size)
    if size:
        first[-1] = 7
        assert second[-1] == 0


def test_a_kernel_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(mmap.mmap):
        def madvise(self, *args: Any) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(disk.mmap, "mmap", Plain)
    assert allocate(4 * 2**20).nbytes == 4 * 2**20


# Threads


def test_every_item_is_worked_on_once() -> None:
    done: list[int] = []
    run(done.append, range(100))
    assert sorted(done) == list(range(100))
    run(done.append, [])
    assert len(done) == 100


def test_one_item_needs_no_thread() -> None:
    seen: list[str] = []
    run(lambda _: seen.append(threading.current_thread().name), [1])
    assert seen == [threading.current_thread().name]


def test_the_initializer_runs_in_each_thread_that_works() -> None:
    ready = threading.local()
    started: list[int] = []

    def begin() -> None:
        ready.yes = True
        started.append(1)

    seen: list[bool] = []
    run(lambda _: seen.append(ready.yes), range(20), initializer=begin)
    assert seen == [True] * 20
    assert 1 <= len(started) <= num_workers(20)
    seen.clear()
    run(lambda _: seen.append(ready.yes), [1], initializer=begin)
    assert seen == [True]


def test_the_first_error_is_raised_and_the_rest_is_not_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        run(work, range(1000))
    assert len(begun) < 1000


@pytest.mark.parametrize("tasks", [0, 1, 2, 1000])
def test_num_workers(tasks: int) -> None:
    assert 1 <= num_workers(tasks) <= max(1, min(tasks, 4))


# Where a file lies


def test_a_local_file_is_not_remote(file: Path) -> None:
    assert is_remote(file) is False
    assert is_remote(file.parent / "not there") is False


@pytest.mark.parametrize(
    ("magic", "remote"), [(0x6969, True), (0xFF534D42, True), (-11317950, True), (0x65735546, True), (0xEF53, False)]
)
def test_network_file_systems(magic: int, remote: bool, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class System:
        @staticmethod
        def statfs(path: bytes, buffer: Any) -> int:
            buffer._obj[0] = magic
            return 0

    monkeypatch.setattr(disk, "_libc", lambda: System)
    assert is_remote(file) is remote


def test_a_file_just_written_is_resident(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        assert is_resident(fd, len(CONTENT))
        assert is_resident(fd, 0)
        assert prefetch(fd, len(CONTENT)) is None
    finally:
        os.close(fd)


def test_a_cold_file_is_read_ahead_and_the_descriptor_given_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(disk, "is_resident", lambda fd, size: False)
    monkeypatch.setattr(disk, "_PREFETCH_STEP", 5000)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, offset, size, advice: asked.append((offset, size)))
    fd = os.open(file, os.O_RDONLY)
    thread = prefetch(fd, len(CONTENT))
    os.close(fd)  # the thread has one of its own
    assert thread is not None
    thread.join()
    assert [offset for offset, _ in asked] == list(range(0, len(CONTENT), 5000))
    assert sum(size for _, size in asked) == len(CONTENT)


def test_no_threads_left_means_no_read_ahead(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(disk, "is_resident", lambda fd, size: False)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert map_file(file, None)[:] == CONTENT


@pytest.mark.parametrize(("error", "resident"), [(BlockingIOError, False), (OSError, True)])
def test_probes(error: type[OSError], resident: bool, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> int:
        raise error(errno.EAGAIN if error is BlockingIOError else errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "preadv", fail)
    assert is_resident(0, 10) is resident


def test_stamps_tell_files_apart(file: Path) -> None:
    stamp = stamp_at(file)
    assert isinstance(stamp, FileStamp)
    assert stamp == stamp_at(file)
    assert stamp.size == len(CONTENT)
    os.utime(file, ns=(0, 0))
    assert stamp_at(file) != stamp
    with pytest.raises(FileNotFoundError):
        stamp_at(file.parent / "none")


@pytest.mark.parametrize(
    ("faults", "advice"),
    [
        ([0.1, 0.1, 0.1], ["huge", "huge", "huge"]),
        ([9.0, 0.1, 9.0], ["huge", "huge", "huge"]),
        ([9.0, 9.0, 0.1], ["huge", "huge", "small", "small"]),
    ],
    ids=["fast", "slow now and then", "slow twice in a row"],
)
def test_huge_pages_are_given_up_where_they_are_slow(
    faults: list[float], advice: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milliseconds of one fault in each piece → what the system is told, in order."""
    told: list[str] = []

    class Arena(disk.mmap.mmap):
        def madvise(self, option: int, *_: int) -> None:
            told.append({disk.mmap.MADV_HUGEPAGE: "huge", disk.mmap.MADV_NOHUGEPAGE: "small"}[option])

    times = iter(faults)
    monkeypatch.setattr(disk, "_fault_time", lambda target, offset: next(times) * 1e6)
    pages = disk.HugePages()
    for _ in faults:
        pages.prepare(memoryview(Arena(-1, 8 << 20)))
    assert told == advice
    pages.prepare(memoryview(bytearray(8)))  # memory that was not mapped is left as it is
    assert told == advice


def test_choosing_pages_does_not_touch_what_is_read(file: Path) -> None:
    """A byte is written to time the fault; the read that follows has to cover it."""
    content = os.urandom(9 << 20)
    file.write_bytes(content)
    memory = disk.allocate(len(content))
    disk.read_extents(file, None, [disk.Extent(0, memory)])
    assert bytes(memory) == content


# Allowances


def test_what_is_in_hand_stays_within_the_allowance() -> None:
    allowance, lock = Allowance(10), threading.Lock()
    taken: list[int] = []
    most: list[int] = []

    def work(nbytes: int) -> None:
        with allowance.take(nbytes):
            with lock:
                taken.append(nbytes)
                most.append(sum(taken))
            with lock:
                taken.remove(nbytes)

    run(work, [4, 6, 3, 10, 1, 9, 2] * 50)
    assert max(most) <= 10 and taken == []


def test_more_than_the_allowance_gets_in_alone() -> None:
    allowance = Allowance(10)
    order: list[str] = []

    def other() -> None:
        with allowance.take(1):
            order.append("other")

    with allowance.take(25):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.05)
        order.append("large")
    thread.join()
    assert order == ["large", "other"]


def test_an_allowance_is_given_back_after_an_error() -> None:
    allowance = Allowance(10)
    with pytest.raises(ZeroDivisionError), allowance.take(10):
        raise ZeroDivisionError
    with allowance.take(10):
        pass
