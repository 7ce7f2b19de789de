"""Uploads by Xet, which current clients use for every large file and do not do without.

A client sends its files as chunks in xorbs, then shards that say which chunks make which file. Each file is put
together at once, checked against its sha256, and kept as any other content; so nothing is ever read by Xet. What
remains of a xorb is a note of which content its chunks are in, since clients remember for weeks what they have sent
and do not send it again.

    xet/<user>/<xorb>         as it came
    xet/<user>/<xorb>.json    [sha256, offset, size] of each chunk

A user's xorbs are that user's: knowing the name of somebody else's gives nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from ..checkpoint.files import read_json
from ..errors import PretrainedError
from .calls import Call
from .committing import ref_to_write
from .disk_store import Incoming, write_json
from .names import is_digest
from .refusals import RefusedError
from .replies import Json
from .signing import Leave, sign
from .store import Store
from .store_repository import StoreRepository
from .uploads import leave_of, pour
from .writing import store_of, store_repo
from .xet_format import MAX_CHUNKS, ShardFile, Term, chunk_bytes, files_of_shard, places_of

__all__ = ["cas", "write_token"]

LEAVE = 3600.0  # seconds; clients ask for another in time
MAX_XORB = 80 << 20  # bytes; the protocol allows 64 MiB
MAX_SHARD = 128 << 20
MAX_SHARD_FILES = 100_000
MIN_CHUNK = 8 << 10  # bytes: clients make chunks of 8 KiB and more, but for the end of a file
MAX_NOTES = 64  # in memory


async def write_token(call: Call, revision: str) -> Response:
    """Where and with what leave to upload by Xet."""

    def run() -> Response:
        repo = store_repo(call)
        if call.flag("create_pr"):
            call.check_access()  # clients name no revision then, but the word None
        else:
            ref_to_write(call, repo, revision)
        until = int(time.time() + LEAVE)
        word = sign(store_of(call).secret, Leave("xet", call.user.name, repo.kind, repo.id, until))
        # Clients remember by this address what they have sent: another store, or another user, has not got it.
        url = f"{call.base}/_xet/{store_of(call).name_for(call.user.name)}"
        headers = {
            "X-Xet-Cas-Url": url,
            "X-Xet-Access-Token": word,
            "X-Xet-Token-Expiration": str(until),
            "Cache-Control": "no-store",
        }
        return Json({"casUrl": url, "exp": until, "accessToken": word}, headers=headers)

    return await run_in_threadpool(run)


async def cas(call: Call, parts: list[str]) -> Response:
    """Whatever a client asks of the storage itself."""
    scheme, _, word = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise RefusedError(401, "A leave to upload is needed")
    store, repo, leave = await run_in_threadpool(leave_of, call, word.strip(), "xet")
    match (call.request.method, parts[1:]):
        case ("POST", ["v1", "xorbs", "default", xorb]) if is_digest(xorb):
            return await _take_xorb(call, store, leave.user, xorb)
        case ("POST", ["v1", "shards"]):
            return await _take_shard(call, store, repo, leave.user)
    # Among others: chunks that anybody has (/v1/chunks), which is nobody's business, and later versions of the above.
    raise RefusedError(404, "Not found")


async def _take_xorb(call: Call, store: Store, user: str, xorb: str) -> Response:
    path = store.root / "xet" / user / xorb
    if path.exists():
        async for _ in call.stream(MAX_XORB):
            pass
        return Json({"was_inserted": False})
    store.blobs.require_room(MAX_XORB)
    temporary = store.root / "tmp" / secrets.token_hex(16)
    try:
        with temporary.open("xb", buffering=0) as file:
            size = await pour(call, MAX_XORB, lambda piece: _write(file, piece))
            await run_in_threadpool(places_of_file, temporary, size)
            await run_in_threadpool(os.fsync, file.fileno())
        path.parent.mkdir(exist_ok=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return Json({"was_inserted": True})


def _write(file: Any, piece: bytes) -> None:
    view = memoryview(piece)
    while len(view):
        view = view[file.write(view) :]


def places_of_file(path: Path, size: int) -> Any:
    """The chunks of a xorb in a file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return places_of(fd, size)
    finally:
        os.close(fd)


async def _take_shard(call: Call, store: Store, repo: StoreRepository, user: str) -> Response:
    temporary = store.root / "tmp" / secrets.token_hex(16)
    try:
        with temporary.open("x+b") as file:
            await pour(call, MAX_SHARD, lambda piece: _write(file, piece))
            await run_in_threadpool(_assemble_all, call, store, repo, user, file)
    finally:
        temporary.unlink(missing_ok=True)
    return Json({"result": 1})


def _assemble_all(call: Call, store: Store, repo: StoreRepository, user: str, shard: Any) -> None:
    shard.seek(0)
    with _Xorbs(store, user) as xorbs:
        for number, file in enumerate(files_of_shard(shard)):
            if number >= MAX_SHARD_FILES:
                raise RefusedError(413, f"A shard of more than {MAX_SHARD_FILES} files")
            if file.size > call.site.max_file:
                raise RefusedError(413, f"{file.size} bytes; this server takes at most {call.site.max_file}")
            if file.sha256 is not None and repo.holds(file.sha256) == file.size:
                continue  # the answer to the first attempt was lost
            store.blobs.require_room(file.size)
            repo.grant(_assemble(store, xorbs, file))
        xorbs.note()


