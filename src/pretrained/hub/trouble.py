"""What huggingface_hub raises, told as ours: what was asked of whom, with whose token, and what to do now."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any

from ..errors import HubError
from ..source_options import SourceOptions
from .auth import Access
from .urls import redacted

__all__ = ["cause_of", "chain_of", "hub_error", "is_outage", "status_of", "trouble"]

_MAX_SHOWN = 8
_OFFLINE = "To use only what is cached, pass local_files_only=True"


def trouble() -> tuple[type[Exception], ...]:
    """The classes of what a call into huggingface_hub can raise."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx, or httpx2 from release 2.4 on

    # ValueError: a token or an endpoint that no request can hold. RuntimeError: what an upload in a thread ends with.
    return (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.HTTPError, OSError, ValueError, RuntimeError)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error is about, or one that it came from."""
    for part in chain_of(error):
        status = getattr(getattr(part, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def is_outage(error: Exception) -> bool:
    """Whether nobody answered, or a server that cannot: then what is in the cache is worth having."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    status = status_of(error)
    is_unreachable = isinstance(error, (httpx.TransportError, ConnectionError, TimeoutError))
    return status >= 500 if status is not None else is_unreachable and not isinstance(error, httpx.ProxyError)


def cause_of(error: Exception) -> Exception | None:
    """The error as a cause that may be shown: None where its text has the query of a URL in it, which may sign it."""
    return None if any("?" in str(part) for part in chain_of(error)) else error


def hub_error(
    what: str,
    repo_id: str,
    access: Access,
    source: SourceOptions,
    error: Exception,
    seconds: float | None = None,
    api: Any = None,
) -> HubError:
    """Our error for one of huggingface_hub's, whose text can hold signed URLs: its class and status are shown.

    Args:
        what: what failed, such as "load" or "push to".
        repo_id: of what. access: where, and with which token. source: what was asked for.
        error: theirs.
        seconds: how long that took.
        api: looks up the branches there are, where there is no such revision.
    """
    from huggingface_hub import errors

    status = status_of(error)
    place, sent = redacted(access.endpoint), f"{access.source} was sent" if access.token else "no token was sent"
    kind = f"{type(error).__name__}{f' (HTTP {status})' if status else ''}"
    revision = f"@{source.revision}" if source.revision else ""
    head = f"cannot {what} {repo_id}{revision} at {place}: {kind}"
    if isinstance(error, errors.GatedRepoError):
        reason = f"the repository is gated ({sent}). Ask for access at {place}/{repo_id}"
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason = (
            f"no such repository, or no access to it ({sent}). If a folder was meant, ./{repo_id} does not exist; a "
            "private repository needs token="
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = f"no such revision. {_revisions(repo_id, source, api)}"
    elif status in (401, 403):
        reason = f"refused ({sent})"
    elif status in (409, 412) and what != "load":
        reason = "somebody else changed it again and again meanwhile. Push again"
    elif status == 429:
        reason = "too many requests; wait, or pass token="
    elif status is not None and status >= 500:
        reason = f"the server is in trouble. {_OFFLINE}"
    elif isinstance(error, (errors.FileMetadataError, JSONDecodeError)):
        reason = "what answers there is no hub, or does not say so; look at HF_ENDPOINT and endpoint="
    elif is_outage(error):
        waited = "" if seconds is None else f" after {seconds:.1f} s"
        folder = f"If a folder was meant, ./{repo_id} does not exist. " if what == "load" else ""
        reason = f"no answer{waited}. {folder}{_OFFLINE}"
    else:
        reason = f"it did not work ({sent}). {_OFFLINE}"
    if what != "load":
        reason = reason.replace(f". {_OFFLINE}", "")
    return HubError(f"{head}: {reason}", path=repo_id, status=status, reason=reason)


def _revisions(repo_id: str, source: SourceOptions, api: Any) -> str:
    """The branches and tags there are, the nearest first."""
    if api is None:
        return "Look at the branches and tags of the repository"
    try:
        refs = api.list_repo_refs(repo_id)
    except trouble():
        return "Look at the branches and tags of the repository"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    near = difflib.get_close_matches(source.revision or "", names, n=3, cutoff=0.5)
    shown = list(dict.fromkeys([*near, *names]))[:_MAX_SHOWN]
    return f"There are: {', '.join(shown) or 'none'}"
