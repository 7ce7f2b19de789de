"""What repositories, users, revisions and files may be called; whatever a client names passes here first."""

from __future__ import annotations

import re

from ..checkpoint.files import safe_name
from ..errors import UntrustedPathError

__all__ = [
    "KINDS",
    "VERBS",
    "is_commit",
    "is_digest",
    "is_path",
    "is_ref_name",
    "is_repo_id",
    "is_word",
    "split_id",
]

KINDS = ("models", "datasets", "spaces")

# The word after a repository's name in a URL; no repository may be called so, or URLs would mean two things.
VERBS = frozenset(
    [
        "ask-access",
        "auth-check",
        "blob",
        "branch",
        "commit",
        "commits",
        "discussions",
        "info",
        "paths-info",
        "preupload",
        "raw",
        "refs",
        "resolve",
        "revision",
        "safetensors-metadata",
        "settings",
        "super-squash",
        "tag",
        "tree",
        "user-access-request",
        "xet-read-token",
        "xet-write-token",
    ]
)
# First words of paths that are no namespace.
_TAKEN = frozenset({"api", "datasets", "spaces", "models", "docs", "settings", "join", "login", "new", "organizations"})

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@#=-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_word(text: object) -> bool:
    """Whether `text` can be the name of a user, an organisation, or a repository without its namespace."""
    return (
        isinstance(text, str)
        and _WORD.fullmatch(text) is not None
        and ".." not in text
        and "--" not in text
        and not text.endswith((".git", ".lock"))
    )


def is_repo_id(text: object) -> bool:
    """Whether `text` is `name` or `namespace/name`."""
    if not isinstance(text, str) or len(text) > 96:
        return False
    namespace, slash, name = text.rpartition("/")
    if slash and (not is_word(namespace) or namespace.lower() in _TAKEN):
        return False
    return is_word(name) and name not in VERBS and (bool(slash) or name.lower() not in _TAKEN)


def split_id(repo_id: str) -> tuple[str, str]:
    """Namespace, which may be empty, and name."""
    namespace, _, name = repo_id.rpartition("/")
    return namespace, name


def is_ref_name(text: object) -> bool:
    """Whether a branch or a tag may be called so: git's rules, without what needs escaping anywhere."""
    return (
        isinstance(text, str)
        and _REF.fullmatch(text) is not None
        and not any(bad in text for bad in ("..", "//", "@{", "/.", ".lock/"))
        and not text.endswith((".lock", "/", "."))
        and not text.startswith("refs/")
        and not is_commit(text)
    )


def is_commit(text: object) -> bool:
    """Whether `text` is the whole name of a commit."""
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None


def is_digest(text: object) -> bool:
    """Whether `text` is a sha256, or a Xet hash, in lower case."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def is_path(text: object) -> bool:
    """Whether a file of a repository may be called so."""
    try:
        name = safe_name(text)
    except UntrustedPathError:
        return False
    return all(part.lower() != ".git" and len(part.encode()) <= 255 for part in name.split("/"))
