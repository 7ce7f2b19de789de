"""Folders and files at a URL: on a web server, or in a file system that fsspec knows (S3, GCS, memory, …).

What is not streamed is kept in a cache of its own, under the URL and whatever tells one content of a file from the
next: a file that was replaced is another file. Where nothing tells, it is kept for as long as the snapshot.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload
from urllib.parse import urlsplit, urlunsplit

from .._types import ByteSource
from ..errors import HubError, InvalidOptionError, MissingFrameworkError, OptionError, SourceError
from ..options import SourceOptions
from .asking import DEADLINE, PAUSE, TRIES
from .connections import Answer, Connections, TransportError
from .download import download
from .fs_file import FsFile, fs_error
from .http_file import AGAIN, HttpFile, status_error, wait_of
from .parallel import fetch_all
from .snapshot import FolderSnapshot, LazySnapshot, Stash, check_relative
from .urls import redacted

__all__ = ["open_url"]

logger = logging.getLogger(__name__)

_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf", ".index", ".json")
_SIGNED_FOR = 3600  # seconds
_MAX_FILES = 100_000
_EXTRA = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}


class _Found(NamedTuple):
    """A file that is there: its size, and what changes with its content."""

    size: int
    identity: str


def open_url(url: str, source: SourceOptions) -> FolderSnapshot | LazySnapshot:
    """The folder or file at a URL, which belongs to no hub.

    Raises:
        SourceError: there is nothing at that place. HubError: the server cannot be reached, or refuses.
        OptionError: an option that only a hub has. MissingFrameworkError: no package for this kind of URL.
    """
    shown, scheme = redacted(url), urlsplit(url).scheme.lower()
    if source.revision is not None:
        raise OptionError(f"revision= is of repositories, and {shown} has none", key="revision")
    if source.verify is True:
        raise OptionError(
            f"verify=True compares with the checksums of a hub, and {shown} records none; `pretrained verify` compares "
            "with a SHA256SUMS",
            key="verify",
        )
    if source.local_files_only and scheme not in ("file", "local", "memory"):
        raise HubError(f"{shown} is not on this machine, and nothing may be downloaded (local_files_only)", path=shown)
    if scheme in ("http", "https"):
        if source.storage_options:
            raise OptionError(
                f"storage_options= are of file systems such as s3://, not of {shown}", key="storage_options"
            )
        return _open_http(url, shown, source)
    return _open_fs(url, shown, source)


class _Store:
    """What both kinds of place have in common: `find` says what is there, `file` reads it."""

    def __init__(self, shown: str, source: SourceOptions) -> None:
        self._shown, self._source = shown, source
        self._known: dict[str, _Found | None] = {}
        self._stash = Stash()

    def find(self, name: str) -> _Found | None:
        """What there is under that name; None if nothing is."""
        raise NotImplementedError

    def file(self, name: str, found: _Found) -> HttpFile | FsFile:
        """What reads it."""
        raise NotImplementedError

    def known(self, name: str) -> _Found | None:
        """The same, asked for once."""
        if name not in self._known:
            self._known[name] = self.find(name)
        return self._known[name]

    def path(self, name: str) -> Path:
        """Where the file is on this machine, fetched now if it is not."""
        found = self._must_find(name)
        if self._source.stream is not False or not found.identity:
            return self._stash.path(name, lambda target: download(self.file(name, found), target, digest=None))
        target = self._kept(name, found)
        if self._source.force_download or not target.is_file():
            lock = target.with_name(f".{target.name}.lock")
            overwrite = self._source.force_download
            download(self.file(name, found), target, digest=None, lock=lock, overwrite=overwrite)
        return target

    def fetch(self, names: Iterable[str]) -> None:
        """Brings files here, several at once."""
        fetch_all({name: self._must_find(name).size for name in names}, self.path)

    def source(self, name: str) -> ByteSource | None:
        """What reads the file where it lies, if it is to be streamed."""
        return None if self._source.stream is False else self.file(name, self._must_find(name))

    def _must_find(self, name: str) -> _Found:
        found = self.known(name)
        if found is None:
            raise SourceError(f"there is no {self._shown}/{name}", path=f"{self._shown}/{name}")
        return found

    def _kept(self, name: str, found: _Found) -> Path:
        from huggingface_hub import constants

        base = Path(self._source.cache_dir or Path(constants.HF_HOME) / "pretrained").expanduser()
        place = hashlib.sha256(self._shown.encode()).hexdigest()[:32]
        content = hashlib.sha256(f"{found.size} {found.identity}".encode()).hexdigest()[:16]
        return base / "urls" / place / content / name


class _Names(Sequence[str]):
    """The names of a place that cannot be listed: `in` asks it; listed are those that were found so far."""

    def __init__(self, store: _Store) -> None:
        self._store = store

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name != "" and self._store.known(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed())

    def __len__(self) -> int:
        return len(self._listed())

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._listed()[index]

    def _listed(self) -> list[str]:
        return sorted(name for name, found in self._store._known.items() if found is not None)


class _WebSnapshot(LazySnapshot):
    """A folder on a web server, whose names are what is asked for."""

    def __init__(self, name: str, store: _Store, only: str | None) -> None:
        super().__init__(name, None, {}, store, only=only)
        self._listing = _Names(store)

    def names(self) -> Sequence[str]:
        """Names of files; whether one is there is asked when it is looked for."""
        return self._listing

    def _stored(self, name: str) -> str:
        return name


def _open_http(url: str, shown: str, source: SourceOptions) -> LazySnapshot:
    parts = urlsplit(url)
    folder, _, last = parts.path.rpartition("/")
    only = last if last.endswith(_WEIGHT_ENDINGS) else None
    if only is None:
        folder = parts.path.rstrip("/")
    elif source.subfolder:
        raise InvalidOptionError(f"subfolder {source.subfolder!r:.200} of {shown}, which is a file", key="subfolder")
    folder = f"{folder}/{source.subfolder}" if source.subfolder else folder
    base = urlunsplit((parts.scheme, parts.netloc, folder, parts.query, ""))
    store = _Web(base, redacted(base), source)
    if only is not None and store.known(only) is None:
        raise SourceError(f"there is no {shown}", path=shown)
    return _WebSnapshot(shown, store, only)


class _Web(_Store):
    """Files on a web server, which gets no token; user and password may be in the URL."""

    def __init__(self, base: str, shown: str, source: SourceOptions) -> None:
        super().__init__(shown, source)
        self._base = base
        self._connections = Connections(proxies=source.proxies)
        self._has_answered = False

    def find(self, name: str) -> _Found | None:
        check_relative(name, "file name")
        answer = self._ask("HEAD", name)
        if answer.status in (405, 501):
            answer = self._ask("GET", name, {"Range": "bytes=0-0"})
        # A store that may not be listed answers so for what is not there.
        is_absent = answer.status in (404, 410) or (answer.status == 403 and self._has_answered)
        if is_absent:
            self._has_answered = True
            return None
        if answer.status not in (200, 206):
            raise status_error(f"{self._shown}/{name}", answer)
        self._has_answered = True
        length = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise HubError(
                f"{self._shown}/{name}: the server does not say how long it is", path=f"{self._shown}/{name}"
            )
        return _Found(int(length), answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")

    def file(self, name: str, found: _Found) -> HttpFile:
        url = self._url(name)
        return HttpFile(self._connections, lambda: url, name=f"{self._shown}/{name}", size=found.size)

    def _url(self, name: str) -> str:
        parts = urlsplit(self._base)
        return urlunsplit(parts._replace(path=f"{parts.path}/{name}"))

    def _ask(self, method: str, name: str, headers: dict[str, str] | None = None) -> Answer:
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._connections.open(method, self._url(name), headers)
            except TransportError as error:
                if attempt > 1 or error.is_unreachable:
                    where = redacted(self._base)
                    raise HubError(f"cannot reach {where}: {error.reason}", path=f"{where}/{name}") from None
                continue
            answer.close()
            wait = wait_of(answer.headers)
            if answer.status not in AGAIN or attempt == TRIES or wait > DEADLINE:
                break
            time.sleep(max(wait, PAUSE * 2 ** (attempt - 1)))
        return answer


def _open_fs(url: str, shown: str, source: SourceOptions) -> FolderSnapshot | LazySnapshot:
    fs, root = _file_system(url, shown, source)
    if source.subfolder:
        root = posixpath.join(root, source.subfolder)
        shown = f"{shown.rstrip('/')}/{source.subfolder}"
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    try:
        is_file = fs.isfile(root)
        if not is_file and protocol in ("file", "local") and fs.isdir(root):
            return FolderSnapshot(Path(root), shown)
        items = fs.ls(posixpath.dirname(root) if is_file else root, detail=True)
    except Exception as error:  # noqa: BLE001  # file systems have errors of their own
        raise fs_error(shown, error) from None
    if is_file and protocol in ("file", "local"):
        return FolderSnapshot(Path(root).parent, shown, only=posixpath.basename(root))
    files = {posixpath.basename(item["name"]): item for item in items if item["type"] == "file"}
    if not files or len(files) > _MAX_FILES:
        raise SourceError(f"{shown} holds {len(files) or 'no'} files; that is no checkpoint", path=shown)
    base = posixpath.dirname(shown) if is_file else shown.rstrip("/")
    store = _FileSystem(fs, files, base, source)
    only = posixpath.basename(root) if is_file else None
    return LazySnapshot(shown, None, {name: name for name in files}, store, only=only)


def _file_system(url: str, shown: str, source: SourceOptions) -> tuple[Any, str]:
    """(file system, path in it) of a URL."""
    core = importlib.import_module("fsspec.core")
    scheme = url.partition(":")[0]
    try:
        fs, root = core.url_to_fs(url, **(source.storage_options or {}))
    except ImportError as error:
        package = _EXTRA.get(scheme, error.name or "a package for it")
        raise MissingFrameworkError(
            f"{shown} needs a package that is not installed: pip install {package}", key=package
        ) from None
    except ValueError as error:
        if "Protocol not known" in str(error):
            raise InvalidOptionError(
                f"{shown}: nobody knows what {scheme}:// is; hf://, https:// and the file systems of fsspec are known",
                key="pretrained_model_name_or_path",
            ) from None
        raise fs_error(shown, error) from None
    except Exception as error:  # noqa: BLE001  # file systems have errors of their own
        raise fs_error(shown, error) from None
    return fs, str(root)


class _FileSystem(_Store):
    """Files of an fsspec file system."""

    def __init__(self, fs: Any, items: dict[str, Any], shown: str, source: SourceOptions) -> None:
        super().__init__(shown, source)
        self._fs, self._items = fs, items
        self._connections = Connections(proxies=source.proxies)
        self._can_sign = True

    def find(self, name: str) -> _Found | None:
        item = self._items.get(name)
        if item is None:
            return None
        marks = [item.get(key) for key in ("ETag", "etag", "md5Hash", "version_id", "LastModified", "mtime", "created")]
        return _Found(int(item["size"]), " ".join(str(mark) for mark in marks if mark))

    def file(self, name: str, found: _Found) -> HttpFile | FsFile:
        path, shown = self._items[name]["name"], f"{self._shown}/{name}"
        if (sign := self._signer(path)) is not None:
            return HttpFile(self._connections, sign, name=shown, size=found.size)
        return FsFile(self._fs, path, name=shown, size=found.size)

    def _signer(self, path: str) -> Callable[[], str] | None:
        """What makes signed URLs of a file, by which it is read at full speed; None if the file system has none."""
        if not self._can_sign:
            return None
        try:
            first: str = self._fs.sign(path, expiration=_SIGNED_FOR)
        except Exception as error:  # noqa: BLE001  # no such thing, no credentials to sign with, …
            logger.debug("%s: no signed URLs (%s)", self._shown, type(error).__name__)
            first = ""
        self._can_sign = first.startswith(("http://", "https://"))
        return (lambda: str(self._fs.sign(path, expiration=_SIGNED_FOR))) if self._can_sign else None
