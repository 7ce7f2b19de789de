"""The screen: when it comes up, what it shows, and that nothing of other programs is lost behind it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrained.checkpoint import commit_exchange, commit_lock
from pretrained.checkpoint.commit import Stage, recover
from pretrained.checkpoint.commit_exchange import swap, twin_of
from pretrained.checkpoint.commit_log import LOCK, RECORD

Event = Callable[[], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    (folder / "stale").write_text("old")
    (folder / "notes").write_text("theirs")
    return folder


@pytest.fixture
def exchanges(tmp_path: Path) -> bool:
    for name in ("probe-a", "probe-b"):
        (tmp_path / name).mkdir()
    try:
        swap(tmp_path / "probe-a", tmp_path / "probe-b")
    except OSError:
        return False
    finally:
        for name in ("probe-a", "probe-b"):
            (tmp_path / name).rmdir()
    return True


class Swaps:
    """Stands in for the exchange: counts, fails on demand, and lets other programs act before and after."""

    def __init__(self) -> None:
        self.count = 0
        self.failing: frozenset[int] = frozenset()
        self.before: dict[int, Event] = {}
        self.after: dict[int, Event] = {}

    def __call__(self, first: Path, second: Path) -> None:
        self.count += 1
        self.before.get(self.count, lambda: None)()
        if self.count in self.failing:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        swap(first, second)
        self.after.get(self.count, lambda: None)()


@pytest.fixture
def swaps(monkeypatch: pytest.MonkeyPatch) -> Swaps:
    swaps = Swaps()
    monkeypatch.setattr(commit_exchange, "swap", swaps)
    return swaps


def save(folder: Path, weights: str = "new") -> None:
    with Stage(folder) as stage:
        stage.path("weights").write_text(weights)
        stage.path("more").write_text(weights)
        stage.remove("stale")
        stage.commit()


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def is_tidy(folder: Path) -> bool:
    return not [path for place in (folder, folder.parent) for path in place.glob(".pretrained-*")]


NEW = {"weights": "new", "more": "new", "notes": "theirs"}


def test_swap_exchanges_or_says_why(tmp_path: Path, exchanges: bool) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match=r"No such file|not implemented") as caught:
        swap(tmp_path / "a", tmp_path / "b")
    assert caught.value.errno in (errno.ENOENT, errno.ENOSYS)
    if exchanges:
        (tmp_path / "b").mkdir()
        (tmp_path / "a" / "x").touch()
        swap(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b" / "x").exists()


def test_folder_keeps_its_identity(folder: Path, swaps: Swaps, exchanges: bool) -> None:
    folder.chmod(0o2751)
    os.chown(folder, 1234, 4321)
    before = folder.stat()
    seen: list[os.stat_result] = []
    swaps.after[1] = lambda: seen.append(folder.stat())
    fd = os.open(folder, os.O_RDONLY)
    save(folder)
    assert content(folder) == NEW
    assert sorted(os.listdir(fd)) == sorted(NEW), "an open folder is still the folder"
    os.close(fd)
    after = folder.stat()
    for status in (*seen, after):
        assert (status.st_mode, status.st_uid, status.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino == before.st_ino
    assert len(seen) == exchanges
    assert swaps.count == 2 * exchanges
    assert is_tidy(folder)


def test_files_of_others_keep_their_inodes(folder: Path) -> None:
    before = (folder / "notes").stat()
    with (folder / "notes").open("a") as file:
        save(folder)
        file.write(" and more")
    assert (folder / "notes").read_text() == "theirs and more"
    assert (folder / "notes").stat().st_ino == before.st_ino
    assert (folder / "notes").stat().st_nlink == 1


def with_subfolder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()


def with_fifo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "fifo")


def from_inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def with_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_exchange, "MAX_LINKS", 2)


def as_mount_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: path == folder)


def without_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


def without_linked_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(os, "link", refuse)


def over_files_of_another_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def elsewhere(path: object, **keywords: object) -> object:
        status = stat(path, **keywords)
        if path != folder:
            return status
        fields = {name: getattr(status, name) for name in ("st_mode", "st_uid", "st_gid", "st_ino")}
        return SimpleNamespace(**fields, st_dev=status.st_dev + 1)

    monkeypatch.setattr(os.path, "ismount", lambda path: False)
    monkeypatch.setattr(os, "stat", elsewhere)


def with_access_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda path: [commit_exchange.ACCESS_LIST])


def beside_a_foreign_twin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin_of(folder).write_text("a file that is not ours")
    monkeypatch.setattr(commit_exchange, "drop_orphan", lambda twin: None)


def without_the_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_exchange, "find_call", lambda: None)


@pytest.mark.parametrize(
    "obstacle",
    [
        with_subfolder,
        with_fifo,
        from_inside,
        with_many_files,
        as_mount_point,
        without_links,
        without_linked_links,
        with_access_list,
        over_files_of_another_device,
        beside_a_foreign_twin,
        without_the_call,
    ],
)
def test_screen_stays_down(
    folder: Path, swaps: Swaps, monkeypatch: pytest.MonkeyPatch, obstacle: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    obstacle(folder, monkeypatch)
    save(folder)
    assert swaps.count == 0
    found = content(folder)
    assert {name: found[name] for name in NEW} == NEW
    assert "stale" not in found
    assert not list(folder.glob(".pretrained-*"))
    assert obstacle is beside_a_foreign_twin or is_tidy(folder)


@pytest.mark.parametrize("failing", [{1}, {2}, {1, 2}])
def test_exchange_that_fails(folder: Path, swaps: Swaps, failing: set[int]) -> None:
    swaps.failing = frozenset(failing)
    save(folder)
    assert content(folder) == NEW
    assert is_tidy(folder)
    save(folder, "third")
    assert content(folder) == {"weights": "third", "more": "third", "notes": "theirs"}


@pytest.mark.parametrize("failing", [set(), {2}])
def test_what_others_do_while_the_screen_is_up(folder: Path, swaps: Swaps, exchanges: bool, failing: set[int]) -> None:
    def act() -> None:
        (folder / "log").write_text("made meanwhile")
        (folder / "events").mkdir()
        (folder / "events" / "x").write_text("in a folder")
        (folder / "notes").unlink()
        (folder / "notes").write_text("replaced meanwhile")

    seen: list[dict[str, str]] = []
    swaps.after[1] = act
    swaps.after[2] = lambda: seen.append(content(folder))
    swaps.failing = frozenset(failing)
    save(folder)
    if exchanges:
        assert seen == ([] if failing else [content(folder)]), "what is there never vanishes in between"
        assert content(folder) == {**NEW, "log": "made meanwhile", "notes": "replaced meanwhile"}
        assert (folder / "events" / "x").read_text() == "in a folder"
    assert is_tidy(folder)


@pytest.mark.parametrize("number", [1, 2])
def test_what_others_do_just_before_an_exchange(folder: Path, swaps: Swaps, exchanges: bool, number: int) -> None:
    def act() -> None:
        (folder / "log").write_text("made meanwhile")
        (folder / "notes").write_text("changed meanwhile")

    swaps.before[number] = act
    save(folder)
    if exchanges:
        assert content(folder) == {**NEW, "log": "made meanwhile", "notes": "changed meanwhile"}
    assert is_tidy(folder)


def test_screen_stays_down_when_others_are_at_work(folder: Path, swaps: Swaps, monkeypatch: pytest.MonkeyPatch) -> None:
    link, links = os.link, []

    def busy(*arguments: object, **keywords: object) -> None:
        links.append(arguments)
        (folder / f"log {len(links)}").write_text("made meanwhile")
        link(*arguments, **keywords)

    monkeypatch.setattr(os, "link", busy)
    save(folder)
    assert swaps.count == 0
    assert {"log 1", *NEW} <= content(folder).keys()
    assert is_tidy(folder)


def test_file_put_into_the_twin_while_it_goes(
    folder: Path, swaps: Swaps, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, done = commit_exchange.unlink_if_there, []

    def late(path: Path) -> None:
        unlink(path)
        if path.parent == twin_of(folder) and not done:
            done.append(path)
            (path.parent / "late").write_text("in an open folder")

    monkeypatch.setattr(commit_exchange, "unlink_if_there", late)
    save(folder)
    assert content(folder) == ({**NEW, "late": "in an open folder"} if exchanges else NEW)
    assert is_tidy(folder)


class Died(BaseException):
    """Stands for a killed process."""


def die(folder: Path, swaps: Swaps, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that is as good as killed with the screen up."""

    def stop() -> None:
        raise Died

    def nothing(*_: object, **__: object) -> None:
        raise Died

    swaps.after[1] = stop
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_close", nothing)
        with pytest.raises(Died):
            save(folder)
    swaps.after.clear()


