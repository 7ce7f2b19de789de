"""Which function answers which request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.responses import Response

from . import reading
from .calls import Call
from .names import KINDS
from .replies import Json, RefusedError

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


async def _nothing(call: Call) -> Response:
    return Json({})


async def _discussions(call: Call) -> Response:
    return Json({"discussions": [], "count": 0, "start": 0, "numClosedDiscussions": 0} if call.repo else {})


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
    ("GET", "discussions"): _discussions,
}

# The same after a repository elsewhere.
_FILES: dict[tuple[str, str], Answer] = {
    ("GET", "resolve"): lambda call: reading.file(call, _rest(call, 2)[0], _rest(call)[1:]),
    ("GET", "raw"): lambda call: reading.file(call, _rest(call, 2)[0], _rest(call)[1:]),
}

# Whole paths in /api/.
_PLAIN: dict[tuple[str, str], Answer] = {
    ("GET", "whoami-v2"): reading.whoami,
    ("GET", "agent-harnesses"): _nothing,
    **{("GET", kind): partial(reading.listing, kind=kind) for kind in KINDS},
}


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
    target = call.target
    table = _API if target is not None and target.area == "api" else _FILES
    if target is not None and (asked, target.verb) in table:
        return table[asked, target.verb](call)
    if target is not None and any(verb == target.verb for _, verb in table):
        raise RefusedError(405, f"{method} is not possible here")
    raise RefusedError(404, "Not found")
