"""Atomic replacement of a set of files in a folder: whoever reads it later finds the old set or the new one.

    write beside → fsync → record (the commit) → move into place → clean up

Files are written into a stage, a hidden folder inside the target. A record of what is to move and what to go is then
renamed into place: before that instant the save has not happened, after it anyone can finish it, and the next load
(`recover`) or save (`Stage`) does. A lock file tells a dead saver from a live one; it is the first thing made and the
last removed. Where possible, `commit_exchange` keeps the moves out of sight of programs that do not know the record.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from .._types import PathLike
from ..errors import (
    CheckpointBusyError,
    PretrainedError,
    SaveError,
    SourceError,
    UntrustedPathError,
    WeightsFormatError,
)
from . import commit_exchange, commit_log
from .commit_lock import FolderLock, acquire
from .commit_log import LOCK, RECORD, STAGE, Record, plain_name
from .files import require_folder

__all__ = ["Stage", "recover"]

SAVER_PATIENCE = 0.5  # seconds; a load that finishes an old commit holds the lock for less
LOADER_PATIENCE = 60.0  # seconds for a live saver to move its files, which are renames and an fsync
POLL = 0.01  # seconds
ATTEMPTS = 2  # of putting a commit in place, or of dropping one: some faults pass


class Stage:
    """One save on its way into `directory`: files are written beside, then become the checkpoint all at once.

    Use as a context manager. Leaving without `commit` drops what was written; the folder is as it was.

        with Stage(folder) as stage:
            write(stage.path("model.safetensors"))
            stage.remove("pytorch_model.bin")
            stage.commit()

    Attributes:
        directory: the target with its links resolved.
    """

    def __init__(self, directory: PathLike, *, durable: bool = True) -> None:
        """Makes `directory` if it is missing, locks it, and finishes or drops what a crash left there.

        Args:
            directory: the folder to save to.
            durable: whether the save survives a power cut too; without, it survives a killed process.

        Raises:
            CheckpointBusyError: another live process or thread is saving there.
            SaveError: the folder cannot be made or written to. InvalidOptionError: it is a URL.
        """
        require_folder(directory)
        self.directory = Path(os.path.realpath(directory))
        self._durable = durable
        self._moves: dict[str, None] = {}
        self._removals: dict[str, None] = {}
        self._made: list[Path] = []
        self._stage = self.directory / f"{STAGE}{secrets.token_hex(8)}"
        self._lock: FolderLock | None = None
        self._process = os.getpid()
        self._is_clean = False  # nothing of an earlier save is left
        self._may_be_recorded = False
        self._is_recorded = False
        try:
            self._lock = self._acquire()
            self._is_clean = self._lock.is_new
            # A damaged record stays for loaders to see until ours takes its place.
            with suppress(WeightsFormatError, UntrustedPathError):
                _settle(self.directory, durable=durable, is_sure=self._lock.sure)
                self._is_clean = True
            os.mkdir(self._stage)
        except BaseException as error:
            self._leave()
            self._translate(error)
            raise

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        self._translate(error)

    @property
    def name(self) -> str:
        """The folder inside `directory` that the files are written to, for other processes that write with this one."""
        return self._stage.name

    def path(self, name: str) -> Path:
        """Where to write the new content of `name`; its folder exists.

        Args:
            name: relative to the folder, with `/` between parts.

        Raises:
            UntrustedPathError: `name` leads out of the folder, or is one of the names that a save uses itself.
            SaveError: the save is over, or a subfolder cannot be made.
        """
        self._check_open()
        path = self._stage / plain_name(name)
        if "/" in name:
            try:
                commit_log.make_folders(path.parent, [])
            except OSError as error:
                self._fail(error)
        self._removals.pop(name, None)
        self._moves[name] = None
        return path

    def remove(self, name: str) -> None:
        """Drops the file `name` with the commit, if there is one.

        Raises:
            UntrustedPathError: `name` leads out of the folder, or is one of the names that a save uses itself.
            SaveError: the save is over.
        """
        self._check_open()
        self._removals[plain_name(name)] = None
        self._moves.pop(name, None)

    def commit(self) -> None:
        """What was written is the content of the folder from now on; the save is over.

        Raises:
            SaveError: with `committed` False, nothing happened; with `committed` True, the record stands and the next
                load or save finishes what could not be finished now; with `None`, the disk does not even tell which.
        """
        self._check_open()
        trouble: OSError | None = None
        try:
            self._record()
        except OSError as error:
            trouble = error
        except BaseException:
            self._leave()
            raise
        is_committed, left = self._leave()
        if is_committed is False:
            assert trouble is not None
            self._fail(trouble)
        if left is not None:
            found = "committed to" if is_committed else "perhaps committed to"
            raise SaveError(
                f"the new checkpoint is {found} {self.directory}, but could not be put in place: {_words(left)}. "
                "The next load or save of the folder finishes it.",
                path=self.directory,
                committed=is_committed,
            ) from left

    def _acquire(self) -> FolderLock:
        deadline = time.monotonic() + SAVER_PATIENCE
        while True:
            commit_log.make_folders(self.directory, self._made)
            # Another saver that made the folder, and gave up, may remove it again under us.
            with suppress(FileNotFoundError):
                if lock := acquire(self.directory / LOCK):
                    return lock
            if time.monotonic() > deadline:
                raise CheckpointBusyError(
                    f"another process or thread is saving to {self.directory}; wait for it, or save to another folder",
                    path=self.directory,
                )
            time.sleep(POLL)

    def _record(self) -> None:
        """Everything up to the commit, the commit itself, and the screen for what follows."""
        record = Record(self._stage.name, tuple(self._moves), tuple(self._removals))
        commit_log.check_targets(self.directory, record)
        mode = commit_log.draft(self._stage, record, durable=self._durable)
        for name in record.moves:
            commit_log.seal(self._stage / name, mode, durable=self._durable)
        if self._durable:
            for folder in (*reversed(commit_log.parents(record.moves)), "."):
                commit_log.sync(self._stage / folder)
            for path in (self.directory, *(made.parent for made in reversed(self._made))):
                commit_log.sync(path)
        self._may_be_recorded = True
        os.replace(self._stage / RECORD, self.directory / RECORD)
        self._is_recorded = True
        if self._durable:
            commit_log.sync(self.directory)
        if self._lock is not None and self._lock.sure:
            commit_exchange.raise_screen(self.directory, record, durable=self._durable)

    def _leave(self) -> tuple[bool | None, OSError | None]:
        """Finishes a recorded commit, drops any other, and frees the folder.

        Returns:
            whether the commit was recorded, `None` if that cannot be told, and what kept it from being finished.
        """
        lock, self._lock = self._lock, None
        if os.getpid() != self._process:
            return False, None  # a forked copy; the save is its parent's
        if lock is None:
            self._unmake()
            return False, None
        try:
            is_committed, trouble = self._close(lock)
        finally:
            lock.release()
        if is_committed is False:
            self._unmake()
        self._made.clear()
        return is_committed, trouble

    def _close(self, lock: FolderLock) -> tuple[bool | None, OSError | None]:
        is_committed = None if self._may_be_recorded else False
        trouble: OSError | None = None
        for _ in range(ATTEMPTS):
            try:
                if self._may_be_recorded:
                    self._is_recorded = self._is_recorded or _find_record(self.directory) is not None
                    is_committed = self._is_recorded
                else:
                    commit_log.remove_tree(self._stage)
                if self._may_be_recorded or not self._is_clean:
                    _settle(self.directory, durable=self._durable, is_sure=lock.sure)
                    self._is_clean = True
                commit_log.remove_tree(self._stage)
                lock.discard()
            except OSError as error:
                trouble = error
            else:
                return is_committed, None
        return is_committed, trouble

    def _unmake(self) -> None:
        """Folders that were made for nothing are gone again; those that somebody uses meanwhile stay."""
        while self._made:
            with suppress(OSError):
                os.rmdir(self._made.pop())

    def _check_open(self) -> None:
        if self._lock is None or os.getpid() != self._process:
            what = "belongs to another process" if self._lock else "is over"
            raise SaveError(f"this save to {self.directory} {what}; begin another", path=self.directory)

    def _translate(self, error: BaseException | None) -> None:
        if isinstance(error, OSError) and not isinstance(error, PretrainedError):
            self._fail(error)

    def _fail(self, error: OSError) -> NoReturn:
        raise SaveError(
            f"cannot save to {self.directory}: {_words(error)}. What was there is as it was.",
            path=self.directory,
            committed=False,
        ) from error


def recover(directory: PathLike) -> Mapping[str, Path | None]:
    """For loaders, before they list a folder: finishes a recorded commit, drops an abandoned stage.

    Costs one listing when there is nothing to do. The stage of a live saver is left alone; one that has recorded its
    commit is waited for.

    Args:
        directory: the folder to be loaded; no folder, and nothing happens.

    Returns:
        for a folder that cannot be written to, what its files are once the commit is finished: name to the path of the
        new content, or to `None` if the file is to be overlooked. Names that are not in it are as they are found.

    Raises:
        CheckpointBusyError: a live saver does not come to an end.
        WeightsFormatError: the record is damaged.
        UntrustedPathError: the record, or a link, leads out of the folder.
        SourceError: the record cannot be read.
    """
    try:
        if not any(map(commit_log.is_ours, os.listdir(directory))):
            return {}
    except OSError:
        return {}
    root = Path(os.path.realpath(directory))
    try:
        return _wait_and_finish(root)
    except PretrainedError:
        raise
    except OSError as error:
        raise SourceError(f"cannot tell whether a save to {root} was finished: {_words(error)}", path=root) from error


def _wait_and_finish(root: Path) -> Mapping[str, Path | None]:
    deadline = time.monotonic() + LOADER_PATIENCE
    while True:
        try:
            lock = acquire(root / LOCK)
        except OSError:
            return commit_log.pending(root)
        if lock is not None:
            return _finish(root, lock)
        if commit_log.read_record(root) is None:
            return {}
        if time.monotonic() > deadline:
            raise CheckpointBusyError(f"another process is saving to {root} and does not come to an end", path=root)
        time.sleep(POLL)


def _finish(root: Path, lock: FolderLock) -> Mapping[str, Path | None]:
    try:
        _settle(root, durable=True, is_sure=lock.sure)
        lock.discard()
    except PretrainedError:
        raise
    except OSError:
        return commit_log.pending(root)
    finally:
        lock.release()
    return {}


def _find_record(root: Path) -> tuple[Path, Record] | None:
    """The record that counts for `root`, and the folder it is in: the twin, while the screen is up."""
    if (record := commit_log.read_record(root)) is not None:
        return root, record
    twin = commit_exchange.twin_of(root)
    if commit_exchange.is_paired(root, twin) and (record := commit_log.read_record(twin)) is not None:
        return twin, record
    return None


def _settle(root: Path, *, durable: bool, is_sure: bool) -> None:
    """Finishes what is recorded and drops what is not; from any point at which a saver may have died.

    Call with the lock held. If it is not sure, stages that no record names may belong to a live saver, and stay.
    """
    twin = commit_exchange.twin_of(root)
    is_paired = commit_exchange.is_paired(root, twin)
    found = _find_record(root)
    if found is not None:
        home, record = found
        commit_log.redo(home, record)
        if home == twin:
            commit_exchange.lower_screen(root, twin)
        if durable:
            for folder in (".", *commit_log.parents(record.moves)):
                commit_log.sync(root / folder)
        if is_paired:
            if durable:
                commit_log.sync(root.parent)
            commit_exchange.drop_twin(twin, root)
    elif is_paired:
        commit_log.remove_tree(twin)
    if is_sure:
        commit_exchange.drop_orphan(twin)
    commit_log.unlink_if_there(root / RECORD)
    for name in os.listdir(root):
        if name.startswith(STAGE) and (is_sure or (found is not None and name == found[1].stage)):
            commit_log.remove_tree(root / name)


def _words(error: OSError) -> str:
    """What the system said, and of which file."""
    if error.strerror is None:
        return str(error)
    return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
