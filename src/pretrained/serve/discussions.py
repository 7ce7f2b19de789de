"""Discussions and pull requests."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from ..checkpoint.files import read_json
from .calls import Call
from .disk_store import write_json
from .edits import conflicts, merged
from .reading import iso
from .refusals import RefusedError
from .replies import Json
from .repository import MAIN, history
from .store_repository import State, StoreRepository, head_of, move_head
from .writing import store_repo, text_of

__all__ = ["change", "comment", "create", "described", "details", "listing", "merge", "open_pull", "status", "title"]

PAGE = 50
MAX_TITLE, MIN_TITLE = 200, 3
MAX_EVENTS = 2000
MAX_SAID = 1 << 20  # characters of a discussion
MAX_OPEN = 100  # discussions of one user in one repository
MAX_DISCUSSIONS = 10_000
MAX_DIFF = 1000  # lines
_OPEN = ("open", "draft")


def open_pull(
    repo: StoreRepository, state: State, title: str, description: str, author: str, base: str, oid: str
) -> int:
    """Notes a pull request whose commit is `oid`, and returns its number."""
    number = _open(repo, state, title, description, author, base)
    state["pulls"][str(number)] = oid
    return number


def _open(repo: StoreRepository, state: State, title: str, description: str, author: str, base: str | None) -> int:
    found = state["discussions"]
    number = len(found) + 1
    if number > MAX_DISCUSSIONS:
        raise RefusedError(403, f"There are {MAX_DISCUSSIONS} discussions; that is as many as there may be")
    if sum(one["author"] == author and one["status"] in _OPEN for one in found.values()) >= MAX_OPEN:
        raise RefusedError(403, f"{author} has {MAX_OPEN} open discussions here; that is as many as there may be")
    found[str(number)] = {
        "title": title[:MAX_TITLE],
        "author": author,
        "created": time.time(),
        "status": "open" if base is None else "draft",
        "base": base,
        "merge": None,
    }
    _write_events(repo, str(number), [_event("comment", author, _content(description))] if description else [])
    return number


def _content(text: str) -> dict[str, Any]:
    return {"edited": False, "hidden": False, "latest": {"raw": text}}


def _event(kind: str, author: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": secrets.token_hex(12),
        "type": kind,
        "createdAt": iso(time.time()),
        "author": {"name": author},
        "data": dict(content),
    }


def _events(repo: StoreRepository, number: str) -> list[dict[str, Any]]:
    """What was said; kept apart from the state, so that nobody makes another's repository heavy by talking."""
    found = read_json(repo.home / "discussions" / f"{number}.json")["events"]
    return list(found)


def _write_events(repo: StoreRepository, number: str, events: list[dict[str, Any]]) -> None:
    size = sum(len(str(event["data"])) for event in events)
    if len(events) > MAX_EVENTS or size > MAX_SAID:
        raise RefusedError(403, "There is no room for more to be said in this discussion")
    write_json(repo.home / "discussions" / f"{number}.json", {"events": events})


def _add(repo: StoreRepository, number: str, event: dict[str, Any]) -> dict[str, Any]:
    _write_events(repo, number, [*_events(repo, number), event])
    return event


async def listing(call: Call) -> Response:
    """Discussions and pull requests, the newest first, in pages."""
    return Json(await run_in_threadpool(_listing, call))


def _listing(call: Call) -> dict[str, Any]:
    repo = call.repo
    query = call.request.query_params
    found: list[dict[str, Any]] = []
    if isinstance(repo, StoreRepository):
        wanted = {"pull_request": True, "discussion": False}.get(query.get("type", ""))
        for number, one in sorted(repo.state["discussions"].items(), key=lambda item: -int(item[0])):
            is_open = one["status"] in _OPEN
            if (
                wanted in (None, one["base"] is not None)
                and query.get("author", one["author"]) == one["author"]
                and query.get("status", "all") in ("all", "", "open" if is_open else "closed")
            ):
                found.append(_summary(repo, number, one))
    start = call.number("p", 0, 1_000_000) * PAGE
    closed = sum(one["status"] not in _OPEN for one in found)
    return {"discussions": found[start : start + PAGE], "count": len(found), "start": start, "numClosed": closed}


