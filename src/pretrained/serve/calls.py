"""One request on its way to the function that answers it: its path in parts, who sent it, and what it is about."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from ..checkpoint.files import parse_json
from ..errors import ConfigError, ResourceLimitError
from .names import KINDS, VERBS, is_path, is_repo_id
from .people import User
from .refusals import RefusedError, missing_repo
from .repository import Repository, resolve
from .site import Site

__all__ = ["MAX_JSON", "Call", "Target", "split_target"]

MAX_JSON = 4 << 20  # bytes of a body that is kept in memory
MAX_STRANGER = 1 << 20  # the same, of those without a token
PATIENCE = 60.0  # seconds to wait for the next piece of a body
MAX_PATHS = 10_000  # names in one form

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """What a path names.

    Attributes:
        area: "api" or "" for files and pages.
        kind: of the repository.
        repo_id: its name as it stands in the path, not checked.
        verb: the word after it; "" if it ends there.
        rest: parts after the verb, each with %-escapes resolved.
    """

    area: str
    kind: str
    repo_id: str
    verb: str
    rest: tuple[str, ...]


def split_target(parts: list[str]) -> Target | None:
    """The repository that a path is about; None if it is about none.

    Args:
        parts: of the path, split at `/` before anything was unescaped, so that `refs%2Fpr%2F1` is one part.
    """
    area = "api" if parts[:1] == ["api"] else ""
    words = parts[1:] if area else parts
    kind = "models"
    if words[:1] in ([KINDS[1]], [KINDS[2]]) or (area and words[:1] == [KINDS[0]]):
        kind, words = words[0], words[1:]
    elif area:
        return None
    if not words or not words[0]:
        return None
    one_word = len(words) == 1 or (words[1] in VERBS)
    repo_id, rest = (words[0], words[1:]) if one_word else ("/".join(words[:2]), words[2:])
    if repo_id.endswith(".git"):
        repo_id = repo_id.removesuffix(".git")
    return Target(area, kind, unquote(repo_id), rest[0] if rest else "", tuple(map(unquote, rest[1:])))


@dataclass
class Call:
    """A request with all that is known about it.

    Attributes:
        request: as it came.
        site: what is served.
        user: who sent it.
        target: the repository in its path, if there is one.
        base: the address that the client sees: scheme, host and port.
    """

    request: Request
    site: Site
    user: User
    target: Target | None
    base: str

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the request, by their names in lower case."""
        return self.request.headers

    @property
    def is_head(self) -> bool:
        """Whether only the headers of the answer are wanted."""
        return self.request.method == "HEAD"

    def flag(self, name: str) -> bool:
        """A boolean of the query, however the client spells it."""
        return self.request.query_params.get(name, "").lower() in ("true", "1")

    def number(self, name: str, default: int, most: int) -> int:
        """A number of the query, `default` if there is none, and at most `most`."""
        text = self.request.query_params.get(name, "")
        return min(int(text), most) if text.isascii() and text.isdigit() and len(text) < 10 else default

    @cached_property
    def repo(self) -> Repository:
        """The repository of the path, if the user may know of it. Raises RefusedError."""
        assert self.target is not None
        found = None
        if is_repo_id(self.target.repo_id):
            found = self.site.find(self.target.kind, self.target.repo_id)
        if found is None or not self.site.may_see(self.user, found):
            raise missing_repo(self.user)
        return found

    def commit_of(self, revision: str) -> str:
        """The commit that a revision of the repository means. Raises RefusedError."""
        oid = resolve(self.repo, revision)
        if oid is None:
            raise RefusedError(404, f"Invalid rev id: {revision:.100}", "RevisionNotFound")
        return oid

    def check_access(self) -> None:
        """Raises RefusedError unless the user may read files of the repository, which may be gated."""
        if self.site.may_read(self.user, self.repo):
            return
        where = f"Access to {self.repo.kind.removesuffix('s')} {self.repo.id} is restricted"
        if self.user.is_known:
            raise RefusedError(403, f"{where} and you are not in the authorized list", "GatedRepo")
        raise RefusedError(401, f"{where}; a token of somebody with access is needed", "GatedRepo")

    def path_of(self, parts: tuple[str, ...]) -> str:
        """The file or folder that the last parts of a path name; "" for the repository itself. Raises RefusedError."""
        path = "/".join(parts).strip("/")
        if path and not is_path(path):
            raise RefusedError(400, f"No path of a file: {path!r:.200}")
        return path

    async def slowly(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` returns, once it is its turn: few such calls are worked on at once, and others need not wait."""
        return await anyio.to_thread.run_sync(partial(work, *arguments), limiter=self.site.slow)

    async def stream(self, limit: int) -> AsyncIterator[bytes]:
        """The body in pieces as they come. Raises RefusedError for more than `limit` bytes."""
        length = self.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > limit:
            raise RefusedError(413, f"The body has {length:.20} bytes; at most {limit} are accepted")
        count = 0
        pieces = self.request.stream()
        while True:
            try:
                with anyio.fail_after(PATIENCE):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except ClientDisconnect:
                raise RefusedError(400, "The connection ended before the body did") from None
            except TimeoutError:
                raise RefusedError(408, f"Nothing came for {PATIENCE:.0f} seconds") from None
            count += len(piece)
            if count > limit:
                raise RefusedError(413, f"The body has more than {limit} bytes")
            yield piece

    async def body(self, limit: int = MAX_JSON) -> bytes:
        """The whole body."""
        limit = limit if self.user.is_known else min(limit, MAX_STRANGER)
        return b"".join([piece async for piece in self.stream(limit)])

    async def json(self, limit: int = MAX_JSON) -> dict[str, Any]:
        """The body, which must be one JSON object; {} if there is none."""
        raw = await self.body(limit)
        if not raw.strip():
            return {}
        return await run_in_threadpool(_parsed, raw)

    async def form(self) -> dict[str, list[str]]:
        """The body as a form, or as a JSON object that says the same."""
        raw = await self.body()
        if self.headers.get("content-type", "").startswith("application/json"):
            value = await run_in_threadpool(_parsed, raw)
            return {key: _strings(item) for key, item in value.items()}
        try:
            return parse_qs(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_PATHS)
        except ValueError:
            raise RefusedError(413, f"More than {MAX_PATHS} fields") from None


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        return parse_json(raw, path="the body")
    except (ConfigError, ResourceLimitError) as error:
        raise RefusedError(400, str(error)) from None


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in values]
