"""What a commit does to the files of the one before it, and how two lines of commits become one."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .objects import pointer_id
from .refusals import RefusedError
from .repository import HubFile, Tree

__all__ = ["Edit", "Kept", "StoreTree", "apply", "conflicts", "merged"]

MAX_FILES = 50_000  # of one commit
_AFTER_SLASH = chr(ord("/") + 1)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of a commit in the store.

    Attributes:
        size: bytes.
        oid: git's name of the content, or of its pointer.
        sha256: under which the content is kept.
        is_large: whether it is a large file.
    """

    size: int
    oid: str
    sha256: str
    is_large: bool

    @classmethod
    def large(cls, size: int, sha256: str) -> Kept:
        """A file that git knows by its pointer."""
        return cls(size, pointer_id(sha256, size), sha256, True)


class StoreTree(Tree):
    """The files of a commit in the store.

    Attributes:
        kept: path → where its content is.
    """

    def __init__(self, kept: Mapping[str, Kept]) -> None:
        self.kept = kept
        super().__init__(
            [HubFile(path, one.size, one.oid, one.sha256 if one.is_large else None) for path, one in kept.items()]
        )


@dataclass(frozen=True)
class Edit:
    """One change: a file that is there from now on, or, without `kept`, a file or folder that goes."""

    path: str
    kept: Kept | None = None
    is_folder: bool = False


def apply(before: Mapping[str, Kept], edits: Sequence[Edit]) -> dict[str, Kept]:
    """The files after a commit. Raises RefusedError for what cannot be."""
    after = dict(before)
    # What is in a folder is found by halving: a commit may delete as many folders as there are files to look through.
    names = sorted(before) if any(edit.is_folder for edit in edits) else None
    for edit in edits:
        if edit.kept is not None:
            if names is not None and edit.path not in after:
                insort(names, edit.path)
            after[edit.path] = edit.kept
        elif edit.is_folder and names is not None:
            first, end = bisect_left(names, f"{edit.path}/"), bisect_left(names, f"{edit.path}{_AFTER_SLASH}")
            inside = {path for path in names[first:end] if path in after}  # some were deleted, or came twice
            del names[first:end]
            if not inside:
                raise RefusedError(404, f"No folder {edit.path!r:.200} to delete", "EntryNotFound")
            for path in inside:
                del after[path]
        elif edit.path not in after:
            raise RefusedError(404, f"No file {edit.path!r:.200} to delete", "EntryNotFound")
        else:
            del after[edit.path]
    if len(after) > MAX_FILES:
        raise RefusedError(413, f"A commit may have {MAX_FILES} files; this one would have {len(after)}")
    folders = {path[:at] for path in after for at, letter in enumerate(path) if letter == "/"}
    if both := sorted(folders & after.keys()):
        raise RefusedError(400, f"{both[0]!r:.200} would be a file and a folder")
    return after


def conflicts(base: Mapping[str, Kept], ours: Mapping[str, Kept], theirs: Mapping[str, Kept]) -> list[str]:
    """Paths that both lines changed since they parted, and differently."""
    return [
        path
        for path in sorted({*base, *ours, *theirs})
        if ours.get(path) != theirs.get(path)
        and base.get(path) != ours.get(path)
        and base.get(path) != theirs.get(path)
    ]


def merged(base: Mapping[str, Kept], ours: Mapping[str, Kept], theirs: Mapping[str, Kept]) -> dict[str, Kept]:
    """The files with the changes of both lines. Raises RefusedError if they do not go together."""
    if wrong := conflicts(base, ours, theirs):
        raise RefusedError(409, f"Both sides changed {', '.join(wrong)[:400]}")
    changed = [path for path in {*base, *theirs} if base.get(path) != theirs.get(path)]
    return apply(ours, [Edit(path, theirs.get(path)) for path in sorted(changed) if path in theirs or path in ours])
