"""The server is killed while it is written to, over and over; what was there stays, and the upload goes on."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from serving import Served

CHUNK = 64 << 20  # what the server makes of anything larger
SIZE = CHUNK + (1 << 20)


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, raw, {"Authorization": "Bearer token-of-ann"})
        reply = connection.getresponse()
        content = reply.read()
        return reply.status, json.loads(content) if content[:1] in (b"{", b"[") else content
    finally:
        connection.close()


def commit(port: int, lines: list[Any]) -> tuple[int, Any]:
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    return ask(port, "POST", "/api/models/ann/m/commit/main", body)


def text_commit(port: int, number: int) -> tuple[int, Any]:
    value = {"path": f"{number}.txt", "content": "eA==", "encoding": "base64"}
    return commit(port, [{"key": "header", "value": {"summary": str(number)}}, {"key": "file", "value": value}])


def test_killed_while_commits_come_in(tmp_path: Path) -> None:
    """Every commit that was answered is there, and every other one is there whole or not at all."""
    rng = random.Random(7)
    answered: set[int] = set()
    number, port = 0, 0
    for turn in range(6):
        with Served(tmp_path / "store", port=port) as hub:
            port = hub.port
            if turn == 0:
                assert ask(port, "POST", "/api/repos/create", {"name": "m"})[0] == 200
            status, tree = ask(port, "GET", "/api/models/ann/m/tree/main")
            assert status == 200
            there = {int(item["path"].partition(".")[0]) for item in tree if item["path"].endswith(".txt")}
            assert answered <= there
            _, history = ask(port, "GET", "/api/models/ann/m/commits/main?limit=1000")
            assert len(history) == len(there) + 1
            number += 1
            assert text_commit(port, number)[0] == 200
            answered.add(number)
            killer = threading.Timer(rng.uniform(0.01, 0.3), hub.kill)
            killer.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                while True:
                    number += 1
                    if text_commit(port, number)[0] == 200:
                        answered.add(number)
            killer.join()
    assert len(answered) >= 6


def test_killed_in_mid_upload_and_the_upload_goes_on(tmp_path: Path) -> None:
    content = os.urandom(SIZE)
    sha256 = hashlib.sha256(content).hexdigest()
    one = {"operation": "upload", "transfers": ["multipart"], "objects": [{"oid": sha256, "size": SIZE}]}
    with Served(tmp_path / "store") as hub:
        port = hub.port
        assert ask(port, "POST", "/api/repos/create", {"name": "m"})[0] == 200
        upload = ask(port, "POST", "/ann/m.git/info/lfs/objects/batch", one)[1]["objects"][0]["actions"]["upload"]
        assert int(upload["header"]["chunk_size"]) == CHUNK
        urls = [upload["header"][str(n)].partition(str(port))[2] for n in (1, 2)]
        # The second part arrives; the first is cut off in the middle by the kill.
        assert ask(port, "PUT", urls[1], content[CHUNK:])[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.putrequest("PUT", urls[0])
        connection.putheader("Content-Length", str(CHUNK))
        connection.endheaders(content[: CHUNK // 2])
        parts = tmp_path / "store/.pretrained-hub/parts"
        deadline = time.monotonic() + 20
        while not _begun(parts) and time.monotonic() < deadline:
            time.sleep(0.01)
        hub.kill()
        connection.close()
    assert len(list(parts.iterdir())) == 1
    with Served(tmp_path / "store", port=port) as hub:
        href = upload["href"].partition(str(port))[2]
        # The second part is still there, so the first is all that has to come again.
        assert ask(port, "PUT", urls[0], content[:CHUNK])[0] == 200
        assert ask(port, "POST", href, {"oid": sha256})[0] == 200
        value = {"path": "w.bin", "algo": "sha256", "oid": sha256, "size": SIZE}
        lines = [{"key": "header", "value": {"summary": "w"}}, {"key": "lfsFile", "value": value}]
        assert commit(port, lines)[0] == 200
        _, back = ask(port, "GET", "/ann/m/resolve/main/w.bin")
        assert hashlib.sha256(back).hexdigest() == sha256


def _begun(parts: Path) -> bool:
    """Whether a good deal of the first part was written, which was a hole before."""
    return any(path.stat().st_blocks * 512 > (1 << 20) + (8 << 20) for path in parts.iterdir())


@pytest.mark.parametrize("place", ["blobs", "state"])
def test_killed_before_the_last_step(tmp_path: Path, place: str) -> None:
    """What a server leaves that dies after the content and before the state is dropped, or is no harm."""
    with Served(tmp_path / "store") as hub:
        assert ask(hub.port, "POST", "/api/repos/create", {"name": "m"})[0] == 200
        hub.kill()
    store = tmp_path / "store/.pretrained-hub"
    home = store / "repos/models/ann/m"
    if place == "blobs":
        (store / "tmp/half").write_bytes(b"half a content")
    else:
        (home / ".state.json.0123456789abcdef").write_text('{"half')
        (home / "commits/.x.json.0123456789abcdef").write_text('{"half')
    with Served(tmp_path / "store") as hub:
        assert text_commit(hub.port, 1)[0] == 200
        hub.stop()
        assert hub.code == 0
        assert hub.stderr == ""
    left = [path for path in store.rglob("*") if "half" in path.name or path.name.startswith(".")]
    assert left == []