def _summary(repo: StoreRepository, number: str, one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num": int(number),
        "title": one["title"],
        "author": {"name": one["author"]},
        "createdAt": iso(one["created"]),
        "status": one["status"],
        "isPullRequest": one["base"] is not None,
        "repo": {"name": repo.id, "type": repo.kind.removesuffix("s")},
    }


def _one(state: Mapping[str, Any], number: str) -> Any:
    if number not in state["discussions"]:
        raise RefusedError(404, f"No discussion {number:.20}")
    return state["discussions"][number]


async def details(call: Call, number: str) -> Response:
    """One discussion with all that was said."""
    return Json(await call.slowly(described, call, number))


def described(call: Call, number: str) -> dict[str, Any]:
    """The same as a document. Raises RefusedError if there is none."""
    repo = call.repo
    if not isinstance(repo, StoreRepository):
        raise RefusedError(404, f"No discussion {number:.20}")
    state = repo.state
    one = _one(state, number)
    found = {**_summary(repo, number, one), "events": _events(repo, number)}
    if one["base"] is None:
        return found
    head = state["pulls"][number]
    ours = _base_commit(state, one)
    start = repo.ancestor(ours, head) or ours
    base, there, theirs = (repo.tree(oid).kept for oid in (start, ours, head))
    if one["status"] in _OPEN:
        found["filesWithConflicts"] = conflicts(base, there, theirs)
        for commit in reversed([c for c, _ in zip(_since(repo, head, start), range(100), strict=False)]):
            event = _event("commit", commit.author, {"subject": commit.title, "oid": commit.oid})
            found["events"].append({**event, "id": commit.oid[:24], "createdAt": iso(commit.seconds)})
    else:
        found["filesWithConflicts"] = []
    changed = [path for path in sorted({*base, *theirs}) if base.get(path) != theirs.get(path)]
    if call.flag("diff"):
        kinds = [("A" if path not in base else "D" if path not in theirs else "M", path) for path in changed]
        found["diff"] = "".join(f"{kind}\t{path}\n" for kind, path in kinds[:MAX_DIFF])
    found["changes"] = {"base": _base_ref(one), "mergeCommitId": one["merge"]}
    return found


def _since(repo: StoreRepository, head: str, start: str) -> Any:
    for commit in history(repo, head):
        if commit.oid == start:
            return
        yield commit


def _base_ref(one: Mapping[str, Any]) -> str:
    return one["base"] if one["base"].startswith("refs/") else f"refs/heads/{one['base']}"


