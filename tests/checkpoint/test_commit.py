"""Replacement of a set of files: all at once, from any point of failure, and never under another saver."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pretrained.checkpoint import commit, commit_exchange, commit_lock, commit_log
from pretrained.checkpoint.commit import Stage, recover
from pretrained.errors import (
    CheckpointBusyError,
    ConfigError,
    SaveError,
    SourceError,
    UntrustedPathError,
    WeightsFormatError,
)

SCRIPT = Path(__file__).with_name("crash_commit.py")


def load_script():
    specification = importlib.util.spec_from_file_location("crash_commit", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["crash_commit"] = module
    specification.loader.exec_module(module)
    return module


crash = load_script()


class Died(BaseException):
    """Stands for a killed process: nothing is cleaned up after it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(f"old {name}")
    (folder / "README.md").write_text("bystander")
    return folder


@pytest.fixture
def exchanges(tmp_path: Path) -> bool:
    return crash.has_exchange(tmp_path / "probe")


@pytest.fixture
def swaps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """The exchanges that succeeded."""
    seen: list[tuple[Path, Path]] = []
    swap = commit_exchange.swap

    def counted(first: Path, second: Path) -> None:
        swap(first, second)
        seen.append((first, second))

    monkeypatch.setattr(commit_exchange, "swap", counted)
    return seen


def write_shards(stage: Stage) -> None:
    for name in ("config.json", "index.json", "model-1.safetensors", "model-2.safetensors"):
        stage.path(name).write_text(f"new {name}")
    stage.remove("model.safetensors")


def save_shards(folder: Path) -> None:
    with Stage(folder) as stage:
        write_shards(stage)
        stage.commit()


OLD = {"config.json": "old config.json", "model.safetensors": "old model.safetensors", "README.md": "bystander"}
NEW = {
    "config.json": "new config.json",
    "index.json": "new index.json",
    "model-1.safetensors": "new model-1.safetensors",
    "model-2.safetensors": "new model-2.safetensors",
    "README.md": "bystander",
}


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).as_posix().startswith(".")
    }


def die_at(
    folder: Path, operation: str, count: int, *, exchange: bool = False, save: Callable[[Stage], None] = write_shards
) -> None:
    """A save that is as good as killed at the `count`-th call of one operation: from then on it changes nothing."""
    seen = 0

    def act(number: int, name: str) -> None:
        nonlocal seen
        seen += name == operation
        if seen >= count:
            raise Died

    stage = Stage(folder)
    save(stage)
    with crash.watched(act, exchange=exchange), pytest.raises(Died):
        stage.commit()


# --- the plain course


def test_commit_replaces_and_removes(folder: Path) -> None:
    inode = folder.stat().st_ino
    with Stage(folder) as stage:
        write_shards(stage)
        assert content(folder) == OLD
        stage.commit()
        assert content(folder) == NEW
    assert content(folder) == NEW
    assert not crash.leftovers(folder)
    assert folder.stat().st_ino == inode


