"""Xet's containers as a hostile or broken client might send them."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest

from pretrained.serve.refusals import RefusedError
from pretrained.serve.running import HubServer
from pretrained.serve.xet_format import chunk_bytes, files_of_shard, places_of, text_of_hash

CHUNKS = [b"first" * 100, bytes(range(256)) * 7 + b"odd", b"\0" * 4097]
XORB = bytes(range(32))
NAME = text_of_hash(XORB)


def chunk(content: bytes, scheme: int, *, size: int | None = None, stored: bytes | None = None) -> bytes:
    """A chunk as a client stores it."""
    raw = content
    if scheme == 2:
        flat = np.frombuffer(content, np.uint8)
        raw = b"".join(flat[group::4].tobytes() for group in range(4))
    packed = stored if stored is not None else lz4.frame.compress(raw) if scheme else raw
    length = len(content) if size is None else size
    return bytes([0]) + len(packed).to_bytes(3, "little") + bytes([scheme]) + length.to_bytes(3, "little") + packed


def xorb_of(schemes: tuple[int, ...] = (0, 1, 2)) -> bytes:
    return b"".join(chunk(content, scheme) for content, scheme in zip(CHUNKS, schemes, strict=True))


def shard_of(
    terms: list[tuple[bytes, int, int, int]], sha256: str | None, *, verified: bool = True, count: int | None = None
) -> bytes:
    """A shard with one file."""
    flags = (1 << 31 if verified else 0) | (1 << 30 if sha256 else 0)
    parts = [bytes(32) + struct.pack("<QQ", 2, 0)]
    parts.append(b"f" * 32 + struct.pack("<IIQ", flags, len(terms) if count is None else count, 0))
    parts += [xorb + struct.pack("<IIII", 0, size, start, end) for xorb, start, end, size in terms]
    parts += [bytes(48)] * len(terms) if verified else []
    if sha256:
        numbers = struct.pack("<4Q", *(int(sha256[at : at + 16], 16) for at in range(0, 64, 16)))
        parts.append(numbers + bytes(16))
    parts += [b"\xff" * 32 + bytes(16)] * 2
    return b"".join(parts)


@pytest.fixture
def cas(web: Any, repo: str) -> Any:
    """Requests to the storage of ann's repository."""
    found = web("GET", f"/api/models/{repo}/xet-write-token/main", user="ann").json

    def ask(method: str, path: str, body: bytes = b"") -> Any:
        return web(method, found["casUrl"] + path, body, headers={"Authorization": f"Bearer {found['accessToken']}"})

    return ask


def total() -> int:
    return sum(map(len, CHUNKS))


def test_a_file_is_put_together_and_its_xorb_becomes_a_note(web: Any, repo: str, cas: Any, hub: HubServer) -> None:
    content = b"".join(CHUNKS)
    sha256 = hashlib.sha256(content).hexdigest()
    assert cas("POST", f"/v1/xorbs/default/{NAME}", xorb_of() + b"XETBLOB footer").json == {"was_inserted": True}
    assert cas("POST", f"/v1/xorbs/default/{NAME}", xorb_of()).json == {"was_inserted": False}
    assert cas("POST", "/v1/shards", shard_of([(XORB, 0, 3, total())], sha256)).json == {"result": 1}
    folder = Path(hub.root) / ".pretrained-hub/xet/ann"
    assert [path.name for path in folder.glob(f"{NAME}*")] == [f"{NAME}.json"]
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": sha256, "size": len(content)}},
    ]
    assert web.send_lines(repo, lines).status == 200
    assert web("GET", f"/{repo}/resolve/main/w.bin").body == content
    # A later file of chunks that are only noted.
    other = CHUNKS[2] + CHUNKS[0]
    terms = [(XORB, 2, 3, len(CHUNKS[2])), (XORB, 0, 1, len(CHUNKS[0]))]
    assert cas("POST", "/v1/shards", shard_of(terms, hashlib.sha256(other).hexdigest())).json == {"result": 1}
    assert cas("POST", "/v1/shards", shard_of(terms, hashlib.sha256(other).hexdigest())).json == {"result": 1}


def test_a_file_without_a_digest_is_named_by_the_one_it_has(web: Any, repo: str, cas: Any) -> None:
    cas("POST", f"/v1/xorbs/default/{NAME}", xorb_of())
    assert cas("POST", "/v1/shards", shard_of([(XORB, 0, 1, 500)], None, verified=False)).status == 200
    assert "actions" not in web.leave(repo, CHUNKS[0])


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (shard_of([(b"?" * 32, 0, 1, 500)], None), "was not uploaded"),
        (shard_of([(XORB, 0, 9, 500)], None), "has 3 chunks"),
        (shard_of([(XORB, 1, 1, 500)], None), "has no chunks"),
        (shard_of([(XORB, 0, 1, 499)], None), "the shard says 499"),
        (shard_of([(XORB, 0, 1, 500)], "0" * 63 + "1"), "was due"),
        (shard_of([(XORB, 0, 1, 500)], None, count=1 << 30), "terms; at most"),
        (shard_of([(XORB, 0, 1, 500)], None)[:120], "ends in the middle"),
        (b"no shard", "no shard of version 2"),
        (b"", "no shard of version 2"),
        (shard_of([(XORB, 0, 1, (1 << 32) - 1)] * 20, None), "this server takes at most"),
    ],
)
def test_shards_that_are_refused(web: Any, repo: str, cas: Any, hub: HubServer, shard: bytes, message: str) -> None:
    cas("POST", f"/v1/xorbs/default/{NAME}", xorb_of())
    reply = cas("POST", "/v1/shards", shard)
    assert reply.status in (400, 413)
    assert message in reply.json["error"]
    assert not list((Path(hub.root) / ".pretrained-hub/tmp").iterdir())


