"""Several clients at once, some of whom are slow, silent or too late."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from test_serve_xet import CHUNKS, NAME, XORB, shard_of, total, xorb_of
from test_serve_xet import cas as cas

from pretrained.serve import patience, sweep
from pretrained.serve.edits import Edit, Kept, apply
from pretrained.serve.people import People
from pretrained.serve.refusals import RefusedError
from pretrained.serve.running import HubServer
from pretrained.serve.store import Store
from pretrained.serve.xet import _Xorbs
from pretrained.serve.xet_format import Term


def store_of(hub: HubServer) -> Store:
    assert hub._store is not None
    return hub._store


def blob(hub: HubServer, content: bytes) -> Path:
    return store_of(hub).blobs.path(hashlib.sha256(content).hexdigest())


def test_readers_do_not_wait_for_a_commit(web: Any, repo: str, hub: HubServer) -> None:
    web.commit(repo, {"a.txt": b"x"})
    found = store_of(hub).find("models", repo)
    assert found is not None
    with found.change() as state:
        state["private"] = True  # not yet written
        assert web("GET", f"/{repo}/resolve/main/a.txt").body == b"x"
        assert web("GET", f"/api/models/{repo}").status == 200
    assert web("GET", f"/{repo}/resolve/main/a.txt").status == 401


def test_a_repository_that_goes_while_a_content_comes(web: Any, repo: str, hub: HubServer) -> None:
    content = os.urandom(100_000)
    href = "/" + web.leave(repo, content)["actions"]["upload"]["href"].split("/", 3)[3]
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as connection:
        head = f"PUT {href} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[:50_000])
        while not list(store_of(hub).blobs.tmp.iterdir()):
            time.sleep(0.01)
        name = repo.partition("/")[2]
        assert web("DELETE", "/api/repos/delete", {"name": name, "organization": "ann"}, user="ann").status == 200
        connection.sendall(content[50_000:])
        assert connection.recv(100).startswith(b"HTTP/1.1 404 ")


def test_who_is_late_does_not_write_to_what_has_the_name_now(web: Any, repo: str, hub: HubServer) -> None:
    store, name = store_of(hub), repo.partition("/")[2]
    for go in (
        lambda: web("DELETE", "/api/repos/delete", {"name": name, "organization": "ann"}, user="ann"),
        lambda: web("POST", "/api/repos/move", {"fromRepo": repo, "toRepo": f"{repo}x"}, user="ann"),
    ):
        late = store.find("models", repo)
        assert late is not None
        assert go().status == 200
        assert web("POST", "/api/repos/create", {"name": name, "organization": "ann"}, user="ann").status == 200
        with pytest.raises(RefusedError, match="not found"), late.change():
            raise AssertionError("there is no state to change")
        with pytest.raises(RefusedError, match="not found"):
            store.delete(late)
        with pytest.raises(RefusedError, match="not found"):
            store.move(late, "ann/elsewhere")
        assert web("GET", f"/api/models/{repo}").status == 200


def test_a_commit_on_an_old_parent_leaves_nothing(web: Any, repo: str, hub: HubServer) -> None:
    old = web("GET", f"/api/models/{repo}").json["sha"]
    web.commit(repo, {"a.txt": b"x"})
    content = os.urandom(100)
    assert web.commit(repo, {"b.txt": content}, parentCommit=old).status == 412
    assert not blob(hub, content).exists()


def test_a_pull_request_begins_at_its_parent(web: Any, repo: str) -> None:
    web.commit(repo, {"a.txt": b"old", "b.txt": b"b"})
    old = web("GET", f"/api/models/{repo}").json["sha"]
    web.commit(repo, {"a.txt": b"new"})
    reply = web.commit(repo, {"c.txt": b"c"}, user="bob", query="?create_pr=1", parentCommit=old)
    assert reply.status == 200
    assert web("GET", f"/{repo}/resolve/refs%2Fpr%2F1/a.txt").body == b"old"
    found = web("GET", f"/api/models/{repo}/commits/refs%2Fpr%2F1").json
    assert [found[0]["id"], found[1]["id"]] == [reply.json["commitOid"], old]
    assert web("POST", f"/api/models/{repo}/discussions/1/merge", {}, user="ann").status == 200
    assert [web("GET", f"/{repo}/resolve/main/{name}.txt").body for name in "abc"] == [b"new", b"b", b"c"]
    for nowhere in ("0" * 40, "../../../x", "main"):
        reply = web.commit(repo, {"c.txt": b"d"}, user="bob", query="?create_pr=1", parentCommit=nowhere)
        assert reply.status == 412


def test_contents_of_a_refused_commit_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
    people, root, content = People({"ann": "token-of-ann"}), tmp_path / "store", os.urandom(100)
    with HubServer(root, people=people, writable=True) as hub:
        web = type(serve(root))(hub)
        web("POST", "/api/repos/create", {"name": "m"}, user="ann")
        assert web.commit("ann/m", {"a": content, "a/b": b"y"}).status == 400
        assert blob(hub, content).exists()
    monkeypatch.setattr(sweep, "YOUNG", -1.0)
    with HubServer(root, people=people, writable=True) as hub:
        assert not blob(hub, content).exists()


class Name(str):
    """A path that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def startswith(self, *words: Any) -> bool:
        Name.looks += 1
        return super().startswith(*words)

    def __lt__(self, other: str) -> bool:
        Name.looks += 1
        return super().__lt__(other)


