"""A small hub and a store behind it, on two origins of this machine, with the faults that a network has.

The hub answers for one repository. Its large files it gives by a redirect to signed URLs of the store, which is another
origin: a token that shows up there has leaked.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from pretrained.checkpoint.formats.safetensors import Outgoing, write
from pretrained.options import SourceOptions

COMMIT, OTHER = "a" * 40, "b" * 40


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def weights(folder: Path, value: float = 1.0) -> bytes:
    path = folder / f"{value}.safetensors"
    write(path, [Outgoing("w", "float32", (2,), lambda: np.full(2, value, np.float32))], {})
    return path.read_bytes()


def online(hub: Hub, tmp_path: Path, **options: Any) -> SourceOptions:
    return SourceOptions(
        endpoint=hub.url, cache_dir=tmp_path / "downloads", token=options.pop("token", False), **options
    )


class Server:
    """Answers in threads; `requests` has what was asked, `served` the bytes of each answer by path."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.queries: list[str] = []
        self.tokens: set[str | None] = set()
        self.served: list[tuple[str, int, int]] = []  # path, first byte, one past the last
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with server.lock:
                    server.requests.append(f"{self.command} {unquote(urlsplit(self.path).path)}")
                    server.queries.append(urlsplit(self.path).query)
                    server.tokens.add(self.headers.get("Authorization"))
                try:
                    server.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        class Threads(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass

        self.http = Threads(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, request: Any) -> None:
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.http.shutdown()
            self.http.server_close()
            thread.join()

    @property
    def num_bytes(self) -> int:
        return sum(stop - start for _, start, stop in self.served)

    def send(self, request: Any, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        request.send_response(status)
        named = {"Content-Length": str(len(body)), "Content-Type": "application/json", **(headers or {})}
        for name, value in named.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            self.write(request, body)

    def write(self, request: Any, body: bytes) -> None:
        request.wfile.write(body)

    def send_file(self, request: Any, content: bytes, headers: dict[str, str], *, ranges: bool = True) -> None:
        """A file or the range of it that is asked for."""
        start, stop, status = 0, len(content), 200
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if match and ranges:
            start, stop, status = int(match[1]), min(int(match[2]) + 1, len(content)), 206
            if start >= len(content):
                return self.send(request, b"", 416, {"Content-Range": f"bytes */{len(content)}"})
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        wanted = request.headers.get("If-Match")
        if wanted is not None and wanted != headers.get("ETag"):
            return self.send(request, b"", 412)
        if request.command != "HEAD":
            with self.lock:
                self.served.append((urlsplit(request.path).path, start, stop))
        self.send(request, content[start:stop], status, {"Accept-Ranges": "bytes", **headers})


class Store(Server):
    """Content by digest, at signed URLs. `lifetime` is how many requests a signature is good for."""

    def __init__(self) -> None:
        super().__init__()
        # Another name, by which release 1 of huggingface_hub knows another host.
        self.url = self.url.replace("127.0.0.1", "localhost")
        self.content: dict[str, bytes] = {}
        self.lifetime = 1_000_000
        self.signatures: dict[str, int] = {}
        self.flipped = False
        self.cuts = 0  # how many answers are cut off in the middle
        self.ranges = True
        self.busy = 0  # how many answers are 503
        self.delay = 0.0  # seconds before every 64 KiB
        self.reach: int | None = None  # bytes of a file that can be had; the rest breaks off

    def sign(self, digest: str) -> str:
        signature = secrets.token_hex(8)
        with self.lock:
            self.signatures[signature] = 0
        return f"{self.url}/{digest}?X-Signature={signature}"

    def answer(self, request: Any) -> None:
        parts = urlsplit(request.path)
        signature = parse_qs(parts.query).get("X-Signature", [""])[0]
        with self.lock:
            uses = self.signatures.get(signature)
            if uses is not None:
                self.signatures[signature] = uses + 1
            is_cut, is_busy = self.cuts > 0, self.busy > 0
            self.cuts -= is_cut
            self.busy -= is_busy
        if uses is None or uses >= self.lifetime:
            return self.send(request, b"<Error>expired</Error>", 403)
        if is_busy:
            return self.send(request, b"", 503, {"Retry-After": "0"})
        content = self.content[parts.path.strip("/")]
        if self.flipped:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if is_cut or self.reach is not None:
            return self.send_cut(request, content, is_cut)
        self.send_file(request, content, {"ETag": f'"{parts.path.strip("/")[:32]}"'}, ranges=self.ranges)

    def write(self, request: Any, body: bytes) -> None:
        for start in range(0, len(body), 1 << 16):
            if self.delay:
                time.sleep(self.delay)
            request.wfile.write(body[start : start + (1 << 16)])

    def send_cut(self, request: Any, content: bytes, is_cut: bool) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        assert match is not None
        start, stop = int(match[1]), int(match[2]) + 1
        end = start + (stop - start) // 2 if is_cut else min(stop, max(start, self.reach or 0))
        with self.lock:
            self.served.append((urlsplit(request.path).path, start, end))
        request.send_response(206)
        request.send_header("Content-Length", str(stop - start))
        request.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        request.end_headers()
        request.wfile.write(content[start:end])
        request.close_connection = True


class Hub(Server):
    """A hub with one repository: branches, commits and their files. Files from `lfs_from` bytes on are in the store."""

    def __init__(self, commits: dict[str, dict[str, bytes]], store: Store, repo: str = "org/name") -> None:
        super().__init__()
        self.commits, self.store, self.repo = commits, store, repo
        self.branches = {"main": next(iter(commits))}
        self.status: int | None = None
        self.error_code = ""
        self.lists_everything = True  # whether model_info has sizes and digests; the tree always has
        self.lfs_from = 100
        self.extra_names: list[str] = []

    def is_lfs(self, content: bytes) -> bool:
        return len(content) >= self.lfs_from

    def answer(self, request: Any) -> None:
        raw = urlsplit(request.path)
        parts = [unquote(part) for part in raw.path.strip("/").split("/")]
        if self.status is not None:
            headers = {"X-Error-Code": self.error_code} if self.error_code else {}
            return self.send(request, b'{"error": "no"}', self.status, headers)
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) == self.repo:
            return self.api(request, parts[4:], raw.query)
        if "/".join(parts[:2]) == self.repo and parts[2:3] == ["resolve"]:
            commit = self.branches.get(parts[3], parts[3])
            content = self.commits.get(commit, {}).get("/".join(parts[4:]))
            if content is not None:
                return self.resolve(request, content, commit)
        return self.send(request, b'{"error": "no such repository"}', 404, {"X-Error-Code": "RepoNotFound"})

    def api(self, request: Any, parts: list[str], query: str) -> None:
        if parts == ["refs"]:
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": c} for name, c in self.branches.items()
            ]
            return self.send(request, json.dumps({"branches": branches, "tags": [], "converts": []}).encode())
        kind, revision = (parts[0], "/".join(parts[1:])) if parts else ("revision", "main")
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            return self.send(request, b'{"error": "no such revision"}', 404, {"X-Error-Code": "RevisionNotFound"})
        if kind == "revision":
            files = [*self.commits[commit].items(), *((name, b"") for name in self.extra_names)]
            siblings = [self.sibling(name, content) for name, content in files]
            info = {"id": self.repo, "sha": commit, "siblings": siblings}
            return self.send(request, json.dumps(info).encode())
        is_whole = "recursive=true" in query.lower()
        listed = [item for item in self.tree(commit) if is_whole or "/" not in item["path"]]
        return self.send(request, json.dumps(listed).encode())

    def sibling(self, name: str, content: bytes) -> dict[str, Any]:
        if not self.lists_everything:
            return {"rfilename": name}
        item: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_oid(content)}
        if self.is_lfs(content):
            item["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
        return item

    def tree(self, commit: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name, content in self.commits[commit].items():
            item = {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}
            if self.is_lfs(content):
                item["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
            found.append(item)
        folders = {name.rpartition("/")[0] for name in self.commits[commit] if "/" in name}
        return found + [{"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(folders)]

    def resolve(self, request: Any, content: bytes, commit: str) -> None:
        headers = {"X-Repo-Commit": commit}
        if not self.is_lfs(content):
            return self.send_file(request, content, {**headers, "ETag": f'"{git_oid(content)}"'})
        digest = sha256(content)
        self.store.content[digest] = content
        headers |= {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "Location": self.store.sign(digest),
        }
        return self.send(request, b"", 302, headers)


class Web(Server):
    """A plain web server with a few files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files
        self.ranges = True
        self.etags = True
        self.redirect: str | None = None
        self.absent = 404

    def answer(self, request: Any) -> None:
        path = unquote(urlsplit(request.path).path)
        if self.redirect is not None and path not in self.files:
            return self.send(request, b"", 302, {"Location": self.redirect + path})
        content = self.files.get(path)
        if content is None:
            return self.send(request, b"", self.absent)
        self.send_file(
            request, content, {"ETag": f'"{sha256(content)[:16]}"'} if self.etags else {}, ranges=self.ranges
        )
