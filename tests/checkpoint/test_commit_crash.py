"""Errors, interrupts and kills at every file operation of a save, what other programs see of it, and power cuts."""

from __future__ import annotations

import errno
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrained.checkpoint import commit_exchange
from pretrained.checkpoint.commit import Stage, recover
from pretrained.checkpoint.commit_log import RECORD

SCRIPT = Path(__file__).with_name("crash_commit.py")


def load_script():
    specification = importlib.util.spec_from_file_location("crash_commit", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["crash_commit"] = module
    specification.loader.exec_module(module)
    return module


crash = load_script()
OVER, FEWER, FIRST, LINKS = (crash.SCENARIOS[index] for index in (1, 3, 4, 5))


@pytest.fixture
def base() -> Iterator[Path]:
    """In memory where that is possible: thousands of small folders, and a busy disk would take minutes."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name).resolve() / "base"


def run_script(base: Path, *arguments: str) -> tuple[int, dict[str, tuple[int, int]], str]:
    command = [sys.executable, str(SCRIPT), "--folder", str(base.parent), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = re.findall(r"^(\S.*): (\d+)/(\d+) old or new$", result.stdout, re.MULTILINE)
    return result.returncode, {line: (int(right), int(total)) for line, right, total in lines}, result.stdout


def test_killed_saves_leave_old_or_new(base: Path) -> None:
    code, lines, text = run_script(base, "--runs", "12", "--deeper", "61")
    assert code == 0, text
    assert all(right == total for right, total in lines.values()), text
    assert lines["random kills"] == (12, 12)
    assert lines["kill at every operation, redo log"][1] > 200
    assert lines["kill in the recovery too"][1] > 50


def test_the_harness_can_fail(base: Path) -> None:
    code, lines, text = run_script(base, "--runs", "0", "--deeper", "0", "--naive")
    assert code == 1
    right, total = lines["kill at every operation, redo log"]
    assert right < total / 2, text


@pytest.mark.parametrize(
    ("exchange", "scenario", "code"),
    [
        (True, OVER, errno.ENOSPC),
        (True, LINKS, errno.EIO),
        (False, FEWER, errno.EACCES),
        (False, FIRST, errno.EFBIG),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_error_at_every_operation(base: Path, exchange: bool, scenario: object, code: int) -> None:
    tally = crash.Tally()
    crash.break_everywhere(tally, base, scenario, code, exchange=exchange)
    assert tally.complaints == []
    ((_, total),) = tally.lines.values()
    assert total > 150


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("scenario", [OVER, FIRST], ids=lambda scenario: scenario.name)
def test_interrupt_at_every_operation(base: Path, exchange: bool, scenario: object) -> None:
    ends = set()
    for point in range(1, crash.num_operations(scenario, base, exchange=exchange) + 1):
        folder = crash.prepare(scenario, base)

        def act(count: int, name: str, point: int = point) -> None:
            if count == point:
                raise KeyboardInterrupt

        with (
            pytest.raises(KeyboardInterrupt),
            crash.watched(act, crash.CHANGES + crash.LOOKS, exchange=exchange),
        ):
            crash.save(scenario, folder)
        recover(folder)
        with Stage(folder):  # nobody holds the lock
            pass
        found = crash.read(folder)
        ends.add("new" if found == crash.expected(scenario, "new") else "old")
        assert found in (crash.expected(scenario, "old"), crash.expected(scenario, "new")), point
        assert not crash.leftovers(folder), point
    assert ends == {"old", "new"}


@pytest.mark.parametrize("exchange", [True, False])
def test_what_other_programs_see_of_a_save(base: Path, exchange: bool) -> None:
    exchange = exchange and crash.has_exchange(base / "probe")
    for scenario in crash.SCENARIOS:
        folder = crash.prepare(scenario, base)
        old, new = crash.expected(scenario, "old"), crash.expected(scenario, "new")
        views: list[dict[str, bytes]] = []
        looking = False

        def act(count: int, name: str, folder: Path = folder, views: list[dict[str, bytes]] = views) -> None:
            nonlocal looking
            if not looking:
                looking = True
                views.append(crash.read(folder))
                looking = False

        with crash.watched(act, crash.CHANGES, exchange=exchange):
            crash.save(scenario, folder)
        mixed = [view for view in views if view not in (old, new)]
        assert views[0] == old
        assert crash.read(folder) == new
        assert not mixed if exchange else mixed, scenario.name
        changes = [view for view, _ in itertools.groupby(views)]
        assert changes == [old, new] or not exchange, scenario.name


def test_no_descriptor_stays_open(base: Path) -> None:
    folder = crash.prepare(OVER, base)
    before = crash.num_open_files()
    crash.save(OVER, folder)
    recover(folder)
    assert crash.num_open_files() == before


# --- power cuts


def logged(scenario: object, folder: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool) -> list[tuple[str, str]]:
    """Every fsync, record, move and removal of a save, with the name of the file; `.` is the folder itself."""
    log: list[tuple[str, str]] = []
    fsync, replace, unlink, swap = os.fsync, os.replace, os.unlink, commit_exchange.swap

    def name_of(path: object) -> str:
        path = Path(os.fspath(path))
        return "stage" if path.name.startswith(".pretrained-save-") else "." if path == folder else path.name

    def logged_fsync(fd: int) -> None:
        log.append(("fsync", name_of(os.readlink(f"/proc/self/fd/{fd}"))))
        fsync(fd)

    def logged_replace(source: object, target: object) -> None:
        log.append(("replace", name_of(target)))
        replace(source, target)

    def logged_unlink(path: object) -> None:
        log.append(("unlink", name_of(path)))
        unlink(path)

    def logged_swap(first: object, second: object) -> None:
        log.append(("swap", ""))
        swap(first, second)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    monkeypatch.setattr(os, "unlink", logged_unlink)
    monkeypatch.setattr(commit_exchange, "swap", logged_swap)
    with Stage(folder, durable=durable) as stage:
        for name in scenario.new:
            stage.path(name).write_bytes(crash.content("new", name))
        stage.remove("model.safetensors")
        log.clear()
        stage.commit()
    monkeypatch.undo()
    return log


@pytest.mark.parametrize("exchange", [True, False])
def test_everything_is_on_disk_before_what_relies_on_it(
    base: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    folder = crash.prepare(OVER, base)
    if not exchange:
        (folder / "subfolder").mkdir()  # keeps the screen down
    log = logged(OVER, folder, monkeypatch, durable=True)
    recorded = log.index(("replace", RECORD))
    before, after = log[:recorded], log[recorded + 1 :]
    assert {("fsync", name) for name in (*OVER.new, RECORD, "stage", ".")} <= set(before)
    assert after[0] == ("fsync", "."), "the record is on disk before anything moves"
    moves = [index for index, step in enumerate(after) if step in {("replace", name) for name in OVER.new}]
    assert len(moves) == len(OVER.new)
    assert after.index(("unlink", "model.safetensors")) < moves[0]
    done = after.index(("unlink", RECORD))
    assert ("fsync", ".") in after[moves[-1] : done], "the moves are on disk before the record goes"
    swaps = [index for index, (what, _) in enumerate(after) if what == "swap"]
    assert len(swaps) == (2 if exchange and crash.has_exchange(base / "probe") else 0)
    if swaps:
        assert any(name.startswith(".pretrained-twin-") for _, name in after[: swaps[0]]), "the twin is on disk"
        assert ("fsync", "snapshots") in after[swaps[1] : done], "the folder is back before the record goes"


def test_without_durable_nothing_waits(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = crash.prepare(OVER, base)
    log = logged(OVER, folder, monkeypatch, durable=False)
    assert crash.read(folder) == crash.expected(OVER, "new")
    assert ("replace", RECORD) in log
    assert not [step for step in log if step[0] == "fsync"]


def test_new_folders_reach_the_disk(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base.mkdir()
    log = logged(FIRST, base / "a" / "b", monkeypatch, durable=True)
    before = log[: log.index(("replace", RECORD))]
    assert {("fsync", "."), ("fsync", "a"), ("fsync", base.name)} <= set(before)


def test_folder_that_cannot_be_synced(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def only_files(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(fd)

    folder = crash.prepare(OVER, base)
    monkeypatch.setattr(os, "fsync", only_files)
    crash.save(OVER, folder)
    assert crash.read(folder) == crash.expected(OVER, "new")