def _base_commit(state: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """Where the branch is that a pull request is for; main, once that branch is gone."""
    try:
        return head_of(state, _base_ref(one))
    except RefusedError:
        return head_of(state, f"refs/heads/{MAIN}")


async def create(call: Call) -> Response:
    """Opens a discussion, or a pull request that changes nothing yet."""
    body = await call.json()
    return await run_in_threadpool(_create, call, body)


def _create(call: Call, body: Mapping[str, Any]) -> Response:
    repo = store_repo(call)
    call.check_access()
    name = text_of(body.get("title"), "title", MAX_TITLE).strip()
    if len(name) < MIN_TITLE:
        raise RefusedError(400, f"The title must have at least {MIN_TITLE} characters")
    description = text_of(body.get("description"), "description")
    with repo.change() as state:
        if body.get("pullRequest"):
            head = head_of(state, f"refs/heads/{MAIN}")
            number = open_pull(repo, state, name, description, call.user.name, MAIN, head)
        else:
            number = _open(repo, state, name, description, call.user.name, None)
    return Json(_summary(repo, str(number), repo.state["discussions"][str(number)]))


async def comment(call: Call, number: str) -> Response:
    """Says something."""
    body = await call.json()
    text = text_of(body.get("comment"), "comment")
    if not text:
        raise RefusedError(400, "The comment is empty")

    def run() -> dict[str, Any]:
        repo = store_repo(call)
        call.check_access()
        with repo.lock:
            _one(repo.state, number)
            return _add(repo, number, _event("comment", call.user.name, _content(text)))

    return Json({"newMessage": await run_in_threadpool(run)})


async def change(call: Call, number: str, comment_id: str, what: str) -> Response:
    """Edits or hides what the user said, or what somebody said in a repository of the user's."""
    body = await call.json()
    text = text_of(body.get("content"), "content")

    def run() -> dict[str, Any]:
        repo = store_repo(call)
        with repo.lock:
            _one(repo.state, number)
            events = _events(repo, number)
            event = next((event for event in events if event["id"] == comment_id), None)
            if event is None or event["type"] != "comment":
                raise RefusedError(404, f"No comment {comment_id:.40}")
            is_own = event["author"]["name"] == call.user.name
            if not is_own and not (what == "hide" and call.user.owns(repo.id)):
                raise RefusedError(403, "This is not your comment")
            if what == "hide":
                event["data"] = {"edited": False, "hidden": True, "latest": {"raw": "This comment has been hidden"}}
            else:
                event["data"] = {**_content(text), "edited": True}
            _write_events(repo, number, events)
            return dict(event)

    return Json({"updatedComment": await run_in_threadpool(run)})


def _require_part(call: Call, repo: StoreRepository, one: Mapping[str, Any]) -> None:
    if not call.user.owns(repo.id) and one["author"] != call.user.name:
        raise RefusedError(403, "This is neither your discussion nor your repository")


async def title(call: Call, number: str) -> Response:
    """Gives a discussion another title."""
    body = await call.json()
    name = text_of(body.get("title"), "title", MAX_TITLE).strip()
    if len(name) < MIN_TITLE:
        raise RefusedError(400, f"The title must have at least {MIN_TITLE} characters")

    def run() -> dict[str, Any]:
        repo = store_repo(call)
        with repo.change() as state:
            one = _one(state, number)
            _require_part(call, repo, one)
            before, one["title"] = one["title"], name
            return _add(repo, number, _event("title-change", call.user.name, {"from": before, "to": name}))

    return Json({"newTitle": await run_in_threadpool(run)})


async def status(call: Call, number: str) -> Response:
    """Opens or closes a discussion."""
    body = await call.json()
    new, text = body.get("status"), text_of(body.get("comment"), "comment")
    if new not in ("open", "closed"):
        raise RefusedError(400, f"The status is open or closed, not {str(new)!r:.40}")

    def run() -> dict[str, Any]:
        repo = store_repo(call)
        with repo.change() as state:
            one = _one(state, number)
            _require_part(call, repo, one)
            if one["status"] == "merged":
                raise RefusedError(400, f"The pull request {number} is merged")
            if one["status"] == new:
                raise RefusedError(400, f"The discussion {number} is {new} already")
            one["status"] = new
            if text:
                _add(repo, number, _event("comment", call.user.name, _content(text)))
            return _add(repo, number, _event("status-change", call.user.name, {"status": new}))

    return Json({"newStatus": await run_in_threadpool(run)})


async def merge(call: Call, number: str) -> Response:
    """Makes the changes of a pull request part of the branch that it is for."""
    body = await call.json()
    text = text_of(body.get("comment"), "comment")
    return await run_in_threadpool(_merge, call, number, text)


def _merge(call: Call, number: str, text: str) -> Response:
    repo = store_repo(call)
    if not call.user.owns(repo.id):
        raise RefusedError(403, f"You may not merge into {repo.id}")
    with repo.change() as state:
        one = _one(state, number)
        if one["base"] is None:
            raise RefusedError(400, f"The discussion {number} is no pull request")
        if one["status"] not in _OPEN:
            raise RefusedError(400, f"The pull request {number} is {one['status']} already")
        ref = _base_ref(one)
        ours, theirs = head_of(state, ref), state["pulls"][number]
        start = repo.ancestor(ours, theirs)
        base = repo.tree(start).kept if start is not None else {}
        kept = merged(base, repo.tree(ours).kept, repo.tree(theirs).kept)
        oid = repo.write_commit(kept, (ours, theirs), f"{one['title']} (#{number})", "", call.user.name)
        move_head(state, ref, oid)
        one["status"], one["merge"] = "merged", oid
        if text:
            _add(repo, number, _event("comment", call.user.name, _content(text)))
        _add(repo, number, _event("status-change", call.user.name, {"status": "merged"}))
    return Json({"mergeCommitId": oid})
