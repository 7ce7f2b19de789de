"""Snapshots: the files of a model at one moment, wherever they are."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from .._types import ByteSource
from ..errors import SourceError, UntrustedPathError

__all__ = ["FolderSnapshot", "LazySnapshot", "Stash", "Store", "check_relative", "listed"]

_MAX_FILES = 100_000
_SAVES_OWN = ".pretrained-"  # files by which a save finds its way after a crash; never part of a checkpoint
_MAX_NAME = 1024  # characters


def check_relative(value: str, key: str) -> None:
    """Raises UntrustedPathError unless `value`, the option called `key`, stays under whatever it is joined to."""
    parts = value.replace("\\", "/").split("/")
    bad = any(part in ("", ".", "..") for part in parts) or ":" in value
    if bad or not value.isprintable() or len(value) > _MAX_NAME:
        raise UntrustedPathError(
            f"{key} {value!r:.200} must be plain words with / between them", key=key, path=value[:_MAX_NAME]
        )


def listed(folder: Path) -> list[str]:
    """Names in a folder, sorted; none where it may not be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


class FolderSnapshot:
    """A folder on this machine; the files in it now.

    Args:
        root: the folder.
        name: what the user called it.
        commit: set when the folder is a repository's cache at one commit.
        only: where the user named one weight file, the names that may be seen beside config files.
        check: called with the path of each file before it is first given out; raises if something is wrong with it.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        commit: str | None = None,
        only: str | None = None,
        check: Callable[[Path], None] | None = None,
    ) -> None:
        self.root = root
        self._check = check
        self._checked: set[str] = set()
        self.name = name
        self.commit = commit
        self.only = only

    @property
    def folder(self) -> Path:
        """The local folder itself."""
        return self.root

    def names(self) -> list[str]:
        """Names of the files in the folder itself, sorted; folders below are not searched."""
        try:
            with os.scandir(self.root) as items:
                found = sorted(
                    item.name for item in items if not item.name.startswith(_SAVES_OWN) and not os.path.isdir(item.path)
                )
        except OSError as error:
            raise SourceError(f"cannot list {self.root}: {error.strerror}", path=self.root) from error
        if len(found) > _MAX_FILES:
            raise SourceError(f"{self.root} holds {len(found)} files; that is no checkpoint", path=self.root)
        return found

    def path(self, name: str) -> Path:
        """Path of one file; it need not exist."""
        path = self.root / name
        if self._check is not None and name not in self._checked:
            self._check(path)
            self._checked.add(name)
        return path

    def fetch(self, names: Iterable[str]) -> None:
        """Nothing: they are here."""

    def source(self, name: str) -> None:
        """None: `path` is the way to every file."""

    def __repr__(self) -> str:
        return f"FolderSnapshot({str(self.root)!r})"


class Store(Protocol):
    """Where the files of a lazy snapshot are."""

    def path(self, name: str) -> Path:
        """Local path of a file, fetched now if it must be."""

    def fetch(self, names: Iterable[str]) -> None:
        """Brings files here, several at once."""

    def source(self, name: str) -> ByteSource | None:
        """What reads the file where it lies, if it is to be streamed."""


class LazySnapshot:
    """Files elsewhere, at one commit if they have one, that are fetched when their path is first asked for.

    Args:
        name: what the user called it.
        commit: the commit; None where there are none.
        files: names there are, relative to the subfolder → names in the store.
        store: gives the files.
        only: where the user named one weight file, its name.
    """

    def __init__(
        self, name: str, commit: str | None, files: Mapping[str, str], store: Store, only: str | None = None
    ) -> None:
        self.name = name
        self.commit = commit
        self.only = only
        self._files = files
        self._store = store
        self._fetched: dict[str, Path] = {}

    @property
    def folder(self) -> None:
        """There is no one folder: files are where the cache puts them."""
        return None

    def names(self) -> Sequence[str]:
        """Names of all files, sorted; nothing is fetched."""
        return sorted(self._files)

    def path(self, name: str) -> Path:
        """Local path of one file, fetched now if it is not in the cache."""
        stored = self._stored(name)
        if name not in self._fetched:
            self._fetched[name] = self._store.path(stored)
        return self._fetched[name]

    def fetch(self, names: Iterable[str]) -> None:
        """Brings files here, several at once."""
        self._store.fetch([self._stored(name) for name in names if name not in self._fetched])

    def source(self, name: str) -> ByteSource | None:
        """The file to be read in ranges, if it is to be streamed."""
        return self._store.source(self._stored(name))

    def _stored(self, name: str) -> str:
        if name not in self._files:
            at = f"@{self.commit[:8]}" if self.commit else ""
            raise SourceError(f"no {name} in {self.name}{at}", path=name)
        return self._files[name]

    def __repr__(self) -> str:
        return f"LazySnapshot({self.name!r}, {self.commit!r})"


class Stash:
    """A private folder for the few small files of a stream; it goes when nobody holds the stash any more."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._lock = threading.Lock()
        self._paths: dict[str, Path] = {}

    def path(self, name: str, fetch: Callable[[Path], None]) -> Path:
        """Where the file is; `fetch` puts it there the first time."""
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.mkdtemp(prefix="pretrained-")
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            if name not in self._paths:
                # A folder each: what is called the same in two folders is two files.
                target = Path(self._folder, str(len(self._paths)), name.rpartition("/")[2])
                target.parent.mkdir()
                fetch(target)
                self._paths[name] = target
            return self._paths[name]
