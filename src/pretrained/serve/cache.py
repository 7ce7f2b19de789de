"""A Hugging Face cache as repositories: the commits, branches and files that were downloaded into it, and no others.

models--ns--name/refs/<revision>             holds a commit
models--ns--name/snapshots/<commit>/<path>   links to ../../blobs/<etag>, or is the file itself
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from ..checkpoint.files import open_regular, safe_join
from ..errors import PretrainedError
from .digests import Digests
from .names import KINDS, is_commit, is_digest, is_path, is_repo_id
from .repository import MAIN, Commit, HubFile, Refs, Tree

__all__ = ["CacheRepository", "CacheShelf", "is_cache"]

_HOME = re.compile(r"(models|datasets|spaces)--(.+)")
_MAX_REF_FILE = 1024  # bytes
_TITLE = "As it was downloaded"
_AUTHOR = "unknown"  # a cache does not keep who made a commit
_MAX_TREES = 64  # commits whose files are remembered


def is_cache(folder: Path) -> bool:
    """Whether a folder holds repositories as huggingface_hub caches them."""
    try:
        return any(_HOME.fullmatch(name) for name in os.listdir(folder))
    except OSError:
        return False


class CacheRepository:
    """What a cache holds of one repository."""

    private = False
    gated: bool | str = False
    readers: frozenset[str] = frozenset()

    def __init__(self, kind: str, repo_id: str, home: Path, digests: Digests) -> None:
        self.kind = kind
        self.id = repo_id
        self.home = home
        self._digests = digests
        self._trees: dict[str, tuple[int, Tree]] = {}
        self._lock = threading.Lock()

    @property
    def created(self) -> float:
        """When the repository was first cached."""
        return os.stat(self.home).st_ctime

    def refs(self) -> Refs:
        """The revisions that were asked for, as far as their commits are there.

        A cache does not tell a tag from a branch. Where only a commit was downloaded, main is the newest one, since
        clients ask for main first.
        """
        names = {}
        pulls = {}
        root = self.home / "refs"
        for folder, _, files in os.walk(root):
            for file in files:
                path = Path(folder) / file
                commit = _noted(path)
                name = path.relative_to(root).as_posix()
                if commit is not None and self.has_commit(commit):
                    number = name.removeprefix("refs/pr/")
                    if number != name and number.isascii() and number.isdigit():
                        pulls[int(number)] = commit
                    else:
                        names[name] = commit
        if MAIN not in names and (newest := max(self._commits(), default=None)) is not None:
            names[MAIN] = newest[1]
        return Refs(names, {}, pulls)

    def _commits(self) -> list[tuple[float, str]]:
        """When it came and name of every commit."""
        try:
            names = [name for name in os.listdir(self.home / "snapshots") if is_commit(name)]
            return [(os.stat(self.home / "snapshots" / name).st_mtime, name) for name in names]
        except OSError:
            return []

    def has_commit(self, oid: str) -> bool:
        """Whether anything of that commit was downloaded."""
        return is_commit(oid) and (self.home / "snapshots" / oid).is_dir()

    def commit(self, oid: str) -> Commit:
        """A commit, of which a cache keeps little more than the name."""
        return Commit(oid, _TITLE, "", _AUTHOR, os.stat(self.home / "snapshots" / oid).st_mtime)

    def tree(self, oid: str) -> Tree:
        """The files of a commit that were downloaded."""
        root = self.home / "snapshots" / oid
        found = list(_paths(root))
        key = hash(tuple((name, os.lstat(root / name).st_mtime_ns) for name in found))
        with self._lock:
            known = self._trees.get(oid)
        if known is not None and known[0] == key:
            return known[1]
        files = (self._file(root, name) for name in found)
        tree = Tree([file for file in files if file is not None])
        with self._lock:
            self._trees[oid] = (key, tree)
            while len(self._trees) > _MAX_TREES:
                del self._trees[next(iter(self._trees))]
        self._digests.remember(at_once=False)
        return tree

    def _file(self, root: Path, name: str) -> HubFile | None:
        """The file as the Hub described it when it was downloaded; None if it leads elsewhere or is gone."""
        try:
            path = safe_join(root, name)
            size = os.stat(path).st_size
            etag = _etag(path, self.home)
            if etag is None:
                return self._digests.describe(name, path)[0]
        except (PretrainedError, OSError):
            return None
        return HubFile.large(name, size, etag) if is_digest(etag) else HubFile(name, size, etag)

    def open(self, oid: str, file: HubFile) -> int:
        """A descriptor of the content."""
        return open_regular(safe_join(self.home / "snapshots" / oid, file.path))


def _etag(path: Path, home: Path) -> str | None:
    """The name of the blob that a file links to; that may be a link itself, to a blob that repositories share."""
    if not path.is_symlink():
        return None
    blob = Path(os.path.normpath(path.parent / os.readlink(path)))
    is_named = blob.parent == home / "blobs" and (is_digest(blob.name) or is_commit(blob.name))
    return blob.name if is_named else None


def _noted(path: Path) -> str | None:
    """The commit that a file below refs/ holds."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_REF_FILE).decode("ascii", "replace").strip()
    except OSError:
        return None
    return text if is_commit(text) else None


def _paths(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        prefix = Path(folder).relative_to(root).as_posix()
        for file in sorted(files):
            name = file if prefix == "." else f"{prefix}/{file}"
            if is_path(name):
                yield name


class CacheShelf:
    """All repositories of a cache."""

    def __init__(self, root: Path, memory: Path | None = None) -> None:
        self.root = root
        self._digests = Digests(memory)
        self._repositories: dict[tuple[str, str], CacheRepository] = {}
        self._lock = threading.Lock()

    def find(self, kind: str, repo_id: str) -> CacheRepository | None:
        """The repository of that name, if anything of it is cached."""
        if kind not in KINDS or not is_repo_id(repo_id):
            return None
        home = self.root / f"{kind}--{repo_id.replace('/', '--')}"
        if not (home / "snapshots").is_dir():
            return None
        with self._lock:
            if (kind, repo_id) not in self._repositories:
                self._repositories[kind, repo_id] = CacheRepository(kind, repo_id, home, self._digests)
            return self._repositories[kind, repo_id]

    def listed(self, kind: str) -> Iterator[CacheRepository]:
        """All of a kind."""
        for name in sorted(os.listdir(self.root)):
            match = _HOME.fullmatch(name)
            if match is not None and match[1] == kind:
                found = self.find(kind, match[2].replace("--", "/", 1))
                if found is not None:
                    yield found

    def close(self) -> None:
        """Keeps the checksums for the next run."""
        self._digests.remember()
