"""Requests at random: whatever comes, the server answers, and never that it failed."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

ROUTES = """
GET R | GET R/revision/V | GET R/tree/V | GET R/tree/V/P | POST R/paths-info/V | GET R/refs
GET R/commits/V | POST R/commit/V | POST R/preupload/V | POST R/branch/P | DELETE R/branch/P
POST R/tag/V | DELETE R/tag/V | PUT R/settings | POST R/super-squash/V | POST R/discussions
GET R/discussions | GET R/discussions/N | POST R/discussions/N/comment | POST R/discussions/N/status
POST R/discussions/N/title | POST R/discussions/N/merge | POST R/discussions/N/comment/N/edit
GET R/user-access-request/P | POST R/user-access-request/grant | POST R/user-access-request/handle
GET R/xet-write-token/V | GET R/auth-check/write | GET R/safetensors-metadata/P
POST /api/repos/create | DELETE /api/repos/delete | POST /api/repos/move | POST /api/validate-yaml
POST F.git/info/lfs/objects/batch | POST F.git/info/lfs/objects/verify | GET F/resolve/V/P
HEAD F/resolve/V/P | GET F/tree/V | GET F | GET F/discussions/N | GET F/blob/V/P | GET F/commit/V
POST F/ask-access | GET /api/models | GET / | PUT /_lfs/P | POST /_xet/P
"""
VALUES: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        1e9,
        "",
        "x",
        "ann",
        "ann/fuzz",
        "acme/other",
        "main",
        "closed",
        "../x",
        [],
        {},
        [1],
        {"a": 1},
    ),
    *("public", "private", "auto", "manual", "model", "dataset", "0" * 64, "accepted", "\0", "\ud800", "y" * 300),
]
KEYS = """
name organization type private visibility gated fromRepo toRepo startingPoint tag message title
description pullRequest comment status content files operation transfers objects hash_algo oid size
parts user requestId paths expand summary key value
"""


REVISIONS = ["main", "main", "refs%2Fpr%2F1", "nope", "0" * 40, "..", "%00", "refs%2Fpr%2Fx"]
PATHS = ["a.txt", "config.json", "..%2f", "x", "%00", "a.txt%2fb", "%ff", "dev"]
NUMBERS = ["1", "2", "9", "x", "-1", "%00"]
RANGES = ["bytes=0-1", "bytes=-1", "x", "bytes=9-"]
QUERIES = [
    *("", "", "?create_pr=1", "?recursive=1&expand=1", "?cursor=99&limit=0", "?limit=-1", "?diff=1", "?p=9"),
    *("?tensor=%00", "?search=%ff", "?blobs=1&include_prs=1"),
]


def a_body(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.15:
        return rng.randbytes(rng.randrange(200))
    if kind < 0.4:
        lines = []
        for _ in range(rng.randrange(1, 5)):
            content = base64.b64encode(rng.randbytes(3)).decode()
            value = {"path": rng.choice(["a.txt", "b/c", "b", "..", ""]), "content": content, "encoding": "base64"}
            key = rng.choice(["header", "file", "lfsFile", "deletedFile", "deletedFolder", "x"])
            lines.append({"key": key, "value": rng.choice([{"summary": "s"}, {**value, "oid": "0" * 64}, 3, None])})
        return b"\n".join(json.dumps(line).encode() for line in lines)
    body = {rng.choice(KEYS.split()): rng.choice(VALUES) for _ in range(rng.randrange(6))}
    if rng.random() < 0.3:
        body["files"] = [{"path": rng.choice(VALUES), "size": rng.choice(VALUES), "sample": rng.choice(VALUES)}]
        body["objects"] = [{"oid": rng.choice(VALUES), "size": rng.choice(VALUES)}]
    return body


@pytest.mark.parametrize("seed", [1, 2])
def test_no_request_makes_the_server_fail(web: Any, seed: int) -> None:
    rng = random.Random(seed)
    routes = [route.split() for line in ROUTES.strip().splitlines() for route in line.split(" | ")]
    found: dict[int, int] = {}
    for turn in range(400):
        if turn % 100 == 0:
            web("POST", "/api/repos/create", {"name": "fuzz", "organization": "ann"}, user="ann")
            web.commit("ann/fuzz", {"config.json": b"{}", "a.txt": b"x"})
            web.commit("ann/fuzz", {"b.txt": b"%d" % turn}, user="bob", query="?create_pr=1")
        method, path = rng.choice(routes)
        path = path.replace("R", "/api/models/ann/fuzz").replace("F", "/ann/fuzz")
        path = (
            path.replace("V", rng.choice(REVISIONS)).replace("P", rng.choice(PATHS)).replace("N", rng.choice(NUMBERS))
        )
        headers = {"Accept": rng.choice(["*/*", "text/html"]), "Range": rng.choice(RANGES)}
        body = None if method in ("GET", "HEAD") else a_body(rng)
        reply = web(
            method, path + rng.choice(QUERIES), body, user=rng.choice([None, "ann", "ann", "bob"]), headers=headers
        )
        assert reply.status < 500, (method, path, body, reply.body)
        found[reply.status // 100] = found.get(reply.status // 100, 0) + 1
    assert found[2] > 40
    assert found[4] > 40