def test_a_commit_that_deletes_many_folders_looks_at_each_file_a_few_times() -> None:
    kept = Kept(1, "0" * 40, "0" * 64, False)
    before = {Name(f"d{number}/f"): kept for number in range(1000)}
    Name.looks = 0
    assert apply(before, [Edit(f"d{number}", is_folder=True) for number in range(1000)]) == {}
    assert Name.looks < 50_000


@pytest.mark.parametrize("seed", range(20))
def test_edits_are_made_one_after_the_other(seed: int) -> None:
    """Against the same thing said at length."""
    rng = random.Random(seed)
    kept = [Kept(size, "0" * 40, "0" * 64, False) for size in range(3)]
    paths = [f"{a}{b}" for a in ("a", "a-", "a/a", "a0", "b/a/c") for b in ("/x", "/y", "/x-/z", ".t")]
    folders = ["a", "a-", "a/a", "a/a/x-", "b", "b/a", "b/a/c", "nothing"]
    before = dict.fromkeys(rng.sample(paths, 10), kept[0])
    expected: dict[str, Kept] = dict(before)
    edits: list[Edit] = []
    for _ in range(30):
        path, folder = rng.choice(paths), rng.choice(folders)
        inside = [name for name in expected if name.startswith(f"{folder}/")]
        if rng.random() < 0.3 and inside:
            edits.append(Edit(folder, is_folder=True))
            for name in inside:
                del expected[name]
        elif rng.random() < 0.4 and path in expected:
            edits.append(Edit(path))
            del expected[path]
        else:
            expected[path] = rng.choice(kept)
            edits.append(Edit(path, expected[path]))
    assert apply(before, edits) == expected
    with pytest.raises(RefusedError, match="No folder 'nothing'"):
        apply(before, [*edits, Edit("nothing", is_folder=True)])


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(patience, "PATIENCE", 0.3)
    return 0.3


NOTHING, HALF, AFTER = "", "GET / HTTP/1.1\r\nHost: local", "GET /api/models HTTP/1.1\r\nHost: localhost\r\n\r\nG"


@pytest.mark.parametrize("said", [NOTHING, HALF, AFTER])
def test_who_says_nothing_is_not_waited_for(tmp_path: Path, hurried: float, serve: Any, said: str) -> None:
    web = serve(tmp_path)
    with socket.create_connection(("127.0.0.1", web.hub.port), timeout=20) as connection:
        connection.sendall(said.encode())
        while connection.recv(65536):
            pass  # the end of the connection is what is waited for


def test_who_is_slow_is_waited_for(tmp_path: Path, hurried: float, serve: Any) -> None:
    web = serve(tmp_path)
    body = b'{"content": "hello"}'
    with socket.create_connection(("127.0.0.1", web.hub.port), timeout=20) as connection:
        for _ in range(2):  # the connection is used again
            head = f"POST /api/validate-yaml HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode())
            for at in range(len(body)):
                connection.sendall(body[at : at + 1])
                time.sleep(2 * hurried / len(body) + 0.01)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_upload_that_finds_its_xorb_put_elsewhere_meanwhile(web: Any, repo: str, hub: HubServer, cas: Any) -> None:
    content = b"".join(CHUNKS)
    cas("POST", f"/v1/xorbs/default/{NAME}", xorb_of())
    term = Term(NAME, 0, 3, total())
    with _Xorbs(store_of(hub), "ann") as xorbs:
        assert xorbs._noted(NAME).keys() <= {0, 1, 2}
        shard = shard_of([(XORB, 0, 3, total())], hashlib.sha256(content).hexdigest())
        assert cas("POST", "/v1/shards", shard).json == {"result": 1}
        assert not (Path(hub.root) / f".pretrained-hub/xet/ann/{NAME}").exists()
        assert b"".join(xorbs.chunks(term)) == content


def test_who_may_not_read_is_not_told_what_is_there(web: Any, repo: str) -> None:
    content = os.urandom(100)
    web("PUT", web.leave(repo, content)["actions"]["upload"]["href"], content)
    one = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    place = f"/{repo}.git/info/lfs/objects/verify"
    assert [web("POST", place, one, user=user).status for user in ("ann", "bob")] == [200, 200]
    web("PUT", f"/api/models/{repo}/settings", {"gated": "manual"}, user="ann")
    assert [web("POST", place, one, user=user).status for user in ("ann", "bob")] == [200, 403]
