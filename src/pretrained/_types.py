"""Types that every floor shares: names for plain things, and the one protocol by which floors that never meet agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

__all__ = ["CPU", "DISK", "ByteSource", "Device", "FrameworkName", "PathLike", "Piece", "Shape", "Snapshot"]

PathLike = str | os.PathLike[str]
Shape = tuple[int, ...]
FrameworkName = Literal["pt", "tf", "flax"]
Device = int | str  # a number, "cuda:0", "cpu"; "disk" for what is read only while it is used

CPU, DISK = "cpu", "disk"


class Piece(NamedTuple):
    """Bytes of a file that are wanted, and what becomes of them.

    Attributes:
        offset: where they begin.
        nbytes: how many there are.
        target: gives writable memory of that length, when their turn comes.
        done: called with that memory when it is full, in the thread that filled it.
        progress: called with the number of bytes that are there by now, counted from the first, of a piece that is
            read in one go.
    """

    offset: int
    nbytes: int
    target: Callable[[], memoryview]
    done: Callable[[memoryview], None] | None = None
    progress: Callable[[int], None] | None = None


class ByteSource(Protocol):
    """A file that is read in ranges where it lies, and that need not ever be a file on this machine."""

    @property
    def name(self) -> str:
        """What messages call it; no token and no signature is in it."""

    @property
    def size(self) -> int:
        """Bytes there are."""

    def fetch(self, pieces: Sequence[Piece], initializer: Callable[[], None] | None = None) -> None:
        """Reads all pieces, several at once and in any order.

        Args:
            pieces: what is wanted; they may not overlap.
            initializer: called once in each thread that will call `done`.

        Raises:
            HubError: the server cannot be reached, refuses, or does not serve ranges.
            CheckpointChangedError: the file is another one by now.
        """


class Snapshot(Protocol):
    """The files of one model at one moment: a folder, a single file, or a repository at one commit.

    Names are relative to the snapshot, with `/` between parts, whatever the platform.
    """

    @property
    def name(self) -> str:
        """What the user called it, for messages."""

    @property
    def commit(self) -> str | None:
        """The commit every file comes from; `None` for a folder."""

    @property
    def folder(self) -> Path | None:
        """The local folder that holds all files, if there is such a one."""

    def names(self) -> Sequence[str]:
        """Names of all files, sorted; nothing is fetched."""

    def path(self, name: str) -> Path:
        """Local path of one file, fetched first if it must be. Raises SourceError when there is none."""

    def fetch(self, names: Sequence[str]) -> None:
        """Brings these files here, several at once, so that `path` has them; nothing where they are already."""

    def source(self, name: str) -> ByteSource | None:
        """The file to be read in ranges where it lies; `None` where `path` is the way to it."""
