"""What every client asks: what a repository is, which files a commit has, and the files themselves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from .calls import Call
from .refusals import RefusedError
from .replies import Json, file_reply
from .repository import MAIN, Commit, HubFile, Repository, history, last_commits

__all__ = ["commits", "file", "iso", "listing", "paths", "refs", "repository", "safetensors", "tree", "whoami"]

PAGE = 1000  # entries of a listing
EXPANDED_PAGE = 50  # entries with the commit that last changed them
COMMITS_PAGE = 50
LISTED_PAGE = 100


def iso(seconds: float) -> str:
    """A time as the Hub writes it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


async def whoami(call: Call) -> Response:
    """Whose token it is."""
    user = call.user
    if not user.is_known:
        raise RefusedError(401, "A token is needed")
    return Json(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name,
            "email": None,
            "isPro": False,
            "orgs": [{"type": "org", "id": org, "name": org, "fullname": org} for org in user.orgs],
            "auth": {"type": "access_token", "accessToken": {"displayName": "serve", "role": "write"}},
        }
    )


async def listing(call: Call, kind: str) -> Response:
    """Repositories of a kind, by name, in pages."""
    return await run_in_threadpool(_listing, call, kind)


def _listing(call: Call, kind: str) -> Response:
    query = call.request.query_params
    search, author = query.get("search", "").lower(), query.get("author", "")
    size, start = call.number("limit", LISTED_PAGE, LISTED_PAGE) or 1, call.number("cursor", 0, 1 << 30)
    found = (
        repo
        for repo in call.site.listed(kind, call.user)
        if search in repo.id.lower() and (not author or repo.id.startswith(f"{author}/"))
    )
    page = list(islice(found, start, start + size + 1))
    headers = {}
    if len(page) > size:
        words = {"search": search, "author": author, "limit": str(size), "cursor": str(start + size)}
        headers["Link"] = f'<{call.base}/api/{kind}?{urlencode(words)}>; rel="next"'
    listed = []
    for repo in page[:size]:
        with suppress(RefusedError):  # one that cannot be read now does not keep the others from being listed
            listed.append(_about(repo, repo.refs().branches.get(MAIN)))
    return Json(listed, headers=headers)


async def repository(call: Call, revision: str = MAIN) -> Response:
    """What a repository is at a revision."""
    return Json(await run_in_threadpool(_repository, call, revision))


def _repository(call: Call, revision: str) -> dict[str, Any]:
    repo = call.repo
    oid = call.commit_of(revision)
    files = repo.tree(oid).files.values()
    with_blobs = call.flag("blobs")
    found = _about(repo, oid)
    found["siblings"] = [_sibling(file, with_blobs) for file in files]
    found["usedStorage"] = sum(file.size for file in files)
    return found


def _about(repo: Repository, oid: str | None) -> dict[str, Any]:
    from .cards import facts_of

    namespace, _, _ = repo.id.rpartition("/")
    modified = repo.created if oid is None else repo.commit(oid).seconds
    found: dict[str, Any] = {
        "_id": repo.id,
        "id": repo.id,
        **({"modelId": repo.id} if repo.kind == "models" else {}),
        "author": namespace or None,
        "sha": oid,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "createdAt": iso(repo.created),
        "lastModified": iso(modified),
    }
    return found if oid is None else {**found, **facts_of(repo, oid)}


