"""A repository of the Hugging Face Hub as a snapshot: one commit, files through huggingface_hub's own cache."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .._types import ByteSource
from ..errors import HubError, PretrainedError, SourceError, UntrustedPathError
from ..options import SourceOptions
from .asking import ask, within
from .auth import Access, access_to
from .cache import COMMIT, DIGEST, RepositoryCache, cache_folder, check_digest
from .connections import Connections
from .download import cannot_write, download
from .http_file import HttpFile
from .parallel import fetch_all
from .snapshot import FolderSnapshot, LazySnapshot, Stash, check_relative
from .trouble import cause_of, hub_error, is_outage, trouble
from .urls import check_repo_id, file_url, origin_of

__all__ = ["open_repository"]

logger = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds for a hub to say which commit a branch is
_MAX_SIZE = 1 << 50  # bytes of a file
_DRIVE = re.compile(r"[A-Za-z]:")
_LINK = 60.0  # seconds for huggingface_hub to link a file that is here already
_NEED = 1.05  # of a file's size, as room on the disk that a download leaves


class RemoteFile(NamedTuple):
    """A file of a repository: its size, the digest of its content, and whether that is in Xet storage too."""

    size: int
    digest: str | None
    xet_hash: str | None = None


def open_repository(repo_id: str, source: SourceOptions, path: str = "") -> FolderSnapshot | LazySnapshot:
    """The repository at the commit that `source.revision` names now.

    Where nobody answers, and the cache knows what the revision was last, that is used, with a warning.

    Args:
        repo_id: name, or organisation/name.
        source: the rest of what the caller said.
        path: a folder or file inside of it, as a URL names one.

    Raises:
        HubError: the hub cannot be reached or refuses, or, offline, the repository is not in the cache.
        SourceError: the subfolder is not there.
    """
    from huggingface_hub import constants

    cache = RepositoryCache(cache_folder(source.cache_dir), check_repo_id(repo_id))
    if source.local_files_only or constants.HF_HUB_OFFLINE:
        return _cached(repo_id, source, cache, path)
    return _online(repo_id, source, cache, path)


def _cached(repo_id: str, source: SourceOptions, cache: RepositoryCache, path: str) -> FolderSnapshot:
    revision = source.revision or "main"
    commit = cache.commit_of(revision) or revision
    root = cache.snapshot(commit)
    if not root.is_dir():
        raise HubError(
            f"{repo_id}@{revision} is not in the cache {cache.cache} and nothing may be downloaded "
            f"(local_files_only or HF_HUB_OFFLINE). {cache.held()}",
            path=repo_id,
        )
    inner, only = root / source.subfolder if source.subfolder else root, None
    if path and (inner / path).is_dir():
        inner = inner / path
    elif path:
        only, inner = os.path.basename(path), (inner / path).parent
    if not inner.is_dir() or (only is not None and not (inner / only).exists()):
        wanted = "/".join(part for part in (source.subfolder, path) if part)
        raise SourceError(f"no folder {wanted!r} in the cached {repo_id}@{commit[:8]}", path=inner)
    if not inner.resolve().is_relative_to(root.resolve()):
        raise UntrustedPathError(
            f"subfolder {source.subfolder!r} of {repo_id} leads out of it", key="subfolder", path=inner
        )
    check = _check_cached if source.verify is True else None
    return FolderSnapshot(inner, repo_id, commit=commit, only=only, check=check)


def _check_cached(path: Path) -> None:
    """Compares a file with the name of its blob, which is its digest."""
    blob = Path(os.path.realpath(path))
    if blob.is_file() and DIGEST.fullmatch(blob.name):
        check_digest(path, blob.name, path.name)


def _online(repo_id: str, source: SourceOptions, cache: RepositoryCache, path: str) -> FolderSnapshot | LazySnapshot:
    from huggingface_hub import HfApi

    access = access_to(source)
    api = HfApi(endpoint=access.endpoint, token=access.for_client)
    since = time.monotonic()
    try:
        commit, tree = ask(lambda: _listing(api, repo_id, source.revision))
    except PretrainedError:
        raise
    except trouble() as error:
        known = cache.commit_of(source.revision or "main") or source.revision or ""
        if is_outage(error) and not source.force_download and cache.snapshot(known or "none").is_dir():
            logger.warning(
                "%s does not answer (%s); using %s of %s, which is in the cache",
                origin_of(access.endpoint).host, type(error).__name__, known[:12], repo_id,
            )  # fmt: skip
            return _cached(repo_id, source, cache, path)
        raise hub_error("load", repo_id, access, source, error, time.monotonic() - since, api) from cause_of(error)
    if not COMMIT.fullmatch(commit):
        raise HubError(f"cannot load {repo_id}: {commit!r:.80} is no commit, so this is no hub", path=repo_id)
    if source.stream is not True:
        cache.note(source.revision or "main", commit)
    store = _Files(repo_id, commit, tree, source, access, api, cache)
    below = "/".join(part for part in (source.subfolder, path) if part)
    only = None
    if path and below in tree:
        below, _, only = below.rpartition("/")
    prefix = f"{below}/" if below else ""
    files = {name[len(prefix) :]: name for name in tree if name.startswith(prefix)}
    if not files:
        raise SourceError(f"no folder {below!r} in {repo_id}@{commit[:8]}", path=repo_id)
    return LazySnapshot(repo_id, commit, files, store, only=only)


def _listing(api: Any, repo_id: str, revision: str | None) -> tuple[str, dict[str, RemoteFile]]:
    """(commit, its files), by one request of hubs that say all of it at once."""
    try:
        info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=_PATIENCE)
        commit = str(info.sha)
        listed = info.siblings or []
        if listed and all(item.size is not None and item.blob_id for item in listed):
            found = {item.rfilename: _remote_file(item.size, item.blob_id, item.lfs, None) for item in listed}
        else:
            from huggingface_hub.hf_api import RepoFile

            found = {
                item.path: _remote_file(item.size, item.blob_id, item.lfs, item.xet_hash)
                for item in api.list_repo_tree(repo_id, recursive=True, revision=commit)
                if isinstance(item, RepoFile)
            }
        return commit, {name: file for name, file in found.items() if _is_plain(name)}
    except PretrainedError:
        raise
    except (TypeError, KeyError, AttributeError) as error:  # what huggingface_hub makes of JSON of another shape
        raise HubError(
            f"cannot load {repo_id}: what answers there sends no listing of a repository ({type(error).__name__}), so "
            "this is no hub; look at HF_ENDPOINT and endpoint=",
            path=repo_id,
        ) from None


def _is_plain(name: str) -> bool:
    """Whether a name in a listing can be that of a file here. Raises UntrustedPathError where it leads out."""
    if ":" in name and not _DRIVE.match(name):
        # No file that a load reads has a colon in its name, and one that has is no reason to refuse the others.
        check_relative(name.replace(":", "_"), "file name")
        logger.debug("the file %r is left out: no file may be called so everywhere", name)
        return False
    check_relative(name, "file name")
    return True


def _remote_file(size: Any, blob_id: str, lfs: Any, xet_hash: str | None) -> RemoteFile:
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise TypeError(f"a file of {size!r:.40} bytes")
    digest = str(lfs.sha256 if lfs is not None else blob_id)
    return RemoteFile(size, digest if DIGEST.fullmatch(digest) else None, xet_hash)


class _Files:
    """The files of a repository at one commit: fetched into the cache, or read where they lie."""

    def __init__(
        self,
        repo_id: str,
        commit: str,
        tree: Mapping[str, RemoteFile],
        source: SourceOptions,
        access: Access,
        api: Any,
        cache: RepositoryCache,
    ) -> None:
        self._repo_id, self._commit, self._tree = repo_id, commit, tree
        self._source, self._access, self._api, self._cache = source, access, api, cache
        self._connections = Connections(
            {origin_of(access.endpoint): value for value in access.headers.values()}, source.proxies
        )
        self._stash = Stash()

    def path(self, name: str) -> Path:
        """Where the file is on this machine, fetched now if it is not in the cache."""
        here = self._cache.snapshot(self._commit) / name
        expected = self._tree[name].digest
        if here.is_file() and not self._source.force_download:
            if self._source.verify is True and expected is not None:
                check_digest(here, expected, f"{self._repo_id}/{name}")
            return here
        if self._is_streamed(name):
            return self._stash.path(name, lambda target: download(self._file(name), target, digest=expected))
        return self._download(name)

    def fetch(self, names: Iterable[str]) -> None:
        """Brings files here: large ones one after the other, each by many connections; small ones side by side."""
        fetch_all({name: self._tree[name].size for name in names}, lambda name: self.path(name))

    def source(self, name: str) -> ByteSource | None:
        """What reads the file where it lies, if it is to be streamed."""
        return self._file(name, self._tree[name].digest) if self._is_streamed(name) else None

    def _is_streamed(self, name: str) -> bool:
        if self._source.stream is False:
            return False
        if (self._cache.snapshot(self._commit) / name).is_file() and not self._source.force_download:
            return False  # what is on the disk is the quickest
        return self._source.stream is True or not self._has_room(self._tree[name].size)

    def _has_room(self, size: int) -> bool:
        folder = self._cache.cache
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free >= _NEED * size

    def _file(self, name: str, digest: str | None = None) -> HttpFile:
        url = file_url(self._access.endpoint, self._repo_id, self._commit, name)
        shown = f"{self._repo_id}@{self._commit[:8]}/{name}"
        return HttpFile(self._connections, lambda: url, name=shown, size=self._tree[name].size, digest=digest)

    def _download(self, name: str) -> Path:
        """Puts the content where huggingface_hub looks for it, and lets that make the link."""
        file, verify = self._tree[name], self._source.verify is not False

        def link() -> str:
            return str(
                self._api.hf_hub_download(
                    self._repo_id, name, revision=self._commit, cache_dir=self._cache.cache, force_download=False
                )
            )

        is_ours = file.digest is not None and not self._cache.is_shared(file.xet_hash)
        if is_ours and file.digest is not None:
            download(
                self._file(name),
                self._cache.blob(file.digest),
                digest=file.digest if verify else None,
                lock=self._cache.lock(file.digest),
                overwrite=self._source.force_download,
            )
        try:
            path = Path(within(_LINK, link) if is_ours else link())
        except trouble() as error:
            if isinstance(error, PermissionError) or getattr(error, "errno", None) is not None:
                raise cannot_write(self._cache.home, error) from error  # type: ignore[arg-type]
            raise self._error(error) from cause_of(error)
        if (
            verify
            and file.digest is not None
            and os.path.realpath(path) != os.path.realpath(self._cache.blob(file.digest))
        ):
            check_digest(path, file.digest, f"{self._repo_id}/{name}")  # it came by another way
        return path

    def _error(self, error: Exception) -> PretrainedError:
        return hub_error("load", self._repo_id, self._access, self._source, error)