def test_commit_into_new_folders(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with Stage(folder) as stage:
        assert stage.directory == folder.resolve()
        stage.path("config.json").write_text("new")
        stage.path("sub/folder/x.bin").write_text("x")
        stage.remove("never/was/there.bin")
        stage.commit()
    assert content(folder) == {"config.json": "new", "sub/folder/x.bin": "x"}
    assert not crash.leftovers(folder)


def test_last_word_of_path_and_remove_counts(folder: Path) -> None:
    with Stage(folder) as stage:
        stage.path("config.json").write_text("new")
        stage.remove("config.json")
        stage.remove("model.safetensors")
        stage.path("model.safetensors").write_text("new")
        stage.commit()
    assert content(folder) == {"model.safetensors": "new", "README.md": "bystander"}


def test_file_gives_way_to_folder(folder: Path) -> None:
    with Stage(folder) as stage:
        stage.remove("config.json")
        stage.path("config.json/part").write_text("new")
        stage.commit()
    assert (folder / "config.json" / "part").read_text() == "new"


def test_commit_of_nothing_keeps_a_new_folder(tmp_path: Path) -> None:
    with Stage(tmp_path / "new") as stage:
        stage.commit()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_new_files(folder: Path, umask: int) -> None:
    folder.chmod(0o750)
    before = os.umask(umask)
    try:
        with Stage(folder) as stage:
            path = stage.path("model.safetensors")
            path.write_text("new")
            path.chmod(0o600)
            stage.commit()
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


@pytest.mark.parametrize("exchange", [True, False])
def test_links_are_replaced_not_followed(tmp_path: Path, exchange: bool) -> None:
    folder = crash.prepare(crash.SCENARIOS[-1], tmp_path / "cache")
    with crash.watched(lambda count, name: None, exchange=exchange):
        crash.save(crash.SCENARIOS[-1], folder)
    assert crash.read(folder) == crash.expected(crash.SCENARIOS[-1], "new")
    assert crash.blobs_intact(crash.SCENARIOS[-1], tmp_path / "cache")
    assert not any(path.is_symlink() for path in folder.iterdir())


def test_links_of_others_stay_links(folder: Path) -> None:
    (folder / "tokenizer.json").symlink_to("../nowhere/at/all")
    save_shards(folder)
    assert os.readlink(folder / "tokenizer.json") == "../nowhere/at/all"


def test_folder_behind_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with Stage(tmp_path / "link") as stage:
        write_shards(stage)
        stage.commit()
    assert (tmp_path / "link").is_symlink()
    assert content(folder) == NEW


# --- leaving without a commit


@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt, ConfigError])
def test_leaving_without_commit(folder: Path, error: type[BaseException] | None) -> None:
    stage = Stage(folder)
    if error is None:
        with stage:
            write_shards(stage)
    else:
        with pytest.raises(error) as caught, stage:
            write_shards(stage)
            raise error("mine")
        assert caught.type is error
    assert content(folder) == OLD
    assert not crash.leftovers(folder)
    with pytest.raises(SaveError, match="is over"):
        stage.path("config.json")
    with pytest.raises(SaveError, match="is over"):
        stage.commit()


def test_folders_made_for_nothing_go_again(tmp_path: Path) -> None:
    with Stage(tmp_path / "a" / "b" / "c") as stage:
        stage.path("x").write_text("x")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with Stage(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()
    with Stage(tmp_path / "used" / "too"):
        (tmp_path / "used" / "else").write_text("somebody else's")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["else"]


def test_os_error_while_writing_is_a_save_error(folder: Path) -> None:
    with pytest.raises(SaveError, match=r"cannot save to .*model: No space left on device .*as it was") as caught:
        with Stage(folder) as stage:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(stage.path("model.safetensors")))
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert caught.value.path == str(folder)
    assert caught.value.committed is False
    assert content(folder) == OLD
    assert not crash.leftovers(folder)


def test_forked_copy_leaves_the_stage_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(folder)
    write_shards(stage)
    lock = stage._lock
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(SaveError, match="belongs to another process"):
            stage.commit()
        stage.__exit__(None, None, None)
    assert stage._stage.exists()
    stage._lock = lock
    stage.commit()
    assert content(folder) == NEW


# --- what cannot be saved


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/passwd", "a/../b", "../b", "a//b", "a/", "a\\b", "C:x", "a\0b", ".pretrained-save.lock",
     ".pretrained-commit.json", ".pretrained-save-0/x"],
)  # fmt: skip
def test_names_must_stay_inside(folder: Path, name: str) -> None:
    with Stage(folder) as stage:
        with pytest.raises(UntrustedPathError, match="no plain name"):
            stage.path(name)
        with pytest.raises(UntrustedPathError, match="no plain name"):
            stage.remove(name)


def test_target_is_a_file(folder: Path) -> None:
    for target in (folder / "config.json", folder / "config.json" / "below"):
        with pytest.raises(SaveError, match=r"config\.json") as caught:
            Stage(target)
        assert isinstance(caught.value.__cause__, NotADirectoryError)
    assert content(folder) == OLD


def refuse_missing(folder: Path, stage: Stage) -> None:
    stage.path("model.safetensors")


def refuse_link(folder: Path, stage: Stage) -> None:
    stage.path("model.safetensors").symlink_to("/etc/passwd")


def refuse_folder(folder: Path, stage: Stage) -> None:
    (folder / "sub").mkdir()
    stage.path("sub").write_text("new")


def refuse_removal_of_folder(folder: Path, stage: Stage) -> None:
    (folder / "sub").mkdir()
    stage.remove("sub")


def refuse_linked_subfolder(folder: Path, stage: Stage) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "sub").symlink_to(folder.parent / "elsewhere")
    stage.path("sub/x").write_text("new")