@pytest.mark.parametrize(
    "xorb",
    [
        b"\x01" + chunk(b"x", 0)[1:],
        chunk(b"x", 0)[:-1],
        chunk(b"x", 3, stored=b"x"),
        chunk(b"", 0),
        chunk(b"x", 0, size=(1 << 24) - 1),
        b"\0\0\0",
    ],
)
def test_xorbs_that_are_refused(cas: Any, hub: HubServer, xorb: bytes) -> None:
    reply = cas("POST", f"/v1/xorbs/default/{'a' * 64}", xorb)
    assert (reply.status, "damaged" in reply.json["error"]) == (400, True)
    assert not list((Path(hub.root) / ".pretrained-hub/xet").glob(f"*/{'a' * 64}"))


@pytest.fixture
def as_file(tmp_path: Path) -> Iterator[Any]:
    opened = []

    def make(raw: bytes) -> int:
        (tmp_path / "xorb").write_bytes(raw)
        opened.append(os.open(tmp_path / "xorb", os.O_RDONLY))
        return opened[-1]

    yield make
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 1023, 1024, 65537])
def test_grouped_bytes_come_back_in_their_order(as_file: Any, length: int) -> None:
    content = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    raw = chunk(content, 2)
    fd = as_file(raw)
    [place] = places_of(fd, len(raw))
    assert chunk_bytes(fd, place) == content


@pytest.mark.parametrize(
    "raw",
    [
        chunk(b"x" * 100, 1, size=99),
        chunk(b"x" * 100, 1, size=101),
        chunk(b"x" * 100, 1, stored=b"no frame"),
        chunk(b"x" * 100, 1, stored=lz4.frame.compress(bytes(100 << 20))),  # a bomb
        chunk(b"x" * 100, 1, stored=lz4.frame.compress(b"x" * 100)[:-9]),
    ],
)
def test_chunks_that_do_not_unpack(as_file: Any, raw: bytes) -> None:
    fd = as_file(raw)
    [place] = places_of(fd, len(raw))
    with pytest.raises(RefusedError, match=r"A chunk (is damaged|has)"):
        chunk_bytes(fd, place)


def test_somebody_else_s_xorbs_are_not_there(web: Any, repo: str, cas: Any) -> None:
    secret = text_of_hash(b"s" * 32)
    cas("POST", f"/v1/xorbs/default/{secret}", xorb_of())
    web("POST", "/api/repos/create", {"name": "xet", "organization": "bob"}, user="bob")
    found = web("GET", "/api/models/bob/xet/xet-write-token/main", user="bob").json
    headers = {"Authorization": f"Bearer {found['accessToken']}"}
    reply = web("POST", found["casUrl"] + "/v1/shards", shard_of([(b"s" * 32, 0, 1, 500)], None), headers=headers)
    assert (reply.status, "was not uploaded" in reply.json["error"]) == (400, True)
    assert web("GET", found["casUrl"] + f"/v1/chunks/default/{'0' * 64}", headers=headers).status == 404
    for path in ("/v1/reconstructions/x", "/v2/shards", "/v1/xorb-grants/default/x", "/v1/xorbs/default/../../x"):
        assert web("POST", found["casUrl"] + path, b"", headers=headers).status == 404
    assert web("POST", found["casUrl"] + "/v1/shards", b"").status == 401


def test_a_shard_of_no_files() -> None:
    assert list(files_of_shard(io.BytesIO(bytes(32) + struct.pack("<QQ", 2, 0) + b"\xff" * 32 + bytes(16)))) == []


def test_notes_are_written_when_there_are_many(web: Any, repo: str, cas: Any, hub: HubServer, monkeypatch: Any) -> None:
    monkeypatch.setattr("pretrained.serve.xet.MAX_NOTES", 2)
    terms, content = [], b""
    for number in range(5):
        xorb, piece = bytes([64 + number]) * 32, bytes([number]) * (number + 1)
        assert cas("POST", f"/v1/xorbs/default/{text_of_hash(xorb)}", chunk(piece, 0)).status == 200
        terms.append((xorb, 0, 1, len(piece)))
        content += piece
    for order in (terms, terms[::-1]):
        assert cas("POST", "/v1/shards", shard_of(order, None)).status == 200
    assert "actions" not in web.leave(repo, content)
    folder = Path(hub.root) / ".pretrained-hub/xet/ann"
    for xorb, *_ in terms:
        assert [path.suffix for path in folder.glob(f"{text_of_hash(xorb)}*")] == [".json"]


def test_a_file_of_crumbs_is_refused(cas: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("pretrained.serve.xet.MAX_CHUNKS", 10)
    crumbs = b"".join(chunk(bytes([n]), 0) for n in range(20))
    cas("POST", f"/v1/xorbs/default/{text_of_hash(b'c' * 32)}", crumbs)
    reply = cas("POST", "/v1/shards", shard_of([(b"c" * 32, 0, 20, 20)], None))
    assert (reply.status, "is cut into 20 chunks" in reply.json["error"]) == (400, True)
