"""A hub of one repository in a process of its own: files by sendfile, each connection as slow as is asked for.

    python _hub_server.py FOLDER [--rate MB]      prints its port

It answers what huggingface_hub 1 and 2 ask of a hub to download, and ranges. Only the standard library is used, so that
the server takes as little of the machine as it can.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPO, COMMIT = "org/name", "c" * 40
STEP = 1 << 20


class Files:
    """The files of a folder with their digests, which are kept beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        notes = folder.with_name(f"{folder.name}.sha256.json")
        known = json.loads(notes.read_text()) if notes.exists() else {}
        for path in folder.iterdir():
            if path.name not in known:
                with path.open("rb") as file:
                    known[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        notes.write_text(json.dumps(known))
        self.digests = {path.name: known[path.name] for path in folder.iterdir()}
        self.sizes = {path.name: path.stat().st_size for path in folder.iterdir()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: Files
    rate: float = 0.0
    served = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        try:
            if path.startswith(f"/api/models/{REPO}"):
                self.tell(json.dumps(self.listing() if "/tree/" in path else self.about()).encode())
            elif path.startswith(f"/{REPO}/resolve/"):
                self.give(path.rsplit("/", 1)[1])
            elif path == "/served":
                self.tell(str(Handler.served).encode())
            else:
                self.tell(b"{}", 404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def about(self) -> dict[str, Any]:
        siblings = [
            {
                "rfilename": name,
                "size": size,
                "blobId": "0" * 40,
                "lfs": {"sha256": self.files.digests[name], "size": size, "pointerSize": 130},
            }
            for name, size in self.files.sizes.items()
        ]
        return {"id": REPO, "sha": COMMIT, "siblings": siblings}

    def listing(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "file",
                "path": item["rfilename"],
                "size": item["size"],
                "oid": "0" * 40,
                "lfs": {"oid": item["lfs"]["sha256"], "size": item["size"], "pointerSize": 130},
            }
            for item in self.about()["siblings"]
        ]

    def tell(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def give(self, name: str) -> None:
        size = self.files.sizes.get(name)
        if size is None:
            return self.tell(b"{}", 404)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = (int(match[1]), min(int(match[2] or size - 1) + 1, size)) if match else (0, size)
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{self.files.digests[name]}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.flush()
            self.send_range(name, start, stop)

    def send_range(self, name: str, start: int, stop: int) -> None:
        since, first = time.perf_counter(), start
        with (self.files.folder / name).open("rb") as file:
            while start < stop:
                count = os.sendfile(self.connection.fileno(), file.fileno(), start, min(STEP, stop - start))
                if count == 0:
                    raise BrokenPipeError
                start += count
                with self.lock:
                    Handler.served += count
                if self.rate:
                    time.sleep(max(0.0, (start - first) / self.rate - (time.perf_counter() - since)))

    def log_message(self, *args: Any) -> None:
        pass


class Threads(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        pass

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().server_bind()


@contextmanager
def hub(folder: Path, rate: float = 0.0) -> Iterator[str]:
    """The URL of a hub that serves the folder, as long as the block runs; `rate` in MB/s of each connection."""
    command = [sys.executable, __file__, str(folder), "--rate", str(rate)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=0.0)
    options = parser.parse_args()
    Handler.files, Handler.rate = Files(options.folder), options.rate * 1e6
    server = Threads(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
