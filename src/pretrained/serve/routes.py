"""Which function answers which request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.responses import Response

from . import committing, discussions, pages, reading, uploads, writing, xet
from .calls import Call
from .names import KINDS
from .refusals import RefusedError
from .replies import Json

__all__ = ["answer"]

Answer = Callable[[Call], Awaitable[Response]]


def _rest(call: Call, least: int = 1) -> tuple[str, ...]:
    """The parts after the verb, of which there must be some."""
    assert call.target is not None
    if len(call.target.rest) < least or not call.target.rest[0]:
        raise RefusedError(404, "Not found")
    return call.target.rest


async def _auth_check(call: Call) -> Response:
    assert call.target is not None
    call.check_access()
    if call.target.rest[:1] == ("write",) and not call.user.owns(call.repo.id):
        raise RefusedError(403, "You may not write to this repository")
    return Json({})


async def _discussion(call: Call) -> Response:
    assert call.target is not None
    rest = [part for part in call.target.rest if part]
    return await (discussions.details(call, rest[0]) if rest else discussions.listing(call))


async def _discuss(call: Call) -> Response:
    assert call.target is not None
    match [part for part in call.target.rest if part]:
        case []:
            return await discussions.create(call)
        case [number, "comment"]:
            return await discussions.comment(call, number)
        case [number, "comment", comment, ("edit" | "hide") as what]:
            return await discussions.change(call, number, comment, what)
        case [number, "status"]:
            return await discussions.status(call, number)
        case [number, "title"]:
            return await discussions.title(call, number)
        case [number, "merge"]:
            return await discussions.merge(call, number)
    raise RefusedError(404, "Not found")


async def _lfs(call: Call) -> Response:
    match _rest(call):
        case ("lfs", "objects", "batch"):
            return await uploads.batch(call)
        case ("lfs", "objects", "verify"):
            return await uploads.verify(call)
    raise RefusedError(404, "Not found")


async def _upload(method: str, parts: list[str], call: Call) -> Response:
    match (method, parts):
        case ("PUT", [word]):
            return await uploads.whole(call, word)
        case ("PUT", [word, number]):
            return await uploads.one_part(call, word, number)
        case ("POST", [word]):
            return await uploads.complete(call, word)
    raise RefusedError(404, "Not found")


async def _nothing(call: Call) -> Response:
    return Json({})


# (method, verb) after a repository in /api/.
_API: dict[tuple[str, str], Answer] = {
    ("GET", ""): lambda call: reading.repository(call),
    ("GET", "revision"): lambda call: reading.repository(call, "/".join(_rest(call))),
    ("GET", "tree"): lambda call: reading.tree(call, _rest(call)[0], _rest(call)[1:]),
    ("POST", "paths-info"): lambda call: reading.paths(call, _rest(call)[0]),
    ("GET", "refs"): lambda call: reading.refs(call),
    ("GET", "commits"): lambda call: reading.commits(call, _rest(call)[0]),
    ("GET", "safetensors-metadata"): lambda call: reading.safetensors(call, _rest(call)),
    ("GET", "auth-check"): _auth_check,
    ("GET", "discussions"): _discussion,
    ("POST", "discussions"): _discuss,
    ("PUT", "settings"): lambda call: writing.settings(call),
    ("POST", "branch"): lambda call: writing.branch(call, "/".join(_rest(call))),
    ("DELETE", "branch"): lambda call: writing.branch(call, "/".join(_rest(call))),
    ("POST", "tag"): lambda call: writing.tag(call, "/".join(_rest(call))),
    ("DELETE", "tag"): lambda call: writing.tag(call, "/".join(_rest(call))),
    ("POST", "super-squash"): lambda call: writing.squash(call, _rest(call)[0]),
    ("POST", "preupload"): lambda call: committing.preupload(call, _rest(call)[0]),
    ("POST", "commit"): lambda call: committing.commit(call, _rest(call)[0]),
    ("GET", "xet-write-token"): lambda call: xet.write_token(call, _rest(call)[0]),
    ("GET", "user-access-request"): lambda call: writing.requests(call, _rest(call)[0]),
    ("POST", "user-access-request"): lambda call: writing.access(call, _rest(call)[0]),
}

# The same after a repository elsewhere.
_FILES: dict[tuple[str, str], Answer] = {
    ("GET", "resolve"): lambda call: reading.file(call, _rest(call, 2)[0], _rest(call)[1:]),
    ("GET", ""): lambda call: pages.model(call, "main"),
    ("GET", "tree"): lambda call: pages.model(call, "/".join(_rest(call))),
    ("GET", "commit"): lambda call: pages.commit(call, _rest(call)[0]),
    ("GET", "blob"): lambda call: pages.blob(call, _rest(call, 2)[0], _rest(call)[1:]),
    ("GET", "discussions"): lambda call: pages.discussion(call, _rest(call)[0]),
    ("POST", "info"): _lfs,
    ("POST", "ask-access"): lambda call: writing.ask_access(call),
    ("GET", "raw"): lambda call: reading.file(call, _rest(call, 2)[0], _rest(call)[1:]),
}

# Whole paths in /api/.
_PLAIN: dict[tuple[str, str], Answer] = {
    ("GET", "whoami-v2"): reading.whoami,
    ("GET", "agent-harnesses"): _nothing,
    ("POST", "repos/create"): writing.create,
    ("DELETE", "repos/delete"): writing.delete,
    ("POST", "repos/move"): writing.move,
    ("POST", "validate-yaml"): writing.validate_yaml,
    **{("GET", kind): partial(reading.listing, kind=kind) for kind in KINDS},
}


# Whole paths of pages.
_PAGES: dict[str, Answer] = {"": pages.index, "_assets/style.css": pages.style, "_assets/icon.svg": pages.icon}


def answer(method: str, parts: list[str], call: Call) -> Awaitable[Response]:
    """What answers the request. Raises RefusedError for a path that means nothing here.

    Args:
        method: of HTTP; HEAD is answered as GET.
        parts: of the path, not unescaped.
        call: the request.
    """
    asked = "GET" if method == "HEAD" else method
    if parts[:1] == ["api"] and (asked, "/".join(parts[1:])) in _PLAIN:
        return _PLAIN[asked, "/".join(parts[1:])](call)
    if asked == "GET" and "/".join(parts) in _PAGES:
        return _PAGES["/".join(parts)](call)
    if parts[0] == "_lfs":
        return _upload(method, parts[1:], call)
    if parts[0] == "_xet":
        return xet.cas(call, parts[1:])
    target = call.target
    table = _API if target is not None and target.area == "api" else _FILES
    if target is not None and (asked, target.verb) in table:
        return table[asked, target.verb](call)
    if target is not None and any(verb == target.verb for _, verb in table):
        raise RefusedError(405, f"{method} is not possible here")
    raise RefusedError(404, "Not found")