def _sibling(file: HubFile, with_blobs: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": file.path}
    if with_blobs:
        found |= {"size": file.size, "blobId": file.oid}
        if file.sha256 is not None:
            found["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    return found


def _pointer_size(file: HubFile) -> int:
    return 120 + len(str(file.size))


async def tree(call: Call, revision: str, folder: tuple[str, ...]) -> Response:
    """Files and folders below a folder, in pages."""
    path = call.path_of(folder)
    if call.flag("expand"):
        return await call.slowly(_tree, call, revision, path)
    return await run_in_threadpool(_tree, call, revision, path)


def _tree(call: Call, revision: str, folder: str) -> Response:
    oid = call.commit_of(revision)
    recursive, expand = call.flag("recursive"), call.flag("expand")
    entries = call.repo.tree(oid).listed(folder, recursive=recursive)
    if entries is None:
        raise RefusedError(404, f"{folder!r:.200} does not exist on {revision:.100}", "EntryNotFound")
    size = call.number("limit", EXPANDED_PAGE if expand else PAGE, EXPANDED_PAGE if expand else PAGE) or 1
    start = call.number("cursor", 0, len(entries))
    page = entries[start : start + size]
    headers = {}
    if start + size < len(entries):
        # The commit and not the branch: a page that follows must not be of another tree.
        place = f"/api/{call.repo.kind}/{call.repo.id}/tree/{oid}" + (f"/{quote(folder, safe='')}" if folder else "")
        words = f"recursive={str(recursive).lower()}&expand={str(expand).lower()}&limit={size}&cursor={start + size}"
        headers["Link"] = f'<{call.base}{place}?{words}>; rel="next"'
    return Json(_described(call.repo, oid, page, expand), headers=headers)


def _described(repo: Repository, oid: str, entries: Sequence[HubFile | tuple[str, str]], expand: bool) -> list[Any]:
    found: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry, HubFile):
            found.append({"type": "file", "oid": entry.oid, "size": entry.size, "path": entry.path})
            if entry.sha256 is not None:
                found[-1]["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": _pointer_size(entry)}
        else:
            found.append({"type": "directory", "oid": entry[1], "size": 0, "path": entry[0]})
    if expand:
        last = last_commits(repo, oid, [item["path"] for item in found])
        for item in found:
            commit = last[item["path"]]
            item["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": iso(commit.seconds)}
    return found


async def paths(call: Call, revision: str) -> Response:
    """The entries of a few paths; those that do not exist are left out."""
    form = await call.form()
    expand = (form.get("expand") or [""])[0].lower() in ("true", "1")
    names = form.get("paths", [])
    if expand:
        return Json(await call.slowly(_paths, call, revision, names, True))
    return Json(await run_in_threadpool(_paths, call, revision, names, False))


def _paths(call: Call, revision: str, names: list[str], expand: bool) -> list[Any]:
    oid = call.commit_of(revision)
    found = call.repo.tree(oid)
    entries: list[HubFile | tuple[str, str]] = []
    for name in dict.fromkeys(name.strip("/") for name in names):
        if name in found.files:
            entries.append(found.files[name])
        elif name and name in found.folders:
            entries.append((name, found.folders[name]))
    return _described(call.repo, oid, entries, expand)


async def refs(call: Call) -> Response:
    """Branches, tags and, if asked for, pull requests."""
    found = await run_in_threadpool(lambda: call.repo.refs())
    document = {
        "branches": [_ref(name, f"refs/heads/{name}", oid) for name, oid in found.branches.items()],
        "tags": [_ref(name, f"refs/tags/{name}", oid) for name, oid in found.tags.items()],
        "converts": [],
    }
    if call.flag("include_prs"):
        document["pullRequests"] = [_ref(f"pr/{n}", f"refs/pr/{n}", oid) for n, oid in found.pulls.items()]
    return Json(document)


def _ref(name: str, ref: str, oid: str) -> dict[str, str]:
    return {"name": name, "ref": ref, "targetCommit": oid}


async def commits(call: Call, revision: str) -> Response:
    """The commits up to a revision, newest first, in pages."""
    return await run_in_threadpool(_commits, call, revision)


def _commits(call: Call, revision: str) -> Response:
    oid = call.commit_of(revision)
    size = call.number("limit", COMMITS_PAGE, 1000) or 1
    page: list[Commit] = []
    headers = {}
    for commit in history(call.repo, oid):
        if len(page) == size:
            place = f"/api/{call.repo.kind}/{call.repo.id}/commits/{commit.oid}"
            headers["Link"] = f'<{call.base}{place}?limit={size}>; rel="next"'
            break
        page.append(commit)
    return Json(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.description,
                "date": iso(commit.seconds),
                "authors": [{"user": commit.author}],
                "parents": list(commit.parents),
            }
            for commit in page
        ],
        headers=headers,
    )


async def file(call: Call, revision: str, parts: tuple[str, ...]) -> Response:
    """A file of a commit, or the part of it that is asked for."""
    return await run_in_threadpool(_file, call, revision, "/".join(parts))


def _file(call: Call, revision: str, path: str) -> Response:
    call.check_access()
    oid = call.commit_of(revision)
    found = call.repo.tree(oid).files.get(path)
    headers = {"X-Repo-Commit": oid, "Cache-Control": "no-cache"}
    if found is None:
        raise RefusedError(404, f"Entry not found: {path!r:.200}", "EntryNotFound", headers)
    if found.sha256 is not None:
        headers |= {"X-Linked-Etag": f'"{found.sha256}"', "X-Linked-Size": str(found.size)}
    try:
        fd = call.repo.open(oid, found)
    except OSError:
        # A folder changed under a client: what it was promised is not there any more.
        raise RefusedError(404, f"The files of {oid} are not here any more", "RevisionNotFound") from None
    return file_reply(fd, found, headers, call.headers, head=call.is_head, download=call.flag("download"))


async def safetensors(call: Call, parts: tuple[str, ...]) -> Response:
    """The headers of all shards of an index on main, in one document."""
    from .tensors import sharded_metadata

    return Json(await run_in_threadpool(sharded_metadata, call, "/".join(parts)))
