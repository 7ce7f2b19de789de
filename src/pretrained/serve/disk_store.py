"""Files of the store: contents under their sha256, documents, and both either whole or not there at all.

blobs/<xx>/<sha256>     contents, never changed
tmp/                    what is being written; emptied when a server starts
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ..checkpoint.files import open_regular
from .refusals import RefusedError

__all__ = ["Blobs", "Incoming", "sync_folder", "write_json"]

RESERVE = 512 << 20  # bytes of the disk that uploads leave free
SYNCS = 16  # files that are synced at once


class Blobs:
    """Contents by their sha256.

    Args:
        root: the store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "blobs"
        self.tmp = root / "tmp"
        self._lock = threading.Lock()

    def path(self, sha256: str) -> Path:
        """Where a content is, or would be."""
        return self.root / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Bytes of a content; None if it is not here."""
        with suppress(OSError):
            return os.stat(self.path(sha256)).st_size
        return None

    def open(self, sha256: str) -> int:
        """A descriptor of a content, for reading."""
        return open_regular(self.path(sha256))

    def incoming(self) -> Incoming:
        """A content that is about to arrive."""
        return Incoming(self)

    def require_room(self, nbytes: int) -> None:
        """Raises RefusedError where so many bytes would fill the disk."""
        if shutil.disk_usage(self.tmp).free - nbytes < RESERVE:
            raise RefusedError(507, f"There is no room for {nbytes} bytes on the server")

    def adopt(self, files: Sequence[tuple[Path, str]]) -> None:
        """Makes finished files, whose content was checked, contents of the store, safe from a loss of power.

        Args:
            files: path → sha256; what is there under that name stays, and the file goes.
        """
        with ThreadPoolExecutor(min(len(files), SYNCS) or 1) as pool:  # at once they cost the disk little more than one
            list(pool.map(_sync_file, [path for path, _ in files]))
        folders = set()
        for path, sha256 in files:
            target = self.path(sha256)
            with self._lock:
                if target.exists():
                    os.unlink(path)
                    os.utime(target)  # asked for again, so not to be swept away
                    continue
                if not target.parent.is_dir():
                    target.parent.mkdir(exist_ok=True)
                    folders.add(self.root)
                os.chmod(path, 0o444)
                os.replace(path, target)
                folders.add(target.parent)
        for folder in folders:
            sync_folder(folder)


class Incoming:
    """A content on its way into the store. Leaving without `keep` drops it.

    Attributes:
        size: bytes so far.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._path = blobs.tmp / secrets.token_hex(16)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._sha256 = hashlib.sha256()
        self._is_held = False
        self.size = 0

    def __enter__(self) -> Incoming:
        return self

    def write(self, piece: bytes | memoryview) -> None:
        """Appends to it."""
        view = memoryview(piece)
        self._sha256.update(view)
        self.size += len(view)
        while len(view):
            view = view[os.write(self._fd, view) :]

    @property
    def sha256(self) -> str:
        """Digest of what was written so far."""
        return self._sha256.hexdigest()

    def keep(self) -> str:
        """Makes it a content of the store, safe from a loss of power, and returns its sha256."""
        path, sha256 = self.hold()
        self._blobs.adopt([(path, sha256)])
        return sha256

    def hold(self) -> tuple[Path, str]:
        """Leaves the finished file to the caller, who has to give it to `Blobs.adopt` or to remove it."""
        self._close()
        self._is_held = True
        return self._path, self.sha256

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if not self._is_held:
            os.unlink(self._path)


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder safe from a loss of power, where the system can."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, value: Any) -> None:
    """Replaces a document: whoever reads it finds the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)
