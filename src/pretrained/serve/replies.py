"""Answers: refusals as Hub clients read them, and files with ranges and validators."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..errors import printable
from .refusals import RefusedError
from .repository import HubFile

__all__ = ["SAFE_HEADERS", "FileReply", "Json", "file_reply", "refusal"]

PIECE = 1 << 20  # bytes read and sent at a time

# Nothing that is served runs as a page of this server, is framed, or is read by pages of others.
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
# Types that a browser may show in a page; as a document of its own each is in a sandbox.
_SHOWN = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
_TEXT = frozenset(
    [".md", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".py", ".toml", ".cfg", ".jinja", ".csv", ".tsv", ".model_card"]
)


class Json(Response):
    """A JSON document."""

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        import json

        raw = json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
        super().__init__(raw, status, {**SAFE_HEADERS, **(headers or {})}, media_type="application/json")


def refusal(error: RefusedError) -> Response:
    """The answer to a request that was refused."""
    message = printable(error, 500).replace("\n", " ")
    headers = {**error.headers, "X-Error-Message": message.encode("ascii", "replace").decode("ascii")}
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return Json({"error": message, **error.body}, error.status, headers)


class FileReply(StreamingResponse):
    """A run of bytes of an open file, which is closed whatever happens."""

    def __init__(self, fd: int, start: int, count: int, status: int, headers: Mapping[str, str], kind: str) -> None:
        self._fd = fd
        super().__init__(_pieces(fd, start, count), status, headers, media_type=kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._fd)


async def _pieces(fd: int, start: int, count: int) -> AsyncIterator[bytes]:
    while count:
        piece = await run_in_threadpool(os.pread, fd, min(PIECE, count), start)
        if not piece:
            raise OSError("the file became shorter while it was being sent")
        yield piece
        start += len(piece)
        count -= len(piece)


def file_reply(
    fd: int, file: HubFile, headers: Mapping[str, str], request: Mapping[str, str], *, head: bool, download: bool
) -> Response:
    """A whole file, the range of it that the request asks for, or only what it is called; takes `fd` over.

    Args:
        fd: the open file.
        file: what it is.
        headers: that belong to the answer whatever part is sent.
        request: headers of the request.
        head: whether the body is left out.
        download: whether a browser should keep the file in place of showing it.
    """
    etag = f'"{file.etag}"'
    name = file.path.rpartition("/")[2]
    common = {
        **SAFE_HEADERS,
        **headers,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"{'attachment' if download else 'inline'}; filename*=UTF-8''{quote(name, safe='')}",
    }
    kind = _kind(name)
    try:
        if not _names(request.get("if-match", "*"), etag):
            raise RefusedError(412, "The file is not the one that If-Match names")
        if _names(request.get("if-none-match", "").replace("W/", ""), etag):
            return _without_body(fd, 304, common)
        start, end = _range_of(request, etag, file.size)
    except RefusedError as error:
        os.close(fd)
        error.headers |= common
        raise
    except BaseException:
        os.close(fd)
        raise
    count = end - start
    status = 206 if _is_ranged(request, etag) else 200
    if status == 206:
        common["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    common["Content-Length"] = str(count)
    if head:
        return _without_body(fd, status, {**common, "Content-Type": kind})
    return FileReply(fd, start, count, status, common, kind)


def _without_body(fd: int, status: int, headers: Mapping[str, str]) -> Response:
    os.close(fd)
    reply = Response(status_code=status)
    if "Content-Length" in headers and "content-length" in reply.headers:
        del reply.headers["content-length"]
    for name, value in headers.items():
        reply.headers[name] = value
    return reply


def _names(header: str, etag: str) -> bool:
    """Whether a header that lists contents, or has a star for any, has this one."""
    return header.strip() == "*" or etag in (name.strip() for name in header.split(","))


def _is_ranged(request: Mapping[str, str], etag: str) -> bool:
    """Whether there is a range that counts: of one piece, forwards, and of the content that the client knows."""
    match = _RANGE.fullmatch(request.get("range", "").strip())
    if match is None or not any(match.groups()) or request.get("if-range", etag) != etag:
        return False
    first, last = match.groups()
    return not (first and last and int(last) < int(first))


def _range_of(request: Mapping[str, str], etag: str, size: int) -> tuple[int, int]:
    """First byte and the one after the last; everything, where the request names no range that counts."""
    if not _is_ranged(request, etag):
        return 0, size
    match = _RANGE.fullmatch(request["range"].strip())
    assert match is not None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
        is_empty = int(last) == 0 or size == 0
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        is_empty = start >= size
    if is_empty:
        raise RefusedError(416, f"No such range in {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _kind(name: str) -> str:
    dot = name.lower().rpartition(".")
    suffix = f".{dot[2]}" if dot[0] else ""
    if suffix in _SHOWN:
        return _SHOWN[suffix]
    return "text/plain; charset=utf-8" if suffix in _TEXT else "application/octet-stream"
