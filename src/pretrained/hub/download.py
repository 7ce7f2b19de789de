"""Downloads: by several connections, resumed by whichever process comes next, checked once, then put in place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import IntegrityError, PretrainedError, ResourceLimitError, SourceError
from .fs_file import FsFile
from .http_file import CutOffError, HttpFile, NoRangesError
from .part import Part, sweep
from .ranges import fetch

__all__ = ["cannot_write", "download"]

_BAR_FROM = 1 << 20  # bytes; less is done before a bar could be read
_TRIES = 3  # of a whole file, of a server without ranges
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def download(
    source: HttpFile | FsFile, target: Path, *, digest: str | None, lock: Path | None = None, overwrite: bool = False
) -> None:
    """Fetches a file into `target`, unless that is there by the time it is this process's turn.

    Args:
        source: where it is.
        target: where it goes; its folder is made.
        digest: sha256 or git's hash of its content, which is compared; None compares nothing.
        lock: held meanwhile, so that of several processes one fetches. Where locks do not work, all of them do.
        overwrite: fetches it even if it is there.

    Raises:
        IntegrityError: the bytes are not the recorded ones; nothing of them is kept.
        ResourceLimitError: the disk is full. SourceError: it cannot be written to.
        HubError, CheckpointChangedError: as `ByteSource.fetch`.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(lock):
            if target.exists() and not overwrite:
                return
            sweep(target.parent)
            if not _attempt(source, target, digest, may_repeat=True):
                _attempt(source, target, digest, may_repeat=False)
    except OSError as error:
        if isinstance(error, PretrainedError):
            raise
        raise cannot_write(target.parent, error) from error


@contextlib.contextmanager
def _locked(lock: Path | None) -> Iterator[None]:
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    if lock is None:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        yield


def _attempt(source: HttpFile | FsFile, target: Path, digest: str | None, *, may_repeat: bool) -> bool:
    """Whether the file is there now. With `may_repeat`, False where what an earlier process left was to blame."""
    with Part(target, source.size) as part:
        _require_room(target, source.size - part.num_there)
        got = _fill(source, part, digest)
        if digest is None or got == digest:
            part.finish()
            return True
        was_resumed = part.was_resumed
        part.drop()
    if may_repeat and was_resumed:
        return False
    raise IntegrityError(
        f"{source.name}: what was sent has the checksum {str(got)[:16]}… and should have {digest[:16]}…. It was "
        "removed; run this again, and if it stays so, the server or something on the way is at fault",
        path=source.name,
        expected=digest,
        got=got,
    )


def _fill(source: HttpFile | FsFile, part: Part, digest: str | None) -> str | None:
    """Fetches what is missing; returns the digest of it all, which a thread takes meanwhile."""
    found: list[str | None] = []
    failed: list[OSError] = []
    is_over = threading.Event()

    def follow() -> None:
        try:
            found.append(part.digest(digest or "", is_over.is_set))
        except OSError as error:
            failed.append(error)

    follower = threading.Thread(target=follow, name="pretrained-digest", daemon=True)
    if digest is not None:
        follower.start()
    try:
        with _bar(source.name, source.size, part.num_there) as count:
            _fetch(source, part, count)
    except BaseException:
        is_over.set()
        raise
    finally:
        if digest is not None:
            follower.join()
    if failed:
        raise failed[0]
    return found[0] if found else None


def _fetch(source: HttpFile | FsFile, part: Part, count: Callable[[int], None]) -> None:
    levels = source.levels
    try:
        fetch(source, part.pieces(), levels=levels, count=count)
    except NoRangesError:
        for attempt in range(_TRIES):
            part.restart()
            try:
                return fetch(source.whole(), part.pieces(), count=count, in_one=True)
            except CutOffError:
                if attempt == _TRIES - 1:
                    raise


def _require_room(target: Path, nbytes: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < nbytes:
        reason = f"{nbytes:,} bytes are to come, and the disk has room for {free:,}"
        raise ResourceLimitError(
            f"{target.parent}: {reason}. Make some, pass another cache_dir=, or stream=True, which needs none",
            path=target.parent,
            reason=reason,
            limit=free,
        )


def cannot_write(folder: Path, error: OSError) -> PretrainedError:
    """Our error for the system's, about writing below `folder`."""
    reason = f"cannot be written to: {error.strerror or type(error).__name__}"
    hint = "Pass another cache_dir=, or stream=True, which writes nothing"
    kind = ResourceLimitError if error.errno in _FULL else SourceError
    return kind(f"{folder} {reason}. {hint}", path=folder, reason=reason)


@contextlib.contextmanager
def _bar(name: str, size: int, there: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, if huggingface_hub's are on; yields what counts the bytes done."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    if size < _BAR_FROM:
        yield lambda count: None
        return
    lock = threading.Lock()
    bar: Any = tqdm(  # type: ignore[no-untyped-call]
        total=size, initial=there, unit="B", unit_scale=True, desc=os.path.basename(name), disable=None, leave=True
    )

    def add(count: int) -> None:
        with lock:
            bar.update(count)

    with bar:
        yield add
