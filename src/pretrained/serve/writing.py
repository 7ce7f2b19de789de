"""Repositories, branches and tags: made, changed and removed by those who own them."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from .calls import Call
from .cards import MAX_CARD, front_matter
from .names import KINDS, is_ref_name, is_repo_id, is_word, split_id
from .refusals import RefusedError, missing_repo
from .replies import Json
from .repository import MAIN, resolve
from .store import Store
from .store_repository import StoreRepository, head_of

__all__ = [
    "access",
    "ask_access",
    "branch",
    "create",
    "delete",
    "move",
    "own_repo",
    "requests",
    "require_user",
    "settings",
    "squash",
    "store_of",
    "store_repo",
    "tag",
    "text_of",
    "validate_yaml",
]

MAX_REFS = 10_000
MAX_MESSAGE = 64 << 10  # characters


def require_user(call: Call) -> None:
    """Raises RefusedError for nobody."""
    if not call.user.is_known:
        raise RefusedError(401, "A token is needed to write")


def store_of(call: Call) -> Store:
    """The store that can be written to. Raises RefusedError if there is none."""
    if call.site.store is None:
        raise RefusedError(403, "This server is read-only; it was started without --writable")
    return call.site.store


def store_repo(call: Call) -> StoreRepository:
    """The repository of the path, if it can be written to at all. Raises RefusedError."""
    require_user(call)
    store_of(call)
    repo = call.repo
    if not isinstance(repo, StoreRepository):
        raise RefusedError(403, f"{repo.id} is a folder of the server's, which nobody can write to from outside")
    return repo


def own_repo(call: Call) -> StoreRepository:
    """The same, if it is the user's. Raises RefusedError."""
    repo = store_repo(call)
    if not call.user.owns(repo.id):
        raise RefusedError(403, f"You may not write to {repo.id}: {call.user.name} does not own it")
    return repo


def text_of(value: Any, name: str, most: int = MAX_MESSAGE) -> str:
    """A text that a client sent, "" if it is missing. Raises RefusedError for anything else or too long a one."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise RefusedError(400, f"{name} must be a text of at most {most} characters")
    return value.encode("utf-8", "replace").decode("utf-8")


def _kind(value: Any) -> str:
    kind = f"{value or 'model'}s"
    if kind not in KINDS:
        raise RefusedError(400, f"There are models, datasets and spaces here, and no {str(value)!r:.40}")
    return kind


def _is_private(body: dict[str, Any]) -> bool | None:
    """What a client says about who may see a repository, in either of two ways; None if it says nothing."""
    visibility, private = body.get("visibility"), body.get("private")
    if visibility is not None:
        if visibility not in ("public", "private"):
            raise RefusedError(400, f"The visibility is public or private, not {str(visibility)!r:.40}")
        return bool(visibility == "private")
    return None if private is None else bool(private)


async def create(call: Call) -> Response:
    """Makes a repository of the user's, or of an organisation's."""
    body = await call.json()
    return await run_in_threadpool(_create, call, body)


def _create(call: Call, body: dict[str, Any]) -> Response:
    require_user(call)
    store = store_of(call)
    kind = _kind(body.get("type"))
    name, namespace = body.get("name"), body.get("organization") or call.user.name
    if isinstance(name, str) and "/" in name:
        namespace, name = split_id(name)
    repo_id = f"{namespace}/{name}"
    if not is_word(name) or not is_repo_id(repo_id):
        raise RefusedError(400, f"No name of a repository: {repo_id!r:.200}")
    if not call.user.owns(repo_id):
        raise RefusedError(403, f"You may not create {repo_id}: {call.user.name} is not and has no part in {namespace}")
    url = _url(call, kind, repo_id)
    taken = call.site.find(kind, repo_id)
    if taken is not None:
        raise RefusedError(409, f"You already created this {kind.removesuffix('s')} repo: {repo_id}", body={"url": url})
    try:
        store.create(kind, repo_id, call.user.name, private=bool(_is_private(body)))
    except RefusedError as error:
        error.body["url"] = url
        raise
    return Json({"url": url, "name": repo_id, "id": repo_id})


def _url(call: Call, kind: str, repo_id: str) -> str:
    return f"{call.base}/{'' if kind == 'models' else f'{kind}/'}{repo_id}"


def _named(call: Call, kind: str, repo_id: object) -> StoreRepository:
    """A repository of the user's that a body names. Raises RefusedError."""
    require_user(call)
    store_of(call)
    repo = call.site.find(kind, repo_id) if isinstance(repo_id, str) and is_repo_id(repo_id) else None
    if repo is None or not call.site.may_see(call.user, repo):
        raise missing_repo(call.user)
    if not isinstance(repo, StoreRepository) or not call.user.owns(repo.id):
        raise RefusedError(403, f"You may not change {repo.id}")
    return repo


