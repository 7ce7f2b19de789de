"""References: from what a user writes to a snapshot. Revisions, caches and tokens end here."""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import replace
from pathlib import Path

from .._types import PathLike, Snapshot
from ..errors import InvalidOptionError, OptionError, SourceError, UntrustedPathError
from ..options import SourceOptions
from .snapshot import FolderSnapshot, check_relative, listed
from .urls import HubPlace, check_repo_id, hub_place, is_url

__all__ = ["is_local", "resolve"]

logger = logging.getLogger(__name__)

_MAX_REF = 4096  # characters
_LOCAL_START = ("/", "./", "../", "~", ".\\", "..\\")


def resolve(ref: PathLike, source: SourceOptions) -> Snapshot:
    """The snapshot that `ref` means: a folder, one file of a folder, a hub repository at one commit, or a URL.

    A TensorFlow checkpoint is one file too, and may be called as TensorFlow calls it, without the .index of its index.

    A string that looks like a path is never tried as a repository name. Where a folder and a repository share a
    name, the folder wins; hf:// always means the hub.

    Raises:
        SourceError: there is nothing at that place; says what was looked for.
        UntrustedPathError: the subfolder leaves the folder.
        InvalidOptionError: `ref` is neither a path nor a repository name, or a file cannot have that subfolder.
        OptionError: `ref` is no string and no path.
    """
    if source.subfolder:
        check_relative(source.subfolder, "subfolder")
    if source.revision is not None:
        check_relative(source.revision, "revision")
    if not isinstance(ref, (str, os.PathLike)):
        raise OptionError(
            f"a folder, a file or a repository name is expected, not a {type(ref).__name__}",
            key="pretrained_model_name_or_path",
        )
    text = os.fspath(ref)
    if not isinstance(text, str) or not text or "\0" in text or len(text) > _MAX_REF:
        raise InvalidOptionError(f"no path and no repository name: {text!r:.200}", key="pretrained_model_name_or_path")
    if isinstance(ref, str) and is_url(text):
        return _at_url(text, source)
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        if not is_local(ref) and "\\" not in text and text.count("/") < 2:
            logger.info("%s is a folder here, which is meant; hf://%s would be the repository of that name", text, text)
        return FolderSnapshot(_enter(path, source.subfolder), text)
    if os.path.exists(path):
        if source.subfolder:
            raise InvalidOptionError(f"subfolder {source.subfolder!r:.200} of {text}, which is a file", key="subfolder")
        return FolderSnapshot(path.parent, text, only=path.name)
    if _is_prefix(path, ref) and not source.subfolder:
        return FolderSnapshot(path.parent, text, only=f"{path.name}.index")
    if is_local(ref):
        raise SourceError(f"no file or folder {text}{_nearby(path)}", path=text)
    try:
        check_repo_id(text)
    except InvalidOptionError:
        raise InvalidOptionError(
            f"{text!r:.200} is no folder, no file and no repository name (name or organisation/name)",
            key="pretrained_model_name_or_path",
        ) from None
    from .repository import open_repository  # only here: huggingface_hub takes its time to import

    return open_repository(text, source)


def _at_url(url: str, source: SourceOptions) -> Snapshot:
    """What a URL means: a repository of a hub, whose pages are known, or files where it leads."""
    from huggingface_hub import constants

    endpoints = tuple(endpoint for endpoint in (source.endpoint, constants.ENDPOINT) if endpoint)
    place = hub_place(url, endpoints)
    if place is None:
        from .url_store import open_url

        return open_url(url, source)
    from .repository import open_repository

    return open_repository(place.repo_id, _with_place(source, place), place.path)


def _with_place(source: SourceOptions, place: HubPlace) -> SourceOptions:
    """The options with what the URL says; of what is said twice, both have to say the same."""
    revision, endpoint = source.revision, source.endpoint
    if place.revision is not None:
        if revision not in (None, place.revision):
            raise OptionError(f"revision={revision!r:.80}, and the URL says {place.revision!r:.80}", key="revision")
        revision = place.revision
    if place.endpoint is not None and endpoint is None:
        endpoint = place.endpoint
    if place.path and source.subfolder:
        raise OptionError(f"subfolder={source.subfolder!r:.80}, and the URL says {place.path!r:.80}", key="subfolder")
    return replace(source, revision=revision, endpoint=endpoint)


def is_local(ref: PathLike) -> bool:
    """Whether `ref` can only mean a place on this machine."""
    return not isinstance(ref, str) or ref.startswith(_LOCAL_START) or ref in (".", "..") or os.path.isabs(ref)


def _is_prefix(path: Path, ref: PathLike) -> bool:
    """Whether this is what TensorFlow calls a checkpoint: the part that the names of its files have in common."""
    return (".ckpt" in path.name or is_local(ref)) and os.path.isfile(f"{path}.index")


def _enter(path: Path, subfolder: str) -> Path:
    if not subfolder:
        return path
    inner = path / subfolder
    if not os.path.isdir(inner):
        folders = [name for name in listed(path) if os.path.isdir(path / name)][:10]
        raise SourceError(
            f"no folder {subfolder!r} in {path}; folders there: {', '.join(folders) or 'none'}", path=inner
        )
    if not inner.resolve().is_relative_to(path.resolve()):
        raise UntrustedPathError(f"subfolder {subfolder!r} of {path} leads out of it", key="subfolder", path=inner)
    return inner


def _nearby(path: Path) -> str:
    """What the folder that it would be in holds, for the message, and which name there is the nearest."""
    if not os.path.isdir(path.parent):
        return ""
    names = [name for name in listed(path.parent) if not name.startswith(".")]
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} {path.parent} holds: {', '.join(names[:10]) or 'nothing'}"
