"""Commits: which files go which way, and a body of lines that becomes one change."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from ..checkpoint.files import parse_json
from ..errors import ConfigError, ResourceLimitError
from .calls import Call
from .discussions import open_pull
from .edits import Edit, Kept
from .ignoring import is_ignored
from .names import is_digest, is_path
from .objects import MAX_REGULAR, blob_id, is_large
from .refusals import RefusedError
from .replies import Json
from .repository import resolve
from .store_repository import StoreRepository, head_of, move_head, require_head
from .writing import store_of, store_repo, text_of

__all__ = ["commit", "preupload", "ref_to_write"]

MAX_LINE = (MAX_REGULAR * 4) // 3 + (64 << 10)  # characters: a file in base64, and what is around it
MAX_COMMIT = 2 << 30  # bytes of a body
MAX_EDITS = 50_000
MAX_PREUPLOAD = 1000  # files in one call
MAX_TITLE = 500


def ref_to_write(call: Call, repo: StoreRepository, revision: str, *, by_pull: bool = False) -> str:
    """The ref that a revision names, if the user may write to it. Raises RefusedError.

    Args:
        call: the request.
        repo: the repository.
        revision: a branch, or refs/pr/N.
        by_pull: whether a new pull request is what is written to; then it is enough to be able to read.
    """
    state = repo.state
    call.check_access()
    if revision.startswith("refs/pr/"):
        ref = revision
        number = revision.removeprefix("refs/pr/")
        author = state["discussions"].get(number, {}).get("author")
        head_of(state, ref)
        if state["discussions"][number]["status"] not in ("open", "draft"):
            raise RefusedError(403, f"The pull request {number} is {state['discussions'][number]['status']}")
        is_allowed = call.user.owns(repo.id) or author == call.user.name
    else:
        ref = f"refs/heads/{revision.removeprefix('refs/heads/')}"
        head_of(state, ref)
        is_allowed = call.user.owns(repo.id)
    if not is_allowed and not by_pull:
        raise RefusedError(
            403, f"You may not write to {repo.id}: {call.user.name} does not own it. Pass create_pr=1 as a parameter"
        )
    return ref


async def preupload(call: Call, revision: str) -> Response:
    """For each file whether it goes into the commit itself or into LFS, and what is there now under its name."""
    body = await call.json()
    return Json(await run_in_threadpool(_preupload, call, revision, body))


def _preupload(call: Call, revision: str, body: dict[str, Any]) -> dict[str, Any]:
    repo = store_repo(call)
    by_pull = call.flag("create_pr")
    ref_to_write(call, repo, revision, by_pull=by_pull)
    files = body.get("files")
    if not isinstance(files, list) or len(files) > MAX_PREUPLOAD:
        raise RefusedError(400, f"files must be a list of at most {MAX_PREUPLOAD}")
    oid = resolve(repo, revision)
    there = repo.tree(oid).files if oid is not None else {}
    ignored = text_of(body.get("gitIgnore"), "gitIgnore")
    found = []
    for file in files:
        path, size, sample = _described(file)
        mode = "lfs" if is_large(path, size, sample) and size else "regular"
        item = {"path": path, "uploadMode": mode, "shouldIgnore": is_ignored(path, ignored)}
        if path in there:
            item["oid"] = there[path].etag
        found.append(item)
    return {"files": found}


def _described(file: Any) -> tuple[str, int, bytes]:
    if not isinstance(file, dict):
        raise RefusedError(400, "Each of files must be an object")
    path, size, sample = file.get("path"), file.get("size"), file.get("sample") or ""
    if not is_path(path):
        raise RefusedError(400, f"No path of a file: {str(path)!r:.200}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(sample, str):
        raise RefusedError(400, f"{path:.200}: size must be a number and sample a text")
    try:
        return str(path), size, base64.b64decode(sample[:1024], validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(400, f"{path:.200}: sample is no base64") from None


@dataclass
class _Draft:
    """What a body says, line by line. Contents that came with it are dropped unless `keep` is called.

    Attributes:
        repo: the repository.
        title: the first line of the message.
        description: the rest of it.
        parent: the commit that the branch must be at, if the client says so.
        edits: what changes.
        held: contents that are not in the store yet: file and sha256.
    """

    repo: StoreRepository
    title: str = ""
    description: str = ""
    parent: str | None = None
    edits: list[Edit] = field(default_factory=list)
    held: dict[str, Path] = field(default_factory=dict)

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *error: object) -> None:
        for path in self.held.values():
            path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Puts the contents into the store."""
        self.repo.blobs.adopt([(path, sha256) for sha256, path in self.held.items()])
        self.held.clear()

    def add(self, line: bytes) -> None:
        """Takes one line in; the content of a file goes to the disk."""
        try:
            item = parse_json(line, path="a line of the commit", max_values=1000)
        except (ConfigError, ResourceLimitError) as error:
            raise RefusedError(400, str(error)) from None
        value = item.get("value")
        if not isinstance(value, dict):
            raise RefusedError(400, "Each line must have a key and a value")
        if item.get("key") == "header":
            self.title = text_of(value.get("summary"), "summary", MAX_TITLE)
            self.description = text_of(value.get("description"), "description")
            self.parent = text_of(value.get("parentCommit"), "parentCommit", 40) or None
            return
        if len(self.edits) >= MAX_EDITS:
            raise RefusedError(413, f"A commit may have {MAX_EDITS} changes")
        path = value.get("path")
        if item.get("key") == "deletedFolder" and isinstance(path, str):
            path = path.rstrip("/")
        if not is_path(path):
            raise RefusedError(400, f"No path of a file: {str(path)!r:.200}")
        self.edits.append(self._edit(item.get("key"), str(path), value))

    def _edit(self, key: Any, path: str, value: dict[str, Any]) -> Edit:
        match key:
            case "file":
                return Edit(path, self._regular(path, value))
            case "lfsFile":
                return Edit(path, _large(path, value, self.repo))
            case "deletedFile":
                return Edit(path)
            case "deletedFolder":
                return Edit(path, is_folder=True)
        raise RefusedError(400, f"A line of a commit cannot be {str(key)!r:.40}")

    def _regular(self, path: str, value: dict[str, Any]) -> Kept:
        content = _content(path, value)
        blobs = self.repo.blobs
        blobs.require_room(len(content))
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self.held and blobs.size(sha256) is None:
            with blobs.incoming() as incoming:
                incoming.write(content)
                self.held[sha256], _ = incoming.hold()
        return Kept(len(content), blob_id(content), sha256, False)


