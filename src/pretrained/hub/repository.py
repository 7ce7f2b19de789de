"""A repository of the Hugging Face Hub as a snapshot: one commit, files through huggingface_hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import HubError, SourceError, UntrustedPathError
from ..options import SourceOptions
from .snapshot import FolderSnapshot, LazySnapshot

__all__ = ["open_repository"]

_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_MAX_REF_FILE = 1024  # bytes


def open_repository(repo_id: str, source: SourceOptions) -> FolderSnapshot | LazySnapshot:
    """The repository at the commit that `source.revision` names now.

    Raises:
        HubError: the hub cannot be reached or refuses, or, offline, the repository is not in the cache.
        SourceError: the subfolder is not there.
    """
    from huggingface_hub import constants

    if source.local_files_only or constants.HF_HUB_OFFLINE:
        return _cached(repo_id, source)
    return _online(repo_id, source)


def _cached(repo_id: str, source: SourceOptions) -> FolderSnapshot:
    from huggingface_hub import constants

    cache = Path(source.cache_dir or constants.HF_HUB_CACHE)
    home = cache / f"models--{repo_id.replace('/', '--')}"
    revision = source.revision or "main"
    commit = _noted_commit(home / "refs" / revision) or revision
    root = home / "snapshots" / commit
    if not root.is_dir():
        held = sorted(p.name for p in cache.glob("models--*"))[:10] if cache.is_dir() else []
        raise HubError(
            f"{repo_id}@{revision} is not in the cache {cache} and nothing may be downloaded "
            f"(local_files_only or HF_HUB_OFFLINE). Cached: {', '.join(held) or 'nothing'}",
            path=repo_id,
        )
    inner = root / source.subfolder if source.subfolder else root
    if not inner.is_dir():
        raise SourceError(f"no folder {source.subfolder!r} in the cached {repo_id}@{commit[:8]}", path=inner)
    if not inner.resolve().is_relative_to(root.resolve()):
        raise UntrustedPathError(
            f"subfolder {source.subfolder!r} of {repo_id} leads out of it", key="subfolder", path=inner
        )
    return FolderSnapshot(inner, repo_id, commit=commit)


def _noted_commit(ref: Path) -> str | None:
    """The commit that a file below refs/ names; None where there is no such file, or something else is in it."""
    try:
        with ref.open("rb") as file:
            text = file.read(_MAX_REF_FILE).decode("ascii", "replace").strip()
    except OSError:
        return None
    return text if _COMMIT.fullmatch(text) else None


def _online(repo_id: str, source: SourceOptions) -> LazySnapshot:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx, or httpx2 from release 2.4 on

    api = HfApi(endpoint=source.endpoint, token=source.token)
    trouble: tuple[type[Exception], ...] = (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        httpx.HTTPError,
        OSError,
        ValueError,  # a token or an endpoint that no request can hold
    )
    try:
        commit = str(api.model_info(repo_id, revision=source.revision).sha)
        tree = [
            item.path
            for item in api.list_repo_tree(repo_id, recursive=True, revision=commit)
            if isinstance(item, RepoFile)
        ]
    except trouble as error:
        raise _hub_error(repo_id, source, error) from error
    if not _COMMIT.fullmatch(commit):
        raise HubError(f"cannot load {repo_id}: {commit!r:.80} is no commit, so this is no hub", path=repo_id)
    prefix = f"{source.subfolder}/" if source.subfolder else ""
    files = {path[len(prefix) :]: path for path in tree if path.startswith(prefix)}
    if not files:
        raise SourceError(f"no folder {source.subfolder!r} in {repo_id}@{commit[:8]}", path=repo_id)

    def fetch(path: str) -> Path:
        try:
            return Path(
                api.hf_hub_download(
                    repo_id, path, revision=commit, cache_dir=source.cache_dir, force_download=source.force_download
                )
            )
        except trouble as error:
            raise _hub_error(repo_id, source, error) from error

    return LazySnapshot(repo_id, commit, files, fetch)


def _hub_error(repo_id: str, source: SourceOptions, error: Exception) -> HubError:
    """Our error for one of huggingface_hub's; its text can hold signed URLs, so only its class and status are shown."""
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    what = f"{type(error).__name__}{f' (HTTP {status})' if status else ''}"
    revision = f"@{source.revision}" if source.revision else ""
    return HubError(
        f"cannot load {repo_id}{revision} from the hub: {what}. If a folder was meant, ./{repo_id} does not exist; "
        "to use only what is cached, pass local_files_only=True",
        path=repo_id,
        status=status,
    )
