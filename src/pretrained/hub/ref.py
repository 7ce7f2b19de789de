"""References: from what a user writes to a snapshot. Revisions, caches and tokens end here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .._types import PathLike, Snapshot
from ..errors import InvalidOptionError, OptionError, SourceError, UntrustedPathError
from ..options import SourceOptions
from .snapshot import FolderSnapshot, check_relative

__all__ = ["is_local", "resolve"]

_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9._-]{1,96})?")
_MAX_REF = 4096  # characters
_LOCAL_START = ("/", "./", "../", "~", ".\\", "..\\")


def resolve(ref: PathLike, source: SourceOptions) -> Snapshot:
    """The snapshot that `ref` means: a folder, one file of a folder, or a hub repository at one commit.

    A TensorFlow checkpoint is one file too, and may be called as TensorFlow calls it, without the .index of its index.

    A string that looks like a path is never tried as a repository name. Where a folder and a repository share a
    name, the folder wins.

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
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        return FolderSnapshot(_enter(path, source.subfolder), text)
    if os.path.exists(path):
        if source.subfolder:
            raise InvalidOptionError(f"subfolder {source.subfolder!r:.200} of {text}, which is a file", key="subfolder")
        return FolderSnapshot(path.parent, text, only=path.name)
    if _is_prefix(path, ref) and not source.subfolder:
        return FolderSnapshot(path.parent, text, only=f"{path.name}.index")
    if is_local(ref):
        raise SourceError(f"no file or folder {text}{_nearby(path)}", path=text)
    if not _REPO_ID.fullmatch(text) or ".." in text or "--" in text:
        raise InvalidOptionError(
            f"{text!r:.200} is no folder, no file and no repository name (name or organisation/name)",
            key="pretrained_model_name_or_path",
        )
    from .repository import open_repository  # only here: huggingface_hub takes its time to import

    return open_repository(text, source)


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
        folders = [name for name in _listed(path) if os.path.isdir(path / name)][:10]
        raise SourceError(
            f"no folder {subfolder!r} in {path}; folders there: {', '.join(folders) or 'none'}", path=inner
        )
    if not inner.resolve().is_relative_to(path.resolve()):
        raise UntrustedPathError(f"subfolder {subfolder!r} of {path} leads out of it", key="subfolder", path=inner)
    return inner


def _nearby(path: Path) -> str:
    """What the nearest existing folder holds, for the message."""
    if not os.path.isdir(path.parent):
        return ""
    names = [name for name in _listed(path.parent) if not name.startswith(".")][:10]
    return f"; {path.parent} holds: {', '.join(names) or 'nothing'}"


def _listed(folder: Path) -> list[str]:
    """Names in a folder, sorted; none where it may not be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
