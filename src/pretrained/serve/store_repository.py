"""A repository that can be written to.

state.json              branches, tags, pull requests, settings: replacing it is what makes a change happen
commits/<oid>.json      a commit, never changed
trees/<oid>.json        the files of a commit, never changed
lfs/<sha256>            empty: that content was uploaded to this repository
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..checkpoint.files import read_json
from ..errors import PretrainedError
from .digests import Stamp, stamp_of
from .disk_store import Blobs, sync_folder, write_json
from .edits import Edit, Kept, StoreTree, apply
from .names import is_commit
from .objects import EMPTY_TREE, blob_id, commit_id
from .refusals import RefusedError
from .repository import MAIN, Commit, HubFile, Refs, history

__all__ = ["State", "StoreRepository", "head_of", "missing", "move_head", "require_head"]

State = dict[str, Any]
MAX_STATE = 64 << 20  # bytes
MAX_LISTED = 64 << 20  # bytes of the list of files of a commit
_SHORT = 7  # characters of a commit's name that clients may leave it at

ATTRIBUTES = b"".join(
    b"*.%s filter=lfs diff=lfs merge=lfs -text\n" % suffix
    for suffix in b"7z arrow bin bz2 ckpt ftz gguf gz h5 joblib lz4 mlmodel model msgpack npy npz onnx ot parquet pb"
    b" pickle pkl pt pth rar safetensors tar tflite tgz wasm xz zip zst".split()
)


def head_of(state: Mapping[str, Any], ref: str) -> str:
    """The commit of a branch or of refs/pr/N. Raises RefusedError if there is no such ref."""
    if ref.startswith("refs/pr/"):
        oid = state["pulls"].get(ref.removeprefix("refs/pr/"))
    else:
        oid = state["branches"].get(ref.removeprefix("refs/heads/"))
    if oid is None:
        raise RefusedError(404, f"Invalid rev id: {ref:.100}", "RevisionNotFound")
    return str(oid)


def require_head(state: Mapping[str, Any], ref: str, parent: str | None) -> str:
    """The commit of a ref. Raises RefusedError if there is no such ref, or a client took it for another one."""
    head = head_of(state, ref)
    if parent is not None and (len(parent) < _SHORT or not head.startswith(parent)):
        raise RefusedError(412, f"{ref} is at {head} by now and not at {parent:.40}; load it and commit again")
    return head


def move_head(state: State, ref: str, oid: str) -> None:
    """Makes a ref that exists mean another commit."""
    if ref.startswith("refs/pr/"):
        state["pulls"][ref.removeprefix("refs/pr/")] = oid
    else:
        state["branches"][ref.removeprefix("refs/heads/")] = oid


def missing() -> RefusedError:
    """What is said of a repository that is gone."""
    return RefusedError(404, "Repository not found", "RepoNotFound")


class StoreRepository:
    """A repository of the store; every change is one replacement of its state.

    Args:
        kind: one of KINDS.
        repo_id: its name.
        home: its folder.
        blobs: where contents are.
    """

    def __init__(self, kind: str, repo_id: str, home: Path, blobs: Blobs) -> None:
        self.kind = kind
        self.id = repo_id
        self.home = home
        self.blobs = blobs
        self.lock = threading.RLock()  # of whoever changes it; readers do not wait for a commit that is being made
        self.is_gone = False  # deleted or moved: what has its name by now is another one
        self._reading = threading.Lock()
        self._state: tuple[Stamp, State] | None = None
        self._tree_of = lru_cache(maxsize=32)(self._read_tree)

    @property
    def state(self) -> Mapping[str, Any]:
        """Everything about it that changes, as it is now; not to be written to."""
        path = self.home / "state.json"
        with self._reading:
            try:
                stamp = stamp_of(os.stat(path))
                if self._state is None or self._state[0] != stamp:
                    self._state = (stamp, read_json(path, max_bytes=MAX_STATE))
            except OSError:
                raise missing() from None
            return self._state[1]

    @contextmanager
    def change(self) -> Iterator[State]:
        """The state to write to; it becomes the state of the repository when the block ends without an error."""
        with self.lock:
            if self.is_gone:
                raise missing()
            state = copy.deepcopy(dict(self.state))
            yield state
            write_json(self.home / "state.json", state)
            with self._reading:
                self._state = None

    @classmethod
    def create(cls, kind: str, repo_id: str, home: Path, blobs: Blobs, author: str, *, private: bool) -> None:
        """Writes a new repository, with one commit, into a folder that is not in its place yet."""
        for name in ("commits", "trees", "lfs", "discussions"):
            (home / name).mkdir(parents=True)
        with blobs.incoming() as incoming:
            incoming.write(ATTRIBUTES)
            sha256 = incoming.keep()
        repo = cls(kind, repo_id, home, blobs)
        kept = {".gitattributes": Kept(len(ATTRIBUTES), blob_id(ATTRIBUTES), sha256, False)}
        oid = repo.write_commit(kept, (), "initial commit", "", author)
        state = {
            "created": time.time(),
            "private": private,
            "gated": False,
            "branches": {MAIN: oid},
            "tags": {},
            "pulls": {},
            "discussions": {},
            "readers": {},
        }
        write_json(home / "state.json", state)

    @property
    def private(self) -> bool:
        """Whether only its owners see it."""
        return bool(self.state["private"])

    @property
    def gated(self) -> bool | str:
        """Who may read its files."""
        gated = self.state["gated"]
        return gated if isinstance(gated, str) else False

    @property
    def created(self) -> float:
        """Seconds since 1970."""
        return float(self.state["created"])

    @property
    def readers(self) -> frozenset[str]:
        """Users who may read its files though it is gated."""
        return frozenset(name for name, one in self.state["readers"].items() if one["status"] == "accepted")

    def refs(self) -> Refs:
        """Branches, tags and pull requests."""
        state = self.state
        return Refs(state["branches"], state["tags"], {int(number): oid for number, oid in state["pulls"].items()})

    def has_commit(self, oid: str) -> bool:
        """Whether there is such a commit."""
        return is_commit(oid) and (self.home / "commits" / f"{oid}.json").exists()

    def commit(self, oid: str) -> Commit:
        """One commit."""
        found = self._document(oid)
        return Commit(
            oid, found["title"], found["description"], found["author"], found["seconds"], tuple(found["parents"])
        )

    def tree(self, oid: str) -> StoreTree:
        """The files of a commit."""
        return self._tree_of(self._document(oid)["tree"])

    def _document(self, oid: str) -> dict[str, Any]:
        try:
            return read_json(self.home / "commits" / f"{oid}.json")
        except PretrainedError:
            if self.home.is_dir():
                raise
            raise missing() from None  # it was deleted meanwhile

    def _read_tree(self, tree: str) -> StoreTree:
        if tree == EMPTY_TREE:
            return StoreTree({})
        listed = read_json(self.home / "trees" / f"{tree}.json", max_bytes=MAX_LISTED)["files"]
        return StoreTree({path: Kept(size, oid, sha256, large) for path, size, oid, sha256, large in listed})

    def open(self, oid: str, file: HubFile) -> int:
        """A descriptor of a file's content."""
        return self.blobs.open(self.tree(oid).kept[file.path].sha256)

    def write_commit(
        self, kept: Mapping[str, Kept], parents: Sequence[str], title: str, description: str, author: str
    ) -> str:
        """Writes a commit, which is part of nothing until a ref means it, and returns its name."""
        tree = StoreTree(kept)
        name = tree.folders[""]
        place = self.home / "trees" / f"{name}.json"
        if name != EMPTY_TREE and not place.exists():
            files = [[path, one.size, one.oid, one.sha256, one.is_large] for path, one in sorted(kept.items())]
            write_json(place, {"files": files})
        seconds = time.time()
        oid = commit_id(name, parents, author, int(seconds), f"{title}\n\n{description}".rstrip())
        document = {
            "tree": name,
            "parents": list(parents),
            "title": title,
            "description": description,
            "author": author,
            "seconds": seconds,
        }
        write_json(self.home / "commits" / f"{oid}.json", document)
        return oid

    def add(
        self,
        head: str,
        edits: Sequence[Edit],
        title: str,
        description: str,
        author: str,
    ) -> str:
        """A commit on top of another one, which no ref means yet; returns its name.

        Raises:
            RefusedError: the edits cannot be made.
        """
        try:
            before = self.tree(head).kept
        except PretrainedError as error:
            raise RefusedError(500, f"The files of {head} cannot be read: {error}") from error
        return self.write_commit(apply(before, edits), (head,), title, description, author)

    def grant(self, sha256: str) -> None:
        """Notes that a content was uploaded to this repository, so that its commits may name it."""
        place = self.home / "lfs" / sha256
        try:
            if not place.exists():
                place.touch()
                sync_folder(place.parent)
        except FileNotFoundError:  # it was deleted while the content came
            raise missing() from None

    def holds(self, sha256: str) -> int | None:
        """Bytes of a content that was uploaded to this repository; None if it was not, whoever else has it."""
        return self.blobs.size(sha256) if (self.home / "lfs" / sha256).exists() else None

    def ancestor(self, ours: str, theirs: str) -> str | None:
        """The newest commit that both lines have."""
        seen = set()
        todo = [ours]
        while todo:
            here = todo.pop()
            if here not in seen and self.has_commit(here):
                seen.add(here)
                todo += self.commit(here).parents
        return next((commit.oid for commit in history(self, theirs) if commit.oid in seen), None)
