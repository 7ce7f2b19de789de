"""What every kind of repository can be asked: refs, commits, the files of a commit, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from .names import is_commit
from .objects import pointer_id, tree_ids

__all__ = ["MAIN", "Commit", "HubFile", "Refs", "Repository", "Shelf", "Tree", "history", "last_commits", "resolve"]

MAIN = "main"
MAX_WALK = 200  # commits looked through for the last one that changed a file


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit.

    Attributes:
        path: relative to the repository.
        size: bytes.
        oid: git's name of the content, or of the pointer to it if it is a large file.
        sha256: of the content, for a large file; None for a small one.
    """

    path: str
    size: int
    oid: str
    sha256: str | None = None

    @classmethod
    def large(cls, path: str, size: int, sha256: str) -> HubFile:
        """A file that git knows by its pointer."""
        return cls(path, size, pointer_id(sha256, size), sha256)

    @property
    def etag(self) -> str:
        """What a client's cache calls the content."""
        return self.sha256 or self.oid


class Tree:
    """The files of a commit, by path.

    Attributes:
        files: path → file, sorted.
    """

    def __init__(self, files: Sequence[HubFile]) -> None:
        self.files: Mapping[str, HubFile] = {file.path: file for file in sorted(files, key=lambda file: file.path)}

    @cached_property
    def folders(self) -> Mapping[str, str]:
        """Path of every folder → git's name of it; "" is the repository."""
        return tree_ids({path: file.oid for path, file in self.files.items()})

    def listed(self, folder: str, *, recursive: bool) -> list[HubFile | tuple[str, str]] | None:
        """Files, and folders as (path, git's name), below `folder`, sorted by path; None if there is no such folder."""
        if folder not in self.folders:
            return None
        prefix = f"{folder}/" if folder else ""
        found: dict[str, HubFile | tuple[str, str]] = {}
        for path, oid in self.folders.items():
            if path and path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :]):
                found[path] = (path, oid)
        for path, file in self.files.items():
            if path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :]):
                found[path] = file
        return [found[path] for path in sorted(found)]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class Commit:
    """A commit; `seconds` since 1970."""

    oid: str
    title: str
    description: str
    author: str
    seconds: float
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refs:
    """Names of commits. `pulls` has the number of a pull request as its key."""

    branches: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    pulls: Mapping[int, str] = field(default_factory=dict)


class Repository(Protocol):
    """A model, a data set or a space, and what it holds."""

    @property
    def kind(self) -> str:
        """One of KINDS."""

    @property
    def id(self) -> str:
        """`name` or `namespace/name`."""

    @property
    def private(self) -> bool:
        """Whether only its owners see it."""

    @property
    def gated(self) -> bool | str:
        """False, "auto" or "manual": who may read its files."""

    @property
    def readers(self) -> frozenset[str]:
        """Users who may read its files though it is gated."""

    @property
    def created(self) -> float:
        """Seconds since 1970."""

    def refs(self) -> Refs:
        """Branches, tags and pull requests as they are now."""

    def has_commit(self, oid: str) -> bool:
        """Whether there is such a commit."""

    def commit(self, oid: str) -> Commit:
        """One commit that `has_commit`."""

    def tree(self, oid: str) -> Tree:
        """The files of a commit that `has_commit`."""

    def open(self, oid: str, file: HubFile) -> int:
        """A descriptor of a file's content, for reading; the caller closes it. Raises OSError if it is gone."""


class Shelf(Protocol):
    """A place where repositories are."""

    def find(self, kind: str, repo_id: str) -> Repository | None:
        """The repository of that name, if it is here."""

    def listed(self, kind: str) -> Iterator[Repository]:
        """All of a kind."""

    def close(self) -> None:
        """Ends the use of it."""


def resolve(repo: Repository, revision: str) -> str | None:
    """The commit that a branch, a tag, a commit or a full ref means; None if nothing is called so."""
    refs = repo.refs()
    if revision in refs.branches:
        return refs.branches[revision]
    if revision in refs.tags:
        return refs.tags[revision]
    if revision.startswith("refs/heads/"):
        return refs.branches.get(revision.removeprefix("refs/heads/"))
    if revision.startswith("refs/tags/"):
        return refs.tags.get(revision.removeprefix("refs/tags/"))
    if revision.startswith("refs/pr/"):
        number = revision.removeprefix("refs/pr/")
        return refs.pulls.get(int(number)) if number.isascii() and number.isdigit() and len(number) < 10 else None
    return revision if is_commit(revision) and repo.has_commit(revision) else None


def history(repo: Repository, oid: str) -> Iterator[Commit]:
    """A commit and those before it, newest first, along first parents."""
    here: str | None = oid
    while here is not None:
        commit = repo.commit(here)
        yield commit
        here = next((parent for parent in commit.parents if repo.has_commit(parent)), None)


def last_commits(repo: Repository, oid: str, paths: Sequence[str]) -> dict[str, Commit]:
    """Path of a file or folder → the commit that last changed it, looked for in the last 200 commits."""
    found: dict[str, Commit] = {}
    wanted = set(paths)
    child: Commit | None = None
    child_names: dict[str, str] = {}
    for _, commit in zip(range(MAX_WALK), history(repo, oid), strict=False):
        tree = repo.tree(commit.oid)
        names = {**tree.folders, **{path: file.oid for path, file in tree.files.items()}}
        if child is not None:
            for path in [path for path in wanted if names.get(path) != child_names.get(path)]:
                found[path] = child
                wanted.discard(path)
        if not wanted:
            return found
        child, child_names = commit, names
    if child is not None:
        found |= dict.fromkeys(wanted, child)
    return found