async def delete(call: Call) -> Response:
    """Removes a repository."""
    body = await call.json()
    name, namespace = body.get("name"), body.get("organization") or call.user.name
    repo_id = name if isinstance(name, str) and "/" in name else f"{namespace}/{name}"
    repo = _named(call, _kind(body.get("type")), repo_id)
    await run_in_threadpool(store_of(call).delete, repo)
    return Json({})


async def move(call: Call) -> Response:
    """Gives a repository another name, or another owner whom the user belongs to."""
    body = await call.json()
    kind = _kind(body.get("type"))
    repo = _named(call, kind, body.get("fromRepo"))
    target = body.get("toRepo")
    if not is_repo_id(target) or "/" not in str(target):
        raise RefusedError(400, f"No name of a repository: {str(target)!r:.200}")
    if not call.user.owns(str(target)):
        raise RefusedError(403, f"You may not move a repository to {target}")
    if call.site.find(kind, str(target)) is not None:
        raise RefusedError(409, f"There is a {target} already")
    await run_in_threadpool(store_of(call).move, repo, str(target))
    return Json({"url": _url(call, kind, str(target))})


async def settings(call: Call) -> Response:
    """Changes who sees and who reads a repository."""
    body = await call.json()
    return await run_in_threadpool(_settings, call, body)


def _settings(call: Call, body: dict[str, Any]) -> Response:
    repo = own_repo(call)
    private, gated = _is_private(body), body.get("gated", repo.gated)
    if gated not in (False, "auto", "manual"):
        raise RefusedError(400, f"gated is false, auto or manual, not {str(gated)!r:.40}")
    with repo.change() as state:
        state["gated"] = gated
        if private is not None:
            state["private"] = private
    return Json({"private": repo.private, "gated": repo.gated})


async def branch(call: Call, name: str) -> Response:
    """Makes or removes a branch."""
    body = await call.json() if call.request.method == "POST" else {}
    return await run_in_threadpool(_branch, call, name, body)


def _branch(call: Call, name: str, body: dict[str, Any]) -> Response:
    repo = own_repo(call)
    if not is_ref_name(name):
        raise RefusedError(400, f"No name of a branch: {name!r:.200}")
    with repo.change() as state:
        if call.request.method == "DELETE":
            if name == MAIN:
                raise RefusedError(403, "The branch main cannot be deleted")
            if state["branches"].pop(name, None) is None:
                raise RefusedError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        else:
            _require_new(state, "branches", name)
            start = text_of(body.get("startingPoint"), "startingPoint", 300) or MAIN
            state["branches"][name] = _commit_of(repo, start)
    return Json({})


def _require_new(state: dict[str, Any], what: str, name: str) -> None:
    if name in state["branches"] or name in state["tags"]:
        raise RefusedError(409, f"Reference already exists: {name}")
    if len(state[what]) >= MAX_REFS:
        raise RefusedError(403, f"There are {MAX_REFS} {what}; that is as many as there may be")


def _commit_of(repo: StoreRepository, revision: str) -> str:
    oid = resolve(repo, revision)
    if oid is None:
        raise RefusedError(404, f"Invalid rev id: {revision:.100}", "RevisionNotFound")
    return oid


