"""Types that every floor shares: names for plain things, and the one protocol by which floors that never meet agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["CPU", "DISK", "Device", "FrameworkName", "PathLike", "Shape", "Snapshot"]

PathLike = str | os.PathLike[str]
Shape = tuple[int, ...]
FrameworkName = Literal["pt", "tf", "flax"]
Device = int | str  # a number, "cuda:0", "cpu"; "disk" for what is read only while it is used

CPU, DISK = "cpu", "disk"


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