def _content(path: str, value: dict[str, Any]) -> bytes:
    text = value.get("content")
    if not isinstance(text, str):
        raise RefusedError(400, f"{path:.200}: there is no content")
    try:
        content = base64.b64decode(text, validate=True) if value.get("encoding") == "base64" else text.encode()
    except (binascii.Error, ValueError):
        raise RefusedError(400, f"{path:.200}: the content is no base64") from None
    if len(content) > MAX_REGULAR:
        raise RefusedError(413, f"{path:.200} has {len(content)} bytes; more than {MAX_REGULAR} go into LFS")
    return content


def _large(path: str, value: dict[str, Any], repo: StoreRepository) -> Kept:
    sha256, size = value.get("oid"), value.get("size")
    if not is_digest(sha256):
        raise RefusedError(400, f"{path:.200}: oid is no sha256")
    there = repo.holds(str(sha256))
    if there is None:
        raise RefusedError(400, f"{path:.200}: its content {sha256} was not uploaded to {repo.id}")
    if size is not None and size != there:  # a copy on the server comes without
        raise RefusedError(400, f"{path:.200}: its content has {there} bytes and not {size!s:.30}")
    return Kept.large(there, str(sha256))


async def commit(call: Call, revision: str) -> Response:
    """Makes a commit of the lines of the body."""
    repo = await run_in_threadpool(store_repo, call)
    by_pull = call.flag("create_pr")
    ref = await run_in_threadpool(ref_to_write, call, repo, revision, by_pull=by_pull)
    with _Draft(repo) as draft:
        async for line in _lines(call):
            if line.strip():
                await run_in_threadpool(draft.add, line)
        return Json(await run_in_threadpool(_commit, call, repo, ref, draft, by_pull))


async def _lines(call: Call) -> AsyncIterator[bytes]:
    held: list[bytes] = []
    count = 0
    async for piece in call.stream(MAX_COMMIT):
        *whole, rest = piece.split(b"\n")
        for end in whole:
            yield b"".join([*held, end])
            held, count = [], 0
        if rest:
            held.append(rest)
            count += len(rest)
        if count > MAX_LINE:
            raise RefusedError(413, f"A line of the commit has more than {MAX_LINE} bytes")
    if held:
        yield b"".join(held)


@contextmanager
def _swept(call: Call) -> Iterator[None]:
    """A commit that is refused in the block leaves contents that are nobody's, which are not to stay for ever."""
    try:
        yield
    except RefusedError:
        store_of(call).sweep_later()
        raise


def _commit(call: Call, repo: StoreRepository, ref: str, draft: _Draft, by_pull: bool) -> dict[str, Any]:
    if not draft.title.strip():
        raise RefusedError(400, "A commit needs a summary")
    number = None
    # A proposal begins at the commit that its author looked at, wherever the branch is by now.
    start = draft.parent if by_pull and draft.parent is not None and repo.has_commit(draft.parent) else None
    if start is None:
        require_head(repo.state, ref, draft.parent)  # before its contents are in the store
    draft.keep()
    with _swept(call), repo.change() as state:
        head = start or require_head(state, ref, draft.parent)
        oid = repo.add(head, draft.edits, draft.title, draft.description, call.user.name)
        if by_pull:
            base = ref if ref.startswith("refs/pr/") else ref.removeprefix("refs/heads/")
            number = open_pull(repo, state, draft.title, draft.description, call.user.name, base, oid)
        else:
            move_head(state, ref, oid)
    url = f"{call.base}/{'' if repo.kind == 'models' else f'{repo.kind}/'}{repo.id}"
    found = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": ""}
    return found if number is None else {**found, "pullRequestUrl": f"{url}/discussions/{number}"}
