"""URLs: what they name, where they belong, and how they are shown."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from ..errors import InvalidOptionError, UntrustedPathError
from .snapshot import check_relative

__all__ = ["HubPlace", "Origin", "check_repo_id", "file_url", "hub_place", "is_url", "origin_of", "redacted"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)(?:::[A-Za-z][^\s]*)?://[^\s]+")
_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9._-]{1,96})?")
_PORTS = {"http": 80, "https": 443}
_PUBLIC_HUBS = ("huggingface.co", "www.huggingface.co", "hf.co")
_PAGES = ("tree", "blob", "resolve", "raw")
_OTHER_KINDS = ("datasets", "spaces", "kernels", "buckets", "collections", "papers", "docs", "blog", "api")


class Origin(NamedTuple):
    """Whom a request goes to; a token belongs to one."""

    scheme: str
    host: str
    port: int


class HubPlace(NamedTuple):
    """A repository as a URL names it. `path` is a folder or a file of it, `endpoint` the hub if the URL says which."""

    repo_id: str
    revision: str | None
    path: str
    endpoint: str | None


def is_url(text: str) -> bool:
    """Whether this has a scheme: hf://, https://, s3:// and the like."""
    return _URL.match(text) is not None and not re.match(r"[A-Za-z]:\\", text)


def origin_of(url: str) -> Origin:
    """Scheme, host and port of a URL. Raises InvalidOptionError when it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if not host or parts.scheme not in _PORTS:
        raise InvalidOptionError(f"{redacted(url)!r:.200} is no http:// or https:// URL", key="endpoint")
    return Origin(parts.scheme, host.lower(), port or _PORTS[parts.scheme])


def redacted(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL"
    if not parts.netloc:
        return url.partition("?")[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def check_repo_id(repo_id: str) -> str:
    """The name itself if it is one: name, or organisation/name. Raises InvalidOptionError or UntrustedPathError."""
    if any(part in (".", "..") for part in repo_id.split("/")):
        raise UntrustedPathError(f"repository {repo_id!r:.200} must be plain words with / between them", key="repo_id")
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise InvalidOptionError(
            f"{repo_id!r:.200} is no repository name (name or organisation/name)",
            key="pretrained_model_name_or_path",
        )
    return repo_id


def file_url(endpoint: str, repo_id: str, commit: str, path: str) -> str:
    """Where a file of a repository is served, at one commit."""
    return f"{endpoint}/{repo_id}/resolve/{quote(commit, safe='')}/{quote(path, safe='/')}"


def hub_place(url: str, endpoints: tuple[str, ...]) -> HubPlace | None:
    """What an hf:// URL, or the web page of a repository on one of these hubs, names; None for any other URL.

    Raises:
        InvalidOptionError: it is of a hub and names no model. UntrustedPathError: a part leads out of the repository.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "hf":
        return _from_hf(rest)
    if scheme.lower() not in _PORTS:
        return None
    origin, parts = origin_of(url), urlsplit(url)
    endpoint = next((known for known in endpoints if origin_of(known) == origin), None)
    base = urlsplit(endpoint).path.strip("/") if endpoint else ""
    path = parts.path.strip("/")
    if endpoint is None:
        if origin.host not in _PUBLIC_HUBS:
            return None
        endpoint = "https://huggingface.co"
    elif base and path != base and not path.startswith(f"{base}/"):
        return None
    return _from_page(url, path[len(base) :].strip("/").split("/"), endpoint)


def _from_hf(rest: str) -> HubPlace:
    """`models/org/name@revision/path`, in which all but the name may be left out."""
    rest = rest.partition("?")[0].strip("/").removeprefix("models/")
    name, at, tail = rest.partition("@")
    if at and name.count("/") <= 1:
        revision, path = _split_revision(tail)
        parts = name.split("/")
    else:
        parts, revision = rest.split("/"), None
        path = "/".join(parts[2:])
    if parts[0] in _OTHER_KINDS:
        raise _no_model(f"hf://{rest}")
    return _checked("/".join(parts[:2]), revision, unquote(path), None)


def _split_revision(tail: str) -> tuple[str, str]:
    """(revision, path): a revision ends at the first slash, but for refs/pr/N and refs/convert/NAME."""
    parts = tail.split("/")
    length = 3 if parts[0] == "refs" and len(parts) >= 3 and parts[1] in ("pr", "convert") else 1
    return unquote("/".join(parts[:length])), "/".join(parts[length:])


def _from_page(url: str, parts: list[str], endpoint: str) -> HubPlace:
    if not parts[0] or parts[0] in _OTHER_KINDS:
        raise _no_model(redacted(url))
    length = 1 if len(parts) == 1 or parts[1] in _PAGES else 2
    repo_id, rest = "/".join(parts[:length]), parts[length:]
    if not rest:
        return _checked(repo_id, None, "", endpoint)
    if rest[0] not in _PAGES or len(rest) < 2:
        raise _no_model(redacted(url))
    revision, path = _split_revision("/".join(rest[1:]))
    return _checked(repo_id, revision, unquote(path), endpoint)


def _checked(repo_id: str, revision: str | None, path: str, endpoint: str | None) -> HubPlace:
    check_repo_id(repo_id)
    if revision is not None:
        check_relative(revision, "revision")
    if path:
        check_relative(path, "path")
    return HubPlace(repo_id, revision, path, endpoint.rstrip("/") if endpoint else None)


def _no_model(shown: str) -> InvalidOptionError:
    return InvalidOptionError(
        f"{shown:.300} names no model: write hf://organisation/name@revision/folder, or a page of a model such as "
        "https://huggingface.co/organisation/name/tree/main",
        key="pretrained_model_name_or_path",
    )