def refuse_file_as_subfolder(folder: Path, stage: Stage) -> None:
    stage.path("README.md/x").write_text("new")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (refuse_missing, "No such file"),
        (refuse_link, "no regular file"),
        (refuse_folder, "is a folder"),
        (refuse_removal_of_folder, "is a folder"),
        (refuse_linked_subfolder, "is no folder"),
        (refuse_file_as_subfolder, "is no folder"),
    ],
)
def test_what_could_not_be_finished_is_not_begun(
    folder: Path, prepare: Callable[[Path, Stage], None], words: str
) -> None:
    with Stage(folder) as stage:
        stage.path("config.json").write_text("new")
        prepare(folder, stage)
        with pytest.raises(SaveError, match=words) as caught:
            stage.commit()
    assert caught.value.committed is False
    assert content(folder) == OLD
    assert not crash.leftovers(folder)
    assert not list(folder.parent.glob("elsewhere/*"))


def test_sticky_folder_and_no_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o1777)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(SaveError, match="sticky") as caught:
            save_shards(folder)
    assert isinstance(caught.value.__cause__, PermissionError)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(SaveError, match="Permission denied"):
            save_shards(folder)
    assert content(folder) == OLD
    assert not crash.leftovers(folder)


@pytest.mark.parametrize(
    ("count", "committed", "words"),
    [(1, None, "perhaps committed to"), (2, True, "is committed to")],
)
def test_trouble_from_the_commit_on(folder: Path, count: int, committed: bool | None, words: str) -> None:
    broken = False

    def act(number: int, name: str) -> None:
        nonlocal broken, count
        count -= name == "replace"
        broken = broken or count == 0
        if broken and name in ("replace", "open"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    message = r"new checkpoint is (perhaps )?committed to .*model, but .*Input/output error.* The next load or save"
    with crash.watched(act, exchange=False), pytest.raises(SaveError, match=message) as caught:
        save_shards(folder)
    assert words in str(caught.value)
    assert caught.value.committed is committed
    assert caught.value.path == str(folder)
    assert recover(folder) == {}
    assert content(folder) == (NEW if committed else OLD)
    assert not crash.leftovers(folder)


# --- one saver per folder

HOLD = """
import sys
from pretrained.checkpoint.commit import Stage
with Stage(sys.argv[1]) as stage:
    stage.path("config.json").write_text("theirs")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_saver(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_second_saver_is_refused(folder: Path, other_saver: subprocess.Popen[bytes]) -> None:
    with pytest.raises(CheckpointBusyError, match=r"another process or thread is saving to .*model") as caught:
        Stage(folder)
    assert caught.value.path == str(folder)
    assert recover(folder) == {}
    assert len(list(folder.glob(".pretrained-save-*/config.json"))) == 1, "the stage of a live saver stays"
    other_saver.stdin.close()
    assert other_saver.wait() == 0
    assert not crash.leftovers(folder)
    Stage(folder).__exit__(None, None, None)


@pytest.mark.parametrize("finish", [recover, lambda folder: Stage(folder).__exit__(None, None, None)])
def test_killed_saver_frees_the_folder(
    folder: Path, other_saver: subprocess.Popen[bytes], finish: Callable[[Path], object]
) -> None:
    other_saver.kill()
    other_saver.wait()
    assert len(crash.leftovers(folder)) == 2
    finish(folder)
    assert content(folder) == OLD
    assert not crash.leftovers(folder)


def test_savers_in_threads(folder: Path) -> None:
    outcomes: list[str] = []

    def run(number: int) -> None:
        try:
            with Stage(folder) as stage:
                for name in ("config.json", "model.safetensors"):
                    stage.path(name).write_text(str(number))
                stage.commit()
            outcomes.append("saved")
        except CheckpointBusyError:
            outcomes.append("busy")

    with Stage(folder):
        thread = threading.Thread(target=run, args=(0,))
        thread.start()
        thread.join()
    assert outcomes == ["busy"]
    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 9
    assert "saved" in outcomes
    assert (folder / "config.json").read_text() == (folder / "model.safetensors").read_text() != "old config.json"
    assert not crash.leftovers(folder)


def test_lock_is_free_although_a_child_has_it_open(folder: Path) -> None:
    lock = commit_lock.acquire(folder / commit_log.LOCK)
    copy = os.dup(lock._fd)  # what a fork leaves in the child
    lock.release()
    commit_lock.acquire(folder / commit_log.LOCK).release()
    os.close(copy)


def test_lock_that_vanishes_while_it_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take, calls = commit_lock._lock, []

    def steal(fd: int) -> bool:
        calls.append(fd)
        if len(calls) == 1:
            os.unlink(folder / commit_log.LOCK)
        return take(fd)

    monkeypatch.setattr(commit_lock, "_lock", steal)
    with Stage(folder):
        assert len(calls) == 2
        assert commit_lock.acquire(folder / commit_log.LOCK) is None


def test_file_system_without_locks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, swaps: list[tuple[Path, Path]]
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    foreign = folder / ".pretrained-save-abc"  # of a saver that may be alive
    foreign.mkdir()
    save_shards(folder)
    assert content(folder) == NEW
    assert crash.leftovers(folder) == [str(foreign)]
    die_at(folder, "replace", 2, save=lambda stage: stage.path("config.json").write_text("third"))
    assert recover(folder) == {}
    assert (folder / "config.json").read_text() == "third"
    assert crash.leftovers(folder) == [str(foreign)]
    assert swaps == []


# --- recovery


def test_recover_without_cause(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(os.path, "realpath", lambda path: pytest.fail("more than one listing"))
    with crash.watched(lambda count, name: seen.append(name), crash.CHANGES + crash.LOOKS):
        assert recover(folder) == {}
        assert recover(tmp_path / "nothing") == {}
        assert recover(folder / "config.json") == {}
    assert seen == ["listdir"] * 3
    assert not crash.leftovers(folder)


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_recorded_commit_is_finished(folder: Path, exchange: bool, count: int) -> None:
    die_at(folder, "replace", count, exchange=exchange)
    assert recover(str(folder)) == {}
    assert content(folder) == NEW
    assert not crash.leftovers(folder)


def test_next_save_finishes_before_it_begins(folder: Path) -> None:
    die_at(folder, "replace", 2)
    with Stage(folder) as stage:
        assert content(folder) == NEW
        stage.path("config.json").write_text("third")
        stage.commit()
    assert content(folder) == {**NEW, "config.json": "third"}


def test_unrecorded_stage_is_dropped(folder: Path) -> None:
    die_at(folder, "replace", 1)
    assert recover(folder) == {}
    assert content(folder) == OLD
    assert not crash.leftovers(folder)


def test_record_without_stage_is_finished(folder: Path) -> None:
    record = {"version": 1, "stage": ".pretrained-save-abc", "moves": ["config.json"], "removals": ["README.md"]}
    (folder / commit_log.RECORD).write_text(json.dumps(record))
    assert recover(folder) == {}
    assert content(folder) == OLD
    assert not crash.leftovers(folder)


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def open_to_read(path: object, flags: int, *rest: int) -> int:
        return refuse() if flags & (os.O_WRONLY | os.O_RDWR) else opened(path, flags, *rest)

    opened = os.open
    for name in (*crash.REMOVALS, "replace", "rename", "mkdir", "link", "chmod"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(os, "open", open_to_read)


def overlaid(folder: Path) -> dict[str, str]:
    files = {**{name: folder / name for name in content(folder)}, **recover(folder)}
    return {name: path.read_text() for name, path in files.items() if path is not None}


@pytest.mark.parametrize("has_lock", [True, False])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_overlay_where_nothing_can_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, has_lock: bool
) -> None:
    def save(stage: Stage) -> None:
        stage.remove("config.json")  # a word that is taken back
        write_shards(stage)

    die_at(folder, "replace", count, save=save)
    if not has_lock:
        (folder / commit_log.LOCK).unlink()
    before = sorted(folder.rglob("*"))
    with monkeypatch.context() as patch:
        read_only(patch)
        overlay = recover(folder)
        assert overlay["model.safetensors"] is None
        assert overlay["model-2.safetensors"].read_text() == "new model-2.safetensors"
        assert ("config.json" in overlay) == (count == 2)
        assert overlaid(folder) == NEW
        assert sorted(folder.rglob("*")) == before
    assert recover(folder) == {}
    assert content(folder) == NEW


def test_overlay_without_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_at(folder, "replace", 1)
    read_only(monkeypatch)
    assert recover(folder) == {}
    assert content(folder) == OLD


def test_overlay_while_the_screen_is_up(folder: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    die_at(folder, "replace", 3, exchange=True)
    read_only(monkeypatch)
    assert overlaid(folder) == NEW
    assert content(folder) == NEW or not exchanges


def test_recover_that_cannot_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_at(folder, "replace", 2)

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(SourceError, match=r"cannot tell whether a save to .*model was finished: Input/output"):
            recover(folder)
    assert recover(folder) == {}
    assert content(folder) == NEW


def test_recover_waits_for_a_recorded_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_at(folder, "replace", 3)
    lock = commit_lock.acquire(folder / commit_log.LOCK)
    monkeypatch.setattr(commit, "LOADER_PATIENCE", 0.0)
    with pytest.raises(CheckpointBusyError, match="does not come to an end"):
        recover(folder)
    monkeypatch.undo()
    waiting, results = threading.Event(), []
    monkeypatch.setattr(commit.time, "sleep", lambda seconds: waiting.set())
    thread = threading.Thread(target=lambda: results.append((recover(folder), content(folder))))
    thread.start()
    waiting.wait()
    assert results == []
    lock.release()
    thread.join()
    assert results == [({}, NEW)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", WeightsFormatError),
        (b"[]", WeightsFormatError),
        (b"\xff\xfe", WeightsFormatError),
        (b"[" * 100_000, WeightsFormatError),
        (b'{"version": 2}', WeightsFormatError),
        (b'{"version": 1, "stage": "x", "moves": [], "removals": []}', WeightsFormatError),
        (b'{"version": 1, "stage": ".pretrained-save-/..", "moves": [], "removals": []}', WeightsFormatError),
        (b'{"version": 1, "stage": ".pretrained-save-a", "moves": [1], "removals": []}', WeightsFormatError),
        (b'{"version": 1, "stage": ".pretrained-save-a", "moves": [], "removals": null}', WeightsFormatError),
        (b'{"version": 1, "stage": ".pretrained-save-a", "moves": []}', WeightsFormatError),
        (b'{"version": 1, "stage": ".pretrained-save-a", "moves": ["../x"], "removals": []}', UntrustedPathError),
        (b'{"version": 1, "stage": ".pretrained-save-a", "moves": [], "removals": ["/x"]}', UntrustedPathError),
    ],
)
def test_damaged_record(folder: Path, text: bytes, error: type[OSError]) -> None:
    (folder / ".pretrained-save-a").mkdir()
    (folder / ".pretrained-save-a" / "x").write_text("x")
    record = folder / commit_log.RECORD
    record.write_bytes(text)
    (folder / commit_log.LOCK).touch()
    with pytest.raises(error, match=re.escape(str(record))) as caught:
        recover(folder)
    assert caught.value.path == str(record)
    assert content(folder) == OLD
    with Stage(folder):
        pass
    assert record.exists(), "a save that does not happen does not hide the damage"
    assert [path.name for path in folder.glob(".pretrained-save-*")] == [".pretrained-save-a"]
    save_shards(folder)
    assert content(folder) == NEW
    assert not crash.leftovers(folder)


def test_record_that_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / commit_log.RECORD)
    with pytest.raises(WeightsFormatError, match="not a regular file"):
        recover(folder)


def test_record_cannot_reach_outside_through_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "x").write_text("theirs")
    stage = folder / ".pretrained-save-a"
    for moves, removals, link in ((["sub/x"], [], "sub"), ([], ["sub/x"], "sub"), (["s/x"], [], stage.name + "/s")):
        stage.mkdir()
        (stage / "sub").mkdir()
        (stage / "sub" / "x").write_text("ours")
        (folder / link).symlink_to(outside)
        record = {"version": 1, "stage": stage.name, "moves": moves, "removals": removals}
        (folder / commit_log.RECORD).write_text(json.dumps(record))
        with pytest.raises(UntrustedPathError, match="is a link"):
            recover(folder)
        assert [path.read_text() for path in outside.iterdir()] == ["theirs"]
        (folder / commit_log.RECORD).unlink()
        (folder / link).unlink()
        recover(folder)
    stage.symlink_to(outside)
    record = {"version": 1, "stage": stage.name, "moves": ["x"], "removals": []}
    (folder / commit_log.RECORD).write_text(json.dumps(record))
    with monkeypatch.context() as patch:
        read_only(patch)
        assert recover(folder) == {}
    assert recover(folder) == {}
    assert (outside / "x").read_text() == "theirs"
    assert content(folder) == OLD
