"""The store: repositories that clients create and write to, in a hidden folder below what is served.

.pretrained-hub/format      which layout this is
…/secret                    what upload addresses are signed with
…/lock                      held by the one server that may write
…/repos/<kind>/<namespace>/<name>/
…/blobs, …/tmp, …/parts, …/xet
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..checkpoint.commit_lock import FolderLock, acquire
from ..checkpoint.files import read_json
from ..errors import CheckpointBusyError, ConfigError, SourceError
from .disk_store import Blobs, sync_folder, write_json
from .names import KINDS, is_repo_id, split_id
from .refusals import RefusedError
from .store_repository import StoreRepository, missing
from .sweep import sweep

__all__ = ["STORE", "Store", "has_store"]

STORE = ".pretrained-hub"
FORMAT = 1
SECRET = 32  # bytes
STALE = 24 * 3600.0  # seconds after which a part of an upload is given up
MAX_REPOS = 10_000  # of one namespace


def has_store(root: Path) -> bool:
    """Whether there is a store below a folder."""
    return (root / STORE / "format").is_file()


class Store:
    """All repositories of a store.

    Args:
        root: the folder that is served.
        writable: whether this process may change it; makes the store if there is none.

    Attributes:
        root: the folder of the store.
        blobs: contents.
        secret: what upload addresses are signed with.
        notes: held by whoever writes a note on a xorb.

    Raises:
        CheckpointBusyError: another server writes to it.
        ConfigError: it is of another layout.
    """

    def __init__(self, root: Path, *, writable: bool) -> None:
        self.root = root / STORE
        self.blobs = Blobs(self.root)
        self._repositories: dict[tuple[str, str], StoreRepository] = {}
        self._lock = threading.RLock()
        self.notes = threading.Lock()
        self._held: FolderLock | None = None
        if writable:
            self._prepare()
        if read_json(self.root / "format").get("version") != FORMAT:
            raise ConfigError(f"{self.root} is a store of another version; this one reads {FORMAT}", path=self.root)
        self.secret = (self.root / "secret").read_bytes() if writable else b""

    def _prepare(self) -> None:
        try:
            for name in ("blobs", "tmp", "parts", "xet", "repos"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceError(f"cannot write to {self.root}: {error.strerror}", path=self.root) from error
        self._held = acquire(self.root / "lock")
        if self._held is None:
            raise CheckpointBusyError(f"another server writes to {self.root}", path=self.root)
        secret = self.root / "secret"
        if not secret.exists() or secret.stat().st_size != SECRET:
            temporary = self.root / "tmp" / "secret"
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(secrets.token_bytes(SECRET))
                file.flush()
                os.fsync(fd)
            os.replace(temporary, secret)
        if not (self.root / "format").exists():
            write_json(self.root / "format", {"version": FORMAT})
        self._tidy()
        if (self.root / "sweep").exists():
            sweep(self.root)
            (self.root / "sweep").unlink()

    def _tidy(self) -> None:
        """Drops what a server that was killed left half written; parts of uploads may yet be completed."""
        for path in (self.root / "tmp").iterdir():
            _remove(path)
        for pattern in ("repos/*/*/*/.*.json.*", "repos/*/*/*/*/.*.json.*", "xet/*/.*.json.*"):
            for path in self.root.glob(pattern):
                _remove(path)
        for folder in ("parts", "xet"):
            for path in (self.root / folder).rglob("*"):
                with suppress(OSError):
                    if path.is_file() and path.stat().st_mtime < time.time() - STALE and path.suffix != ".json":
                        path.unlink()

    def close(self) -> None:
        """Lets another server write."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def name_for(self, user: str) -> str:
        """A word that stands for this store and one user, and tells nothing about either."""
        return hmac.new(self.secret, user.encode(), hashlib.sha256).hexdigest()[:16]

    def _home(self, kind: str, repo_id: str) -> Path:
        namespace, name = split_id(repo_id)
        return self.root / "repos" / kind / namespace / name

    def find(self, kind: str, repo_id: str) -> StoreRepository | None:
        """The repository of that name."""
        if kind not in KINDS or not is_repo_id(repo_id) or "/" not in repo_id:
            return None
        home = self._home(kind, repo_id)
        with self._lock:
            if not (home / "state.json").exists():
                self._repositories.pop((kind, repo_id), None)
                return None
            if (kind, repo_id) not in self._repositories:
                self._repositories[kind, repo_id] = StoreRepository(kind, repo_id, home, self.blobs)
            return self._repositories[kind, repo_id]

    def listed(self, kind: str) -> Iterator[StoreRepository]:
        """All of a kind."""
        for state in sorted(self.root.glob(f"repos/{kind}/*/*/state.json")):
            found = self.find(kind, f"{state.parent.parent.name}/{state.parent.name}")
            if found is not None:
                yield found

    def create(self, kind: str, repo_id: str, author: str, *, private: bool) -> StoreRepository:
        """Makes a repository with one commit. Raises RefusedError if there is one, or a name too like it."""
        home = self._home(kind, repo_id)
        with self._lock:
            self._require_free(kind, repo_id)
            temporary = self.root / "tmp" / secrets.token_hex(16)
            StoreRepository.create(kind, repo_id, temporary, self.blobs, author, private=private)
            home.parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, home)
            sync_folder(home.parent)
        found = self.find(kind, repo_id)
        assert found is not None
        return found

    def _require_free(self, kind: str, repo_id: str) -> None:
        namespace, name = split_id(repo_id)
        folder = self.root / "repos" / kind / namespace
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        if any(other.lower() == name.lower() for other in names):
            raise RefusedError(409, f"You already created this {kind.removesuffix('s')} repo: {repo_id}")
        if len(names) >= MAX_REPOS:
            raise RefusedError(403, f"{namespace} has {len(names)} repositories; that is as many as there may be")

    def delete(self, repo: StoreRepository) -> None:
        """Removes a repository; contents that no other one has go when the next server starts."""
        with self._lock, repo.lock:
            temporary = self.root / "tmp" / secrets.token_hex(16)
            if repo.is_gone:
                raise missing()
            os.rename(repo.home, temporary)
            repo.is_gone = True
            self._repositories.pop((repo.kind, repo.id), None)
            sync_folder(repo.home.parent)
        _remove(temporary)
        self.sweep_later()

    def sweep_later(self) -> None:
        """Notes that there may be contents which no commit has; they go when the next server starts."""
        (self.root / "sweep").touch()

    def move(self, repo: StoreRepository, repo_id: str) -> None:
        """Gives a repository another name. Raises RefusedError if that is taken."""
        home = self._home(repo.kind, repo_id)
        with self._lock, repo.lock:
            if repo.is_gone:
                raise missing()
            self._require_free(repo.kind, repo_id)
            home.parent.mkdir(parents=True, exist_ok=True)
            os.rename(repo.home, home)
            repo.is_gone = True
            self._repositories.pop((repo.kind, repo.id), None)
            sync_folder(repo.home.parent)
            sync_folder(home.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()
