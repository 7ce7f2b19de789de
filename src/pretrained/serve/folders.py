"""A folder of saved models as repositories: `name` or `organisation/name`, each at the one commit that its files make.

Nothing is written. The commit is named after the content, so the same files have the same commit wherever and whenever
they are served; when a file changes, main is another commit and the old one is gone.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.files import open_regular, safe_join
from ..checkpoint.find import settle
from ..errors import PretrainedError
from ..hub.snapshot import FolderSnapshot
from .digests import Digests, Stamp, stamp_of
from .names import is_path, is_repo_id, split_id
from .objects import commit_id
from .refusals import RefusedError
from .repository import MAIN, Commit, HubFile, Refs, Tree

__all__ = ["FolderRepository", "FolderShelf"]

_LOG = logging.getLogger(__name__)
_MAX_FILES = 20_000
_MAX_DEPTH = 8
PATIENCE = 5.0  # seconds to wait for somebody else who reads the same files
_KEPT_DOTS = frozenset({".gitattributes", ".gitignore"})  # any other hidden file is nobody's business
_MODEL_FILE = re.compile(
    r"(config|adapter_config|generation_config|tokenizer|tokenizer_config|preprocessor_config|model_index)\.json"
    r"|[^.].*\.(safetensors|bin|gguf|h5|msgpack|pt|pth|onnx)|.+\.safetensors\.index\.json|.+\.ckpt\.index"
)
_TITLE = "The files of the folder"
_AUTHOR = "pretrained"


@dataclass(frozen=True)
class _Scan:
    """What was found in a folder at one moment."""

    oid: str
    tree: Tree
    places: dict[str, tuple[Path, Stamp]]
    seconds: float


class FolderRepository:
    """One folder, which is a model. Its files may change at any time; what is served is of one moment all the same."""

    kind = "models"
    private = False
    gated: bool | str = False
    readers: frozenset[str] = frozenset()

    def __init__(self, repo_id: str, root: Path, digests: Digests) -> None:
        self.id = repo_id
        self.root = root
        self._digests = digests
        self._lock = threading.Lock()
        self._scan: _Scan | None = None

    @property
    def created(self) -> float:
        """When its newest file was written: a folder does not tell more."""
        return self.scan().seconds

    def scan(self, progress: Callable[[int], None] | None = None) -> _Scan:
        """What the folder holds now; content is read only where it changed.

        Raises:
            RefusedError: it cannot be read, or somebody else is reading it and that takes long.
        """
        if not self._lock.acquire(timeout=PATIENCE):
            # Whoever waits keeps a thread from those who ask for other models.
            raise RefusedError(503, f"The files of {self.id} are being read", headers={"Retry-After": "10"})
        try:
            return self._scanned(progress)
        finally:
            self._lock.release()

    def _scanned(self, progress: Callable[[int], None] | None) -> _Scan:
        try:
            places = dict(_files(self.root))
        except (PretrainedError, OSError) as error:
            reason = f"The files of {self.id} cannot be read now: {error}"
            raise RefusedError(503, reason, headers={"Retry-After": "10"}) from error
        last = self._scan
        if last is not None and {name: stamp for name, (_, stamp) in last.places.items()} == _stamps(places):
            return last
        files, found, seconds = [], {}, 0.0
        for name, path in places.items():
            try:
                file, stamp = self._digests.describe(name, path, progress)
            except OSError as error:  # gone since it was listed, or not ours to read
                _LOG.warning("%s: %s is left out: %s", self.id, name, error)
                continue
            files.append(file)
            found[name] = (path, stamp)
            seconds = max(seconds, stamp.modified / 1e9)
        tree = Tree(files)
        oid = commit_id(tree.folders[""], (), _AUTHOR, 0, _TITLE)
        self._scan = _Scan(oid, tree, found, seconds)
        self._digests.remember(at_once=False)
        return self._scan

    def unread(self) -> int:
        """Bytes that the next scan has to read."""
        paths = [path for _, path in _files(self.root)]
        return sum(os.stat(path).st_size for path in paths if not self._digests.knows(path))

    def refs(self) -> Refs:
        """One branch."""
        return Refs({MAIN: self.scan().oid})

    def has_commit(self, oid: str) -> bool:
        """Whether the files are those of that commit."""
        scan = self._scan
        return (scan is not None and scan.oid == oid) or self.scan().oid == oid

    def commit(self, oid: str) -> Commit:
        """The commit that stands for the files."""
        scan = self._of(oid)
        return Commit(oid, _TITLE, "", _AUTHOR, scan.seconds)

    def tree(self, oid: str) -> Tree:
        """The files."""
        return self._of(oid).tree

    def _of(self, oid: str) -> _Scan:
        scan = self._scan
        if scan is None or scan.oid != oid:
            scan = self.scan()
        if scan.oid != oid:
            raise RefusedError(404, f"The files of {oid} are not here any more", "RevisionNotFound")
        return scan

    def open(self, oid: str, file: HubFile) -> int:
        """A descriptor of the content; FileNotFoundError if the file is another one by now."""
        path, stamp = self._of(oid).places[file.path]
        fd = open_regular(path)
        if stamp_of(os.fstat(fd)) != stamp:
            os.close(fd)
            raise FileNotFoundError(f"{file.path} of {self.id} has changed")
        return fd


def _stamps(places: dict[str, Path]) -> dict[str, Stamp]:
    found = {}
    for name, path in places.items():
        try:
            found[name] = stamp_of(os.stat(path))
        except OSError:
            continue
    return found


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of every file that is served; in the folder itself as a save leaves it, if one was interrupted."""
    snapshot = settle(FolderSnapshot(root, root.name))
    for name in snapshot.names():
        if _is_shown(name) and _stays(root, name):
            yield name, snapshot.path(name)
    for count, (name, path) in enumerate(_below(root, "", 1)):
        if count >= _MAX_FILES:
            _LOG.warning("%s: more than %d files; the rest is left out", root, _MAX_FILES)
            return
        yield name, path