def _assemble(store: Store, xorbs: _Xorbs, file: ShardFile) -> str:
    """Puts a file together, and returns the sha256 under which it is kept."""
    with store.blobs.incoming() as incoming:
        runs: list[tuple[Term, int, array[int]]] = []
        count = 0
        for term in file.terms:
            before, sizes = incoming.size, array("I")
            for chunk in xorbs.chunks(term):
                sizes.append(len(chunk))
                incoming.write(chunk)
            if incoming.size - before != term.size:
                raise RefusedError(400, f"A term has {incoming.size - before} bytes; the shard says {term.size}")
            count += len(sizes)
            if count > MAX_CHUNKS + incoming.size // MIN_CHUNK:
                raise RefusedError(400, f"The file is cut into {count} chunks; they have {MIN_CHUNK} bytes and more")
            runs.append((term, before, sizes))
        _require_same(incoming, file.sha256)
        sha256 = incoming.keep()
    for term, offset, sizes in runs:
        xorbs.found(term, sha256, offset, sizes)
    return sha256


def _require_same(incoming: Incoming, sha256: str | None) -> None:
    if sha256 is not None and incoming.sha256 != sha256:
        raise RefusedError(400, f"The chunks make a file with the sha256 {incoming.sha256}; {sha256} was due")


class _Xorbs:
    """The xorbs of a user: as they came, or as a note of where their chunks are by now."""

    def __init__(self, store: Store, user: str) -> None:
        self._store = store
        self._root = store.root / "xet" / user
        self._open: dict[str, tuple[int, Any]] = {}
        self._notes: dict[str, dict[int, list[Any]]] = {}

    def __enter__(self) -> _Xorbs:
        return self

    def __exit__(self, *error: object) -> None:
        for fd, _ in self._open.values():
            os.close(fd)

    def chunks(self, term: Term) -> Iterator[bytes]:
        """The contents of a run of chunks. Raises RefusedError for what was never uploaded."""
        noted, numbers = self._noted(term.xorb), range(term.start, term.end)
        if not all(number in noted for number in numbers) and not self._is_there(term.xorb):
            # Another upload has just put all of it elsewhere, and said where before the xorb went.
            noted |= {**_read_note(self._root / term.xorb), **noted}
        if all(number in noted for number in numbers):
            for number in numbers:
                sha256, offset, size = noted[number]
                yield self._read(term, sha256, offset, size)
            return
        fd, places = self._opened(term.xorb)
        if term.end > len(places):
            raise RefusedError(400, f"The xorb {term.xorb} has {len(places)} chunks; the shard asks for {term.end}")
        for place in places[term.start : term.end]:
            yield chunk_bytes(fd, place)

    def _read(self, term: Term, sha256: str, offset: int, size: int) -> bytes:
        try:
            fd = self._store.blobs.open(sha256)
        except PretrainedError:
            raise RefusedError(400, f"The content that had the xorb {term.xorb} is not here any more") from None
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def _opened(self, xorb: str) -> tuple[int, Any]:
        if not self._is_there(xorb):
            raise RefusedError(400, f"The xorb {xorb} was not uploaded")
        return self._open[xorb]

    def _is_there(self, xorb: str) -> bool:
        """Whether the xorb is here as it came; it is open then."""
        if xorb not in self._open:
            try:
                fd = os.open(self._root / xorb, os.O_RDONLY)
            except OSError:
                return False
            if len(self._open) >= 32:
                os.close(self._open.pop(next(iter(self._open)))[0])
            self._open[xorb] = (fd, places_of(fd, os.fstat(fd).st_size))
        return True

    def _noted(self, xorb: str) -> dict[int, list[Any]]:
        if xorb not in self._notes:
            while len(self._notes) >= MAX_NOTES:
                oldest = next(iter(self._notes))
                self._write(oldest, self._notes.pop(oldest))
            self._notes[xorb] = _read_note(self._root / xorb)
        return self._notes[xorb]

    def found(self, term: Term, sha256: str, offset: int, sizes: Sequence[int]) -> None:
        """Takes down where the chunks of a run are."""
        noted = self._noted(term.xorb)
        for number, size in enumerate(sizes, start=term.start):
            noted.setdefault(number, [sha256, offset, size])
            offset += size

    def note(self) -> None:
        """Writes down where chunks are; a xorb all of which is elsewhere goes."""
        for xorb in list(self._notes):
            self._write(xorb, self._notes.pop(xorb))

    def _write(self, xorb: str, chunks: dict[int, list[Any]]) -> None:
        if not chunks:
            return
        path = self._root / xorb
        with self._store.notes:  # another upload may have taken down other chunks meanwhile
            known = {**_read_note(path), **chunks}
            write_json(_note_of(path), {"chunks": {str(number): place for number, place in known.items()}})
            with suppress(OSError):
                if len(places_of_file(path, path.stat().st_size)) == len(known):
                    path.unlink()


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_note(path: Path) -> dict[int, list[Any]]:
    """Number of a chunk of the xorb at `path` → where it is by now."""
    try:
        chunks = read_json(_note_of(path))["chunks"]
    except PretrainedError:
        return {}
    return {int(number): place for number, place in chunks.items()}
