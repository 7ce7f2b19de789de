"""Snapshots: the files of a model at one moment, wherever they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import SourceError, UntrustedPathError

__all__ = ["FolderSnapshot", "LazySnapshot", "check_relative"]

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


class FolderSnapshot:
    """A folder on this machine; the files in it now.

    Args:
        root: the folder.
        name: what the user called it.
        commit: set when the folder is a repository's cache at one commit.
        only: where the user named one weight file, the names that may be seen beside config files.
    """

    def __init__(self, root: Path, name: str, commit: str | None = None, only: str | None = None) -> None:
        self.root = root
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
        return self.root / name

    def __repr__(self) -> str:
        return f"FolderSnapshot({str(self.root)!r})"


class LazySnapshot:
    """A repository at one commit, whose files are fetched when their path is first asked for.

    Args:
        name: the repository.
        commit: the commit.
        files: names there are, relative to the subfolder → names in the repository.
        fetch: name in the repository → local path.
    """

    def __init__(self, name: str, commit: str, files: Mapping[str, str], fetch: Callable[[str], Path]) -> None:
        self.name = name
        self.commit = commit
        self._files = dict(files)
        self._fetch = fetch
        self._fetched: dict[str, Path] = {}

    @property
    def folder(self) -> None:
        """There is no one folder: files are where the cache puts them."""
        return None

    def names(self) -> list[str]:
        """Names of all files, sorted; nothing is fetched."""
        return sorted(self._files)

    def path(self, name: str) -> Path:
        """Local path of one file, fetched now if it is not in the cache."""
        if name not in self._files:
            raise SourceError(f"no {name} in {self.name}@{self.commit[:8]}", path=name)
        if name not in self._fetched:
            self._fetched[name] = self._fetch(self._files[name])
        return self._fetched[name]

    def __repr__(self) -> str:
        return f"LazySnapshot({self.name!r}, {self.commit!r})"