async def tag(call: Call, name: str) -> Response:
    """Makes a tag at a revision, or removes one."""
    body = await call.json() if call.request.method == "POST" else {}
    return await run_in_threadpool(_tag, call, name, body)


def _tag(call: Call, where: str, body: dict[str, Any]) -> Response:
    repo = own_repo(call)
    with repo.change() as state:
        if call.request.method == "DELETE":
            if state["tags"].pop(where, None) is None:
                raise RefusedError(404, f"Invalid rev id: {where:.100}", "RevisionNotFound")
            return Json({})
        name = body.get("tag")
        if not is_ref_name(name):
            raise RefusedError(400, f"No name of a tag: {str(name)!r:.200}")
        _require_new(state, "tags", str(name))
        state["tags"][name] = _commit_of(repo, where)
    return Json({})


async def squash(call: Call, name: str) -> Response:
    """Makes one commit of all that led to a branch."""
    body = await call.json()
    return await run_in_threadpool(_squash, call, name, text_of(body.get("message"), "message", 500))


def _squash(call: Call, name: str, message: str) -> Response:
    repo = own_repo(call)
    with repo.change() as state:
        kept = repo.tree(head_of(state, f"refs/heads/{name}")).kept
        state["branches"][name] = repo.write_commit(kept, (), message or f"Squash {name}", "", call.user.name)
    return Json({})


async def ask_access(call: Call) -> Response:
    """Asks for the files of a gated repository; where it is gated "auto", that is all there is to do."""
    require_user(call)
    return await run_in_threadpool(_ask_access, call)


def _ask_access(call: Call) -> Response:
    repo = store_repo(call)
    with repo.change() as state:
        known = state["readers"].get(call.user.name)
        if known is None or known["status"] == "pending":
            status = "accepted" if state["gated"] == "auto" else "pending"
            state["readers"][call.user.name] = _reader(status)
    return Json({"status": repo.state["readers"][call.user.name]["status"]})


def _reader(status: str) -> dict[str, Any]:
    import time

    return {"status": status, "time": time.time()}


async def access(call: Call, what: str) -> Response:
    """Answers a user who asked for access, or gives it to one who did not."""
    body = await call.json()
    return await run_in_threadpool(_access, call, what, body)


def _access(call: Call, what: str, body: dict[str, Any]) -> Response:
    repo = own_repo(call)
    name = body.get("user") or body.get("requestId")
    user = call.site.people.find(name)
    if user is None:
        raise RefusedError(404, f"No user {str(name)!r:.100}")
    status = "accepted" if what == "grant" else body.get("status")
    if status not in ("accepted", "rejected", "pending"):
        raise RefusedError(400, f"The status is accepted, rejected or pending, not {str(status)!r:.40}")
    with repo.change() as state:
        known = state["readers"].get(user.name)
        if what == "handle" and known is None:
            raise RefusedError(404, f"{user.name} did not ask for access")
        if known is not None and known["status"] == status:
            raise RefusedError(400, f"The request of {user.name} is {status} already")
        state["readers"][user.name] = _reader(status)
    return Json({})


async def requests(call: Call, status: str) -> Response:
    """Users who asked for access."""
    from .reading import iso

    repo = own_repo(call)
    return Json(
        [
            {
                "requestId": name,
                "status": status,
                "timestamp": iso(one["time"]),
                "user": {"user": name, "fullname": name},
            }
            for name, one in repo.state["readers"].items()
            if one["status"] == status
        ]
    )


async def validate_yaml(call: Call) -> Response:
    """What is wrong with the facts at the head of a card."""
    body = await call.json(MAX_CARD)
    text = text_of(body.get("content"), "content", MAX_CARD)
    _, errors = await call.slowly(front_matter, text)
    reply = {"errors": [{"message": error} for error in errors], "warnings": []}
    return Json(reply, 400 if errors else 200)
