"""The Hugging Face cache, in its own layout: which commits and files of a repository are there, and where others go."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Any

from ..errors import IntegrityError
from .snapshot import listed

__all__ = ["COMMIT", "RepositoryCache", "cache_folder", "check_digest", "digest_of"]

COMMIT = re.compile(r"[0-9a-f]{40,64}")
DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_MAX_REF_FILE = 1024  # bytes
_PIECE = 4 << 20
_MAX_SHOWN = 10


def cache_folder(cache_dir: Any) -> Path:
    """The cache that is meant: `cache_dir`, or the one that every tool of Hugging Face uses."""
    from huggingface_hub import constants

    return Path(os.path.expanduser(cache_dir or constants.HF_HUB_CACHE))


class RepositoryCache:
    """What a cache holds of one repository."""

    def __init__(self, cache: Path, repo_id: str) -> None:
        self.cache = cache
        self.home = cache / f"models--{repo_id.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """The folder with the files of one commit, which need not exist."""
        return self.home / "snapshots" / commit

    def blob(self, digest: str) -> Path:
        """Where the content of a file is, which its digest names."""
        return self.home / "blobs" / digest

    def lock(self, digest: str) -> Path:
        """What is locked while that is written, by every tool that writes it."""
        return self.cache / ".locks" / self.home.name / f"{digest}.lock"

    def is_shared(self, xet_hash: str | None) -> bool:
        """Whether the cache has the content for another repository, from where a link will do."""
        is_plain = xet_hash is not None and DIGEST.fullmatch(xet_hash) is not None
        return is_plain and xet_hash is not None and (self.cache / "blobs" / xet_hash[:2] / xet_hash).is_file()

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch or tag was when it was last asked for; None where that is not noted."""
        try:
            with (self.home / "refs" / revision).open("rb") as file:
                text = file.read(_MAX_REF_FILE).decode("ascii", "replace").strip()
        except OSError:
            return None
        return text if COMMIT.fullmatch(text) else None

    def note(self, revision: str, commit: str) -> None:
        """Notes what a branch or tag is now; a cache that cannot be written to is left as it is."""
        path = self.home / "refs" / revision
        if revision == commit or self.commit_of(revision) == commit:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
            draft.write_text(commit, encoding="ascii")
            os.replace(draft, path)

    def held(self) -> str:
        """What the cache holds, in words: revisions of this repository, or else which repositories."""
        folder = self.home / "snapshots"
        if commits := listed(folder):
            refs = {name: self.commit_of(name) for name in listed(self.home / "refs")}
            words = [
                f"{commit[:12]}{''.join(f' ({name})' for name, value in refs.items() if value == commit)}"
                for commit in commits
            ]
            return f"Cached of this repository: {', '.join(words[:_MAX_SHOWN])}"
        found = [name for name in listed(self.cache) if name.startswith("models--")]
        return f"Cached: {', '.join(found[:_MAX_SHOWN]) or 'nothing'}"


def digest_of(path: Path, kind_of: str) -> str:
    """The digest of a file, of the kind that `kind_of` is: sha256, or git's of a blob. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        found = new_hash(kind_of, os.fstat(file.fileno()).st_size)
        buffer = memoryview(bytearray(_PIECE))
        while count := file.readinto(buffer):
            found.update(buffer[:count])
    digest: str = found.hexdigest()
    return digest


def new_hash(kind_of: str, size: int) -> Any:
    """The hash that makes digests such as this one, of a file of `size` bytes."""
    if len(kind_of) == 64:
        return hashlib.sha256()
    # git's own identifiers are SHA-1; this notices damage and protects nothing.
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def check_digest(path: Path, expected: str, name: str) -> None:
    """Compares a file of the cache with its digest, and drops it if it is another.

    Raises:
        IntegrityError: it was damaged; it is gone now.
    """
    got = digest_of(path, expected)
    if got == expected:
        return
    blob = Path(os.path.realpath(path))
    for item in {blob, path}:
        with contextlib.suppress(OSError):
            item.unlink()
    raise IntegrityError(
        f"{name}: the file in the cache is damaged: its checksum is {got[:16]}… and should be {expected[:16]}…. It was "
        "removed; run this again to fetch it anew",
        path=path,
        expected=expected,
        got=got,
    )
