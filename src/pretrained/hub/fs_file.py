"""A file of an fsspec file system, read in ranges: through a signed URL where there are such, otherwise as it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._types import Piece
from ..errors import CheckpointChangedError, HubError, PretrainedError, SourceError
from .connections import TransportError
from .ranges import Levels, fetch

__all__ = ["FsFile", "fs_error"]


class FsFile:
    """A file that only its file system can read.

    Args:
        fs: the file system. path: the file in it.
        name: what messages call the file. size: bytes there are.
    """

    level = 0

    def __init__(self, fs: Any, path: str, *, name: str, size: int) -> None:
        self.name, self.size = name, size
        self._fs, self._path = fs, path

    def __repr__(self) -> str:
        return f"FsFile({self.name!r})"

    def fetch(self, pieces: Sequence[Piece], initializer: Callable[[], None] | None = None) -> None:
        """Reads all pieces; see ByteSource."""
        fetch(self, pieces, initializer=initializer, levels=self.levels)

    @property
    def levels(self) -> Levels:
        """Where the number of connections that did best is kept."""
        return self

    def whole(self) -> FsFile:
        """The file itself: every file system has ranges."""
        return self

    def open(self, start: int, stop: int) -> _Bytes:
        """The bytes from `start` to `stop`, all of them.

        Raises:
            TransportError: another try may help. HubError: the file system refuses.
            CheckpointChangedError: there are fewer bytes than there were.
        """
        try:
            content = self._fs.cat_file(self._path, start=start, end=stop)
        except FileNotFoundError:
            raise CheckpointChangedError(f"{self.name} is gone; load it again", path=self.name) from None
        except PermissionError as error:
            raise fs_error(self.name, error) from None
        except OSError as error:
            raise TransportError(_words(error)) from None
        except Exception as error:  # noqa: BLE001  # file systems have errors of their own
            raise fs_error(self.name, error) from None
        if len(content) != stop - start:
            raise CheckpointChangedError(f"{self.name} ends before byte {stop}; load it again", path=self.name)
        return _Bytes(content)


class _Bytes:
    """Bytes that are here, read as if they came."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    def readinto(self, target: memoryview) -> int:
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._rest = self._rest[:0]

    def abort(self) -> None:
        """Nothing: there is nothing to wait for."""


def fs_error(name: str, error: Exception) -> PretrainedError:
    """Our error for a file system's; its text can hold credentials and signed URLs, so only its class is shown."""
    if isinstance(error, FileNotFoundError):
        return SourceError(f"there is no {name}", path=name)
    return HubError(f"cannot read {name}: {_words(error)}", path=name)


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