def test_dead_with_the_screen_up(folder: Path, swaps: Swaps, exchanges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = folder.stat().st_ino
    die(folder, swaps, monkeypatch)
    assert exchanges is (folder.stat().st_ino != inode)
    (folder / "log").write_text("made after the crash")
    (folder / "notes").unlink()
    (folder / "notes").write_text("replaced after the crash")
    os.utime(folder / "notes", (2e9, 2e9))
    assert recover(folder) == {}
    assert content(folder) == {**NEW, "log": "made after the crash", "notes": "replaced after the crash"}
    assert folder.stat().st_ino == inode
    assert is_tidy(folder)


def test_twin_whose_record_is_lost(
    folder: Path, swaps: Swaps, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(folder, swaps, monkeypatch)
    if exchanges:
        (twin_of(folder) / RECORD).unlink()
    recover(folder)
    assert content(folder) == NEW
    assert is_tidy(folder)


def test_twin_of_a_folder_that_was_moved_away(
    folder: Path, swaps: Swaps, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(folder, swaps, monkeypatch)
    moved = folder.with_name("moved")
    folder.rename(moved)
    assert twin_of(folder).exists() is exchanges
    recover(moved)
    assert content(moved) == NEW
    folder.mkdir()
    (folder / "weights").write_text("another model")
    with Stage(folder):
        pass
    assert content(folder) == {"weights": "another model"}, "the twin is not this folder's"
    assert is_tidy(folder)


def test_twin_of_a_live_saver_stays(folder: Path, swaps: Swaps) -> None:
    twin = twin_of(folder)
    twin.mkdir()
    (twin / "x").write_text("x")
    lock = commit_lock.acquire(twin / LOCK)
    save(folder)
    assert (twin / "x").exists()
    lock.release()
    save(folder)
    assert content(folder) == NEW
    assert is_tidy(folder)
