"""Contents that nothing refers to any more, after repositories were deleted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..checkpoint.files import read_json
from ..errors import PretrainedError
from .names import is_digest

__all__ = ["sweep"]

_LOG = logging.getLogger(__name__)
YOUNG = 24 * 3600.0  # seconds in which a content may wait for its commit
NOTED = 30 * 24 * 3600.0  # seconds that clients may remember what they have sent by Xet, and then some


def sweep(root: Path) -> int:
    """Removes contents that are in no commit, are not young, and that no client remembers; returns how many.

    Nothing goes if any commit cannot be read: what it refers to is not known then.
    """
    now = time.time()
    try:
        kept = set(_in_commits(root))
    except (PretrainedError, OSError, ValueError) as error:
        _LOG.warning("nothing is swept away: %s", error)
        return 0
    kept |= set(_noted(root, now))
    count = 0
    for path in (root / "blobs").glob("??/*"):
        with suppress(OSError):
            if is_digest(path.name) and path.name not in kept and path.stat().st_mtime < now - YOUNG:
                path.unlink()
                count += 1
    return count


def _in_commits(root: Path) -> Iterator[str]:
    for home in (root / "repos").glob("*/*/*"):
        for tree in (home / "trees").glob("*.json"):
            yield from (sha256 for _, _, _, sha256, _ in read_json(tree, max_bytes=64 << 20)["files"])


def _noted(root: Path, now: float) -> Iterator[str]:
    """Contents in which clients may still look for chunks that they have sent; older notes go."""
    for note in (root / "xet").glob("*/*.json"):
        try:
            if note.stat().st_mtime < now - NOTED:
                note.unlink()
                continue
            yield from (place[0] for place in read_json(note)["chunks"].values())
        except (PretrainedError, OSError):
            continue