def _below(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, Path]]:
    """Files of the folders in `folder`; links to folders are not followed."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            if depth < _MAX_DEPTH and not entry.name.startswith("."):
                yield from _below(folder / entry.name, f"{name}/", depth + 1)
        elif prefix and _is_shown(name) and entry.is_file() and _stays(folder, entry.name):
            yield name, folder / entry.name


def _is_shown(name: str) -> bool:
    last = name.rpartition("/")[2]
    return is_path(name) and (not last.startswith(".") or last in _KEPT_DOTS)


def _stays(root: Path, name: str) -> bool:
    """Whether a file is no link out of its folder."""
    try:
        return safe_join(root, name).is_file()
    except PretrainedError as error:
        _LOG.warning("%s is left out: %s", root / name, error)
        return False


class FolderShelf:
    """The models below a folder, or the folder itself if it is a model.

    Args:
        root: the folder.
        memory: where checksums are kept from one run to the next; None to compute them anew each time.
    """

    def __init__(self, root: Path, memory: Path | None = None) -> None:
        self.root = root
        self._digests = Digests(memory)
        self._repositories: dict[str, FolderRepository] = {}
        self._lock = threading.Lock()

    def find(self, kind: str, repo_id: str) -> FolderRepository | None:
        """The model of that name, if there is such a folder."""
        if kind != "models" or not is_repo_id(repo_id):
            return None
        if self._is_single():
            root = self.root if repo_id == self.root.name else None
        else:
            root = self.root / repo_id
            namespace, _ = split_id(repo_id)
            if not _is_model(root) or (namespace and _is_model(self.root / namespace)):
                root = None
        if root is None:
            return None
        with self._lock:
            if repo_id not in self._repositories:
                self._repositories[repo_id] = FolderRepository(repo_id, root, self._digests)
            return self._repositories[repo_id]

    def listed(self, kind: str) -> Iterator[FolderRepository]:
        """All models."""
        names = self._names() if kind == "models" else ()
        yield from (found for name in names if (found := self.find(kind, name)) is not None)

    def close(self) -> None:
        """Keeps the checksums for the next run."""
        self._digests.remember()

    def _is_single(self) -> bool:
        return is_repo_id(self.root.name) and _is_model(self.root)

    def _names(self) -> Iterator[str]:
        if self._is_single():
            yield self.root.name
            return
        for name, path in _folders(self.root):
            if _is_model(path):
                yield name
            else:
                yield from (f"{name}/{inner}" for inner, _ in _folders(path))


def _folders(path: Path) -> list[tuple[str, Path]]:
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return []
    return [(name, path / name) for name in names if not name.startswith(".") and (path / name).is_dir()]


def _is_model(path: Path) -> bool:
    """Whether a folder is a model, and not a collection of them: it has a config, a tokenizer or weights itself."""
    try:
        with os.scandir(path) as entries:
            return any(_MODEL_FILE.fullmatch(entry.name) is not None and entry.is_file() for entry in entries)
    except OSError:
        return False
