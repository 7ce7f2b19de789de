"""Where a save goes: a folder, or whatever else takes files all at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ._types import PathLike
from .checkpoint.commit import Stage
from .errors import SaveError

__all__ = ["Destination", "Folder", "Uncommitted", "destination"]


class Destination(Protocol):
    """Where a save goes: a folder, or a repository. Use as a context manager; without `commit` nothing has happened."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def present(self) -> list[str]:
        """Names of the files that are there now."""

    def path(self, name: str) -> Path:
        """Where to write a file."""

    def wrote(self, name: str) -> None:
        """Takes a file that was written to its `path`, which need not stay there."""

    def remove_stale(self, is_stale: Callable[[str], bool]) -> list[str]:
        """Drops with the commit those files of the place that are stale; returns their names, sorted."""

    def commit(self) -> Any:
        """Makes what was written the content of the place, all at once."""


class Folder:
    """A folder as a destination."""

    def __init__(self, directory: PathLike, *, durable: bool) -> None:
        self._path = Path(directory)
        if self._path.exists() and not self._path.is_dir():
            raise SaveError(f"cannot save to {self._path}: it is a file, not a folder", path=self._path)
        self._stage = Stage(directory, durable=durable)
        self.path, self.commit = self._stage.path, self._stage.commit

    def __enter__(self) -> Folder:
        self._stage.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stage.__exit__(kind, error, trace)

    @property
    def name(self) -> str:
        """Where files are written until the commit: a folder below this one."""
        return self._stage.name

    def present(self) -> list[str]:
        """Names of the files that are there now."""
        return [item.name for item in os.scandir(self._path) if not item.is_dir(follow_symlinks=False)]

    def wrote(self, name: str) -> None:
        """Nothing: the commit moves it."""

    def remove_stale(self, is_stale: Callable[[str], bool]) -> list[str]:
        """Drops with the commit those files that are stale; returns their names, sorted."""
        found = sorted(name for name in self.present() if is_stale(name))
        for name in found:
            self._stage.remove(name)
        return found


class Uncommitted:
    """A destination whose commit is somebody else's to make."""

    def __init__(self, inner: Destination) -> None:
        self._inner = inner
        self.present, self.path, self.wrote = inner.present, inner.path, inner.wrote
        self.remove_stale = inner.remove_stale

    def __enter__(self) -> Uncommitted:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing: it stays open."""

    def commit(self) -> None:
        """Nothing yet."""


def destination(place: PathLike | Destination, *, durable: bool = True) -> Destination:
    """The place itself if it is one; otherwise the folder of that path, which is made if it is not there.

    Raises:
        SaveError: it is a file, or cannot be written to. CheckpointBusyError: someone else is saving there.
        InvalidOptionError: it is a URL.
    """
    return Folder(place, durable=durable) if isinstance(place, (str, os.PathLike)) else place
