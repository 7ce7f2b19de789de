"""Large files by Git LFS: at once, or in parts that arrive in any order and outlive a server that is killed.

Source: the LFS batch API, and the Hub's multipart transfer as huggingface_hub speaks it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from .calls import Call
from .disk_store import Incoming
from .names import is_digest
from .refusals import RefusedError
from .replies import Json
from .signing import Leave, sign, unsign
from .store import Store
from .store_repository import StoreRepository
from .writing import store_of, store_repo

__all__ = ["batch", "complete", "leave_of", "one_part", "pour", "verify", "whole"]

CHUNK = 64 << 20  # bytes of a part, if that makes no more than MAX_PARTS
MAX_PARTS = 1000
MAX_OBJECTS = 1000  # in one call
LEAVE = 24 * 3600.0  # seconds in which an upload must be through
BATCH = 1 << 20  # bytes that are collected before they are written


async def pour(call: Call, limit: int, write: Callable[[bytes], None]) -> int:
    """Hands the body on in large pieces; returns its bytes. Raises RefusedError for more than `limit`."""
    held: list[bytes] = []
    size = total = 0
    async for piece in call.stream(limit):
        held.append(piece)
        size += len(piece)
        total += len(piece)
        if size >= BATCH:
            await run_in_threadpool(write, b"".join(held))
            held, size = [], 0
    if held:
        await run_in_threadpool(write, b"".join(held))
    return total


async def batch(call: Call) -> Response:
    """For each content the address to upload it to, or nothing if the repository has it."""
    body = await call.json()
    reply = Json(await run_in_threadpool(_batch, call, body))
    reply.headers["Content-Type"] = "application/vnd.git-lfs+json"
    return reply


def _batch(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    repo = store_repo(call)
    call.check_access()
    if body.get("operation") != "upload":
        raise RefusedError(400, "Files are downloaded from /resolve/; only uploads come here")
    transfers, objects = body.get("transfers") or ["basic"], body.get("objects")
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS or not isinstance(transfers, list):
        raise RefusedError(400, f"objects must be a list of at most {MAX_OBJECTS}")
    if body.get("hash_algo", "sha256") != "sha256":
        raise RefusedError(409, "Contents are named by their sha256 here")
    found = [_object(call, repo, one, "multipart" in transfers) for one in objects]
    parts = any("chunk_size" in one.get("actions", {}).get("upload", {}).get("header", {}) for one in found)
    return {"transfer": "multipart" if parts else "basic", "objects": found, "hash_algo": "sha256"}


def _object(call: Call, repo: StoreRepository, one: Any, may_part: bool) -> dict[str, Any]:
    oid, size = (one.get("oid"), one.get("size")) if isinstance(one, dict) else (None, None)
    if not is_digest(oid) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise RefusedError(400, "Each object must have a sha256 and a size")
    found: dict[str, Any] = {"oid": oid, "size": size}
    if repo.holds(str(oid)) == size:
        return found
    if size > call.site.max_file:
        message = f"{size} bytes; this server takes at most {call.site.max_file}"
        return {**found, "error": {"code": 422, "message": message}}
    chunk = max(CHUNK, -(-size // MAX_PARTS)) if may_part and size > CHUNK else 0
    leave = Leave("lfs", call.user.name, repo.kind, repo.id, time.time() + LEAVE, str(oid), size, chunk)
    href = f"{call.base}/_lfs/{sign(store_of(call).secret, leave)}"
    header = {}
    if chunk:
        header = {str(n): f"{href}/{n}" for n in range(1, -(-size // chunk) + 1)} | {"chunk_size": str(chunk)}
    prefix = "" if repo.kind == "models" else f"{repo.kind}/"
    check = f"{call.base}/{prefix}{repo.id}.git/info/lfs/objects/verify"
    return {**found, "actions": {"upload": {"href": href, "header": header}, "verify": {"href": check}}}


def leave_of(call: Call, word: str, what: str) -> tuple[Store, StoreRepository, Leave]:
    """What a signed word allows, if its user and its repository are still there. Raises RefusedError."""
    store = store_of(call)
    leave = unsign(store.secret, word, what)
    user = call.site.people.find(leave.user)
    repo = store.find(leave.kind, leave.repo_id)
    if user is None or repo is None or not call.site.may_read(user, repo):
        raise RefusedError(403, "Who or what this leave was for is not here any more")
    return store, repo, leave


async def whole(call: Call, word: str) -> Response:
    """Takes a content at once."""
    store, repo, leave = await run_in_threadpool(leave_of, call, word, "lfs")
    if leave.chunk:
        raise RefusedError(400, "This content is to come in parts")
    store.blobs.require_room(leave.size)
    with await run_in_threadpool(store.blobs.incoming) as incoming:
        await pour(call, leave.size, incoming.write)
        await run_in_threadpool(_keep, incoming, repo, leave)
    return Json({}, headers={"ETag": f'"{leave.oid}"'})


def _keep(incoming: Incoming, repo: StoreRepository, leave: Leave) -> None:
    if incoming.size != leave.size or incoming.sha256 != leave.oid:
        raise RefusedError(
            400, f"{incoming.size} bytes with the sha256 {incoming.sha256} came; {leave.size} of {leave.oid} were due"
        )
    incoming.keep()
    repo.grant(leave.oid)


def _key(leave: Leave) -> str:
    """The name of a partial upload; another user, repository or content has another one."""
    text = "\n".join((leave.user, leave.kind, leave.repo_id, leave.oid, str(leave.size), str(leave.chunk)))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


async def one_part(call: Call, word: str, number: str) -> Response:
    """Takes one part of a content, and puts it in its place."""
    store, _, leave = await run_in_threadpool(leave_of, call, word, "lfs")
    index = int(number) - 1 if number.isascii() and number.isdigit() and len(number) < 6 else -1
    offset = index * leave.chunk
    if not leave.chunk or index < 0 or offset >= leave.size:
        raise RefusedError(400, f"No part {number:.10} of this content")
    count = min(leave.chunk, leave.size - offset)
    store.blobs.require_room(count)
    digest = hashlib.sha256()
    key = _key(leave)
    with ExitStack() as stack:
        turn = await run_in_threadpool(stack.enter_context, call.site.partials.writing(key))
        fd = os.open(store.root / "parts" / key, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        stack.callback(os.close, fd)
        place = [offset]

        def write(piece: bytes) -> None:
            digest.update(piece)
            turn(partial(_write_at, fd, piece, place[0]))
            place[0] += len(piece)

        came = await pour(call, count, write)
        if came != count:
            raise RefusedError(400, f"{came} bytes came; part {index + 1} has {count}")
        await run_in_threadpool(os.fsync, fd)
    return Json({}, headers={"ETag": f'"{digest.hexdigest()}"'})


def _write_at(fd: int, piece: bytes, offset: int) -> None:
    view = memoryview(piece)
    while len(view):
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


async def complete(call: Call, word: str) -> Response:
    """Makes the parts one content, if they are the content that was announced."""
    store, repo, leave = await run_in_threadpool(leave_of, call, word, "lfs")
    body = await call.json()
    if body.get("oid", leave.oid) != leave.oid:
        raise RefusedError(400, "These are the parts of another content")
    await run_in_threadpool(_complete, call, store, repo, leave)
    return Json({})


def _complete(call: Call, store: Store, repo: StoreRepository, leave: Leave) -> None:
    path = store.root / "parts" / _key(leave)
    with call.site.partials.completing(_key(leave)):
        if repo.holds(leave.oid) == leave.size:  # the answer to the first attempt was lost
            path.unlink(missing_ok=True)
            return
        if not path.exists():
            raise RefusedError(400, "No part of this content has come")
        size, found = _digest(path)
        if size != leave.size or found != leave.oid:
            path.unlink(missing_ok=True)
            raise RefusedError(400, f"The parts have {size} bytes and the sha256 {found}; {leave.oid} was due")
        store.blobs.adopt([(path, leave.oid)])
        repo.grant(leave.oid)


def _digest(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(4 << 20):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


async def verify(call: Call) -> Response:
    """Whether a content has come."""
    body = await call.json()

    def run() -> None:
        repo = store_repo(call)
        call.check_access()
        oid = body.get("oid")
        if not is_digest(oid) or repo.holds(str(oid)) != body.get("size"):
            raise RefusedError(404, "This content was not uploaded here")

    await run_in_threadpool(run)
    return Json({})
