"""What clients write: who may, what is refused, and that nothing half done is ever seen."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from asking import Web

from pretrained.errors import CheckpointBusyError, InvalidOptionError
from pretrained.serve import discussions, uploads
from pretrained.serve.people import People
from pretrained.serve.running import HubServer

TEXT = b"some text"


def sizes(web: Any, repo: str, revision: str = "main") -> dict[str, int]:
    found = web("GET", f"/api/models/{repo}/tree/{revision}?recursive=1", user="ann").json
    return {item["path"]: item["size"] for item in found if item["type"] == "file"}


def head(web: Any, repo: str) -> str:
    return str(web("GET", f"/api/models/{repo}", user="ann").json["sha"])


def test_a_commit_is_all_or_nothing(web: Any, repo: str) -> None:
    before = head(web, repo)
    lines = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "file", "value": {"path": "a.txt", "content": base64.b64encode(TEXT).decode(), "encoding": "base64"}},
        {"key": "deletedFile", "value": {"path": "nothing.txt"}},
    ]
    reply = web.send_lines(repo, lines)
    assert (reply.status, reply.headers["x-error-code"]) == (404, "EntryNotFound")
    assert head(web, repo) == before
    assert web.send_lines(repo, lines[:2]).status == 200
    assert web("GET", f"/{repo}/resolve/main/a.txt").body == TEXT


def test_of_commits_on_one_parent_only_the_first_is_made(web: Any, repo: str) -> None:
    parent = head(web, repo)
    found: list[int] = []

    def run(number: int) -> None:
        found.append(web.commit(repo, {f"{number}.txt": b"x"}, parentCommit=parent).status)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] + [412] * 7
    assert len(sizes(web, repo)) == 2
    assert web.commit(repo, {"short.txt": b"x"}, parentCommit=head(web, repo)[:7]).status == 200
    assert web.commit(repo, {"shorter.txt": b"x"}, parentCommit=head(web, repo)[:6]).status == 412


def test_commits_at_once_lose_nothing(web: Any, repo: str) -> None:
    threads = [threading.Thread(target=web.commit, args=(repo, {f"{n}.txt": b"x"})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"{number}.txt" for number in range(8)} <= set(sizes(web, repo))
    assert len(web("GET", f"/api/models/{repo}/commits/main").json) == 9


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", ".git/config", "a\\b", "a//b", "", ".", "C:/x", "x\0", "x" * 1100, 7, None]
)
def test_paths_out_of_the_repository_are_refused(web: Any, repo: str, path: Any) -> None:
    value = {"path": path, "content": "", "encoding": "base64"}
    header = {"key": "header", "value": {"summary": "x"}}
    for key in ("file", "lfsFile", "deletedFile", "deletedFolder"):
        assert web.send_lines(repo, [header, {"key": key, "value": value}]).status == 400
    body = {"files": [{"path": path, "size": 1, "sample": ""}]}
    assert web("POST", f"/api/models/{repo}/preupload/main", body, user="ann").status == 400
    assert sizes(web, repo).keys() == {".gitattributes"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"key": "header", "value": {"summary": ""}}], "needs a summary"),
        ([{"key": "header", "value": {"summary": 3}}], "summary must be a text"),
        ([{"key": "header"}], "must have a key and a value"),
        ([{"key": "magic", "value": {"path": "a"}}], "cannot be 'magic'"),
        ([{"key": "file", "value": {"path": "a", "content": "!", "encoding": "base64"}}], "no base64"),
        ([{"key": "file", "value": {"path": "a"}}], "there is no content"),
        ([{"key": "lfsFile", "value": {"path": "a", "oid": "x"}}], "oid is no sha256"),
        ([{"key": "lfsFile", "value": {"path": "a", "oid": "0" * 64, "size": 1}}], "was not uploaded"),
        ([{"key": "deletedFolder", "value": {"path": "nowhere/"}}], "No folder 'nowhere'"),
        (["text"], "must hold a JSON object"),
    ],
)
def test_bodies_that_are_no_commit(web: Any, repo: str, lines: list[Any], message: str) -> None:
    reply = web.send_lines(repo, [{"key": "header", "value": {"summary": "x"}}, *lines])
    assert reply.status in (400, 404)
    assert message in reply.json["error"]


def test_a_file_cannot_be_a_folder_too(web: Any, repo: str) -> None:
    reply = web.commit(repo, {"a": b"", "a/b": b""})
    assert (reply.status, "a file and a folder" in reply.json["error"]) == (400, True)


def test_large_bodies_are_refused_before_they_are_in_memory(web: Any, repo: str) -> None:
    reply = web.commit(repo, {"a.txt": bytes(15 << 20)})
    assert reply.status == 413
    assert web("POST", "/api/validate-yaml", {"content": "x" * (2 << 20)}).status == 413
    nested = b'{"a":' * 5000 + b"1" + b"}" * 5000
    assert web("POST", "/api/repos/create", nested, user="ann").status == 400
    assert sizes(web, repo).keys() == {".gitattributes"}


def test_a_large_file_at_once_and_in_parts(web: Any, repo: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 1000)
    for name, content in (("small.bin", b"s" * 999), ("parts.bin", bytes(range(256)) * 16 + b"end")):
        action = web.leave(repo, content)["actions"]
        upload, sha256 = action["upload"], hashlib.sha256(content).hexdigest()
        if "chunk_size" in upload["header"]:
            size = int(upload["header"]["chunk_size"])
            numbers = sorted((int(key) for key in upload["header"] if key.isdigit()), reverse=True)
            assert numbers[0] == 5
            for number in numbers:
                piece = content[(number - 1) * size : number * size]
                assert web("PUT", upload["header"][str(number)], piece).headers["etag"]
            assert web("POST", upload["href"], {"oid": sha256, "parts": []}).status == 200
            assert web("POST", upload["href"], {"oid": sha256, "parts": []}).status == 200  # the answer was lost
        else:
            assert web("PUT", upload["href"], content).status == 200
        check = {"oid": sha256, "size": len(content)}
        assert web("POST", action["verify"]["href"], check, user="ann").status == 200
        assert web("POST", action["verify"]["href"], {**check, "size": 1}, user="ann").status == 404
        lines = [
            {"key": "header", "value": {"summary": name}},
            {"key": "lfsFile", "value": {"path": name, "algo": "sha256", "oid": sha256, "size": len(content)}},
        ]
        assert web.send_lines(repo, lines).status == 200
        assert web("GET", f"/{repo}/resolve/main/{name}").body == content
        assert "actions" not in web.leave(repo, content)


def test_a_wrong_byte_in_an_upload_is_caught(web: Any, repo: str, hub: HubServer, monkeypatch: Any) -> None:
    content = b"right" * 1000
    action = web.leave(repo, content)["actions"]["upload"]
    for wrong in (b"wrong" * 1000, content[:-1], b""):
        reply = web("PUT", action["href"], wrong)
        assert (reply.status, "were due" in reply.json["error"]) == (400, True)
    assert web("PUT", action["href"], content + b"!").status == 413
    monkeypatch.setattr(uploads, "CHUNK", 1000)
    action = web.leave(repo, content)["actions"]["upload"]
    for number in range(1, 6):
        piece = content[(number - 1) * 1000 : number * 1000]
        assert web("PUT", action["header"][str(number)], piece if number != 3 else b"x" * 1000).status == 200
    assert web("PUT", action["header"]["1"], b"too short").status == 400
    assert web("PUT", action["header"]["1"], b"x" * 1001).status == 413
    assert web("PUT", f"{action['href']}/6", b"x").status == 400
    reply = web("POST", action["href"], {"oid": hashlib.sha256(content).hexdigest()})
    assert (reply.status, "was due" in reply.json["error"]) == (400, True)
    store = Path(hub.root) / ".pretrained-hub"
    assert not list((store / "tmp").iterdir())
    assert not (
        store / "blobs" / hashlib.sha256(content).hexdigest()[:2] / hashlib.sha256(content).hexdigest()
    ).exists()


def test_a_connection_that_is_dead_and_does_not_know_it(web: Any, repo: str, monkeypatch: Any) -> None:
    """It keeps no upload from being completed, and changes nothing when it wakes up after that."""
    monkeypatch.setattr(uploads, "CHUNK", 1000)
    content = b"c" * 2500
    sha256 = hashlib.sha256(content).hexdigest()
    upload = web.leave(repo, content)["actions"]["upload"]
    connection = http.client.HTTPConnection("127.0.0.1", web.hub.port, timeout=30)
    connection.putrequest("PUT", upload["header"]["1"].removeprefix(web.hub.url))
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"x" * 10)
    time.sleep(0.1)
    for number in (1, 2, 3):
        assert web("PUT", upload["header"][str(number)], content[(number - 1) * 1000 : number * 1000]).status == 200
    assert web("POST", upload["href"], {"oid": sha256}).status == 200
    connection.send(b"x" * 990)
    assert connection.getresponse().status == 409
    connection.close()
    blob = Path(web.hub.root) / ".pretrained-hub/blobs" / sha256[:2] / sha256
    assert blob.read_bytes() == content


def test_knowing_the_digest_of_somebody_s_file_is_not_having_it(web: Any, repo: str) -> None:
    content = b"private weights" * 100
    action = web.leave(repo, content)["actions"]["upload"]
    assert web("PUT", action["href"], content).status == 200
    web("POST", "/api/repos/create", {"name": "thief", "organization": "bob"}, user="bob")
    assert "actions" in web.leave("bob/thief", content, user="bob")  # to be uploaded all the same
    sha256 = hashlib.sha256(content).hexdigest()
    lines = [
        {"key": "header", "value": {"summary": "steal"}},
        {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": sha256, "size": len(content)}},
    ]
    reply = web.send_lines("bob/thief", lines, user="bob")
    assert (reply.status, "was not uploaded to bob/thief" in reply.json["error"]) == (400, True)


def test_leaves_cannot_be_made_changed_or_used_for_long(web: Any, repo: str, monkeypatch: Any) -> None:
    content = b"leave"
    href = web.leave(repo, content)["actions"]["upload"]["href"]
    word = href.rpartition("/")[2]
    body, _, mac = word.partition(".")
    raw = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert "token" not in str(raw)
    other = base64.urlsafe_b64encode(json.dumps({**raw, "size": 10**6}).encode()).decode().rstrip("=")
    for bad in (f"{other}.{mac}", f"{body}.{mac[:-2]}AA", body, "x.y", "", f"{body}.{'A' * 43}"):
        assert web("PUT", f"/_lfs/{bad}", content).status in (401, 404)
    monkeypatch.setattr("time.time", lambda: raw["until"] + 1)
    assert web("PUT", href, content).status == 401
    monkeypatch.undo()
    assert web("PUT", href, content).status == 200
    xet = web("GET", f"/api/models/{repo}/xet-write-token/main", user="ann").json["accessToken"]
    assert web("PUT", f"/_lfs/{xet}", content).status == 403


def test_what_others_may_not(web: Any, repo: str) -> None:
    name = repo.partition("/")[2]
    cases = [
        ("POST", f"/api/models/{repo}/branch/b", {}),
        ("DELETE", f"/api/models/{repo}/branch/main", None),
        ("POST", f"/api/models/{repo}/tag/main", {"tag": "t"}),
        ("PUT", f"/api/models/{repo}/settings", {"private": True}),
        ("POST", f"/api/models/{repo}/super-squash/main", {}),
        ("POST", f"/api/models/{repo}/user-access-request/grant", {"user": "bob"}),
        ("GET", f"/api/models/{repo}/user-access-request/pending", None),
        ("GET", f"/api/models/{repo}/auth-check/write", None),
        ("GET", f"/api/models/{repo}/xet-write-token/main", None),
        ("POST", f"/api/models/{repo}/preupload/main", {"files": []}),
        ("DELETE", "/api/repos/delete", {"name": name, "organization": "ann"}),
        ("POST", "/api/repos/move", {"fromRepo": repo, "toRepo": "bob/mine"}),
        ("POST", "/api/repos/create", {"name": "x", "organization": "acme"}),
        ("POST", "/api/repos/create", {"name": "x", "organization": "ann"}),
    ]
    for method, path, body in cases:
        assert web(method, path, body, user="bob").status == 403, path
        assert web(method, path, body).status in (401, 403), path
    assert web.commit(repo, {"a": b""}, user="bob").status == 403
    own = web("POST", "/api/repos/create", {"name": "bobs", "organization": "bob"}, user="bob")
    assert own.status == 200
    reply = web("POST", "/api/repos/move", {"fromRepo": "bob/bobs", "toRepo": "ann/gift"}, user="bob")
    assert reply.status == 403


@pytest.mark.parametrize("name", ["..", "a/b/c", "", "-x", "x.git", "tree", "a--b", 3, None, "x" * 97])
def test_names_that_cannot_be(web: Any, name: Any) -> None:
    reply = web("POST", "/api/repos/create", {"name": name, "organization": "ann"}, user="ann")
    assert reply.status in (400, 403)


def test_a_name_in_other_letters_is_the_same_on_many_disks(web: Any, repo: str) -> None:
    name = repo.partition("/")[2].upper()
    reply = web("POST", "/api/repos/create", {"name": name, "organization": "ann"}, user="ann")
    assert (reply.status, reply.json["url"].endswith(name)) == (409, True)


@pytest.mark.parametrize("name", ["a..b", "x.lock", "0" * 40, "a%20b", "-x"])
def test_refs_that_cannot_be(web: Any, repo: str, name: str) -> None:
    assert web("POST", f"/api/models/{repo}/branch/{name}", {}, user="ann").status == 400
    assert web("POST", f"/api/models/{repo}/tag/main", {"tag": name}, user="ann").status == 400
    assert web("POST", f"/api/models/{repo}/branch/b", {"startingPoint": "nowhere"}, user="ann").status == 404
    assert web("DELETE", f"/api/models/{repo}/branch/main", user="ann").status == 403


def test_pull_requests_that_do_not_go_together(web: Any, repo: str) -> None:
    assert web.commit(repo, {"a.txt": b"1", "b.txt": b"1"}).status == 200
    for content in (b"2", b"3"):
        reply = web.commit(repo, {"a.txt": content}, user="bob", query="?create_pr=1")
        assert reply.status == 200
    assert web.commit(repo, {"b.txt": b"2"}).status == 200
    url = f"/api/models/{repo}/discussions"
    assert web("POST", f"{url}/1/merge", {}, user="ann").status == 200
    assert web("GET", f"/{repo}/resolve/main/a.txt").body == b"2"
    assert web("GET", f"/{repo}/resolve/main/b.txt").body == b"2"
    assert web("GET", f"{url}/2?diff=1").json["filesWithConflicts"] == ["a.txt"]
    reply = web("POST", f"{url}/2/merge", {}, user="ann")
    assert (reply.status, "Both sides changed a.txt" in reply.json["error"]) == (409, True)
    assert web("POST", f"{url}/1/merge", {}, user="ann").status == 400
    assert web("POST", f"{url}/9/merge", {}, user="ann").status == 404
    assert web("POST", f"{url}/2/status", {"status": "closed"}, user="ann").json["newStatus"]["data"] == {
        "status": "closed"
    }
    assert web("GET", f"/api/models/{repo}/commits/main").json[0]["title"].endswith("(#1)")


def test_only_authors_and_owners_change_a_discussion(web: Any, repo: str) -> None:
    url = f"/api/models/{repo}/discussions"
    assert web("POST", url, {"title": "by ann", "description": "d"}, user="ann").json["num"] == 1
    for path, body in (("status", {"status": "closed"}), ("title", {"title": "other"})):
        assert web("POST", f"{url}/1/{path}", body, user="bob").status == 403
    [event] = web("GET", f"{url}/1").json["events"]
    assert web("POST", f"{url}/1/comment/{event['id']}/edit", {"content": "x"}, user="bob").status == 403
    found = web("POST", f"{url}/1/comment/{event['id']}/edit", {"content": "x"}, user="ann").json["updatedComment"]
    assert found["data"]["latest"]["raw"] == "x"
    said = web("POST", f"{url}/1/comment", {"comment": "by bob"}, user="bob").json["newMessage"]
    hidden = web("POST", f"{url}/1/comment/{said['id']}/hide", {}, user="ann").json["updatedComment"]
    assert "by bob" not in str(hidden)
    for bad in ({"title": "x"}, {"title": 5}, {}, {"title": "y" * 300}):
        assert web("POST", url, bad, user="ann").status == 400
    assert web("POST", f"{url}/1/comment", {"comment": "z" * 70000}, user="ann").status == 400


def test_gated_repositories(web: Any, repo: str) -> None:
    web.commit(repo, {"a.txt": TEXT})
    for gated, after in (("auto", "accepted"), ("manual", "pending")):
        assert web("PUT", f"/api/models/{repo}/settings", {"gated": gated}, user="ann").status == 200
        for user, status in ((None, 401), ("ann", 200)):
            reply = web("GET", f"/{repo}/resolve/main/a.txt", user=user)
            assert (reply.status, reply.headers.get("x-error-code")) == (status, None if user else "GatedRepo")
        if after == "pending":
            assert web("GET", f"/{repo}/resolve/main/a.txt", user="bob").status == 403
        assert web("POST", f"/{repo}/ask-access", {}, user="bob").json == {"status": after}
        if after == "accepted":
            assert web("GET", f"/{repo}/resolve/main/a.txt", user="bob").body == TEXT
            answer = {"user": "bob", "status": "pending"}
            assert web("POST", f"/api/models/{repo}/user-access-request/handle", answer, user="ann").status == 200
    assert [
        one["user"]["user"] for one in web("GET", f"/api/models/{repo}/user-access-request/pending", user="ann").json
    ] == ["bob"]
    assert web.commit(repo, {"b.txt": b""}, user="bob", query="?create_pr=1").status == 403
    assert web("PUT", f"/api/models/{repo}/settings", {"gated": "maybe"}, user="ann").status == 400


def test_private_repositories_do_not_show_that_they_exist(web: Any, repo: str) -> None:
    assert web("PUT", f"/api/models/{repo}/settings", {"visibility": "private"}, user="ann").status == 200
    there = [web(*call, user=user) for user in (None, "bob") for call in _calls(repo)]
    missing = [web(*call, user=user) for user in (None, "bob") for call in _calls("ann/nothing")]
    for one, other in zip(there, missing, strict=True):
        assert (one.status, one.body, one.headers.get("x-error-code")) == (
            other.status,
            other.body.replace(b"ann/nothing", repo.encode()),
            other.headers.get("x-error-code"),
        )


def _calls(repo: str) -> list[tuple[Any, ...]]:
    return [
        ("GET", f"/api/models/{repo}"),
        ("GET", f"/api/models/{repo}/refs"),
        ("GET", f"/{repo}/resolve/main/a.txt"),
        ("POST", f"/api/models/{repo}/commit/main", b""),
        ("POST", f"/{repo}.git/info/lfs/objects/batch", {}),
        ("POST", f"/{repo}/ask-access", {}),
        ("POST", f"/api/models/{repo}/discussions", {"title": "hello"}),
        ("GET", f"/{repo}"),
    ]


def test_yaml_of_cards(web: Any) -> None:
    bombs = {
        "---\nlicense: mit\n---\n": 200,
        "no head": 200,
        "---\na: [\n---\n": 400,
        "---\na: &a [x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e]\n---\n": 400,
        "---\na: &a {b: 1}\nc: {<<: *a}\n---\n": 400,
        "---\na: &a [*a]\n---\n": 400,
        f"---\na: [{'x,' * 70000}]\n---\n": 200,
        f"---\na: {'[' * 1500}\n---\n": 400,
        "---\n!!python/object/apply:os.system ['true']\n---\n": 400,
    }
    for text, status in bombs.items():
        reply = web("POST", "/api/validate-yaml", {"content": text, "repoType": "model"})
        assert (reply.status, bool(reply.json["errors"])) == (status, status != 200), text[:60]


def test_tokens_are_never_logged(web: Any, repo: str, caplog: Any) -> None:
    with caplog.at_level("DEBUG"):
        web.commit(repo, {"a.txt": TEXT})
        href = web.leave(repo, b"content")["actions"]["upload"]["href"]
        web("PUT", href, b"content")
        web("GET", "/api/models", headers={"Authorization": "Bearer somebody-else-s"})
    assert "/_lfs/…" in caplog.text
    assert "token-of-ann" not in caplog.text
    assert "somebody-else-s" not in caplog.text
    assert href.rpartition("/")[2] not in caplog.text


def test_one_server_writes_and_others_may_read(web: Any, repo: str, hub: HubServer) -> None:
    web.commit(repo, {"a.txt": TEXT})
    people = People({"ann": "token-of-ann"})
    with pytest.raises(CheckpointBusyError, match="another server writes to"):
        HubServer(hub.root, people=people, writable=True)
    with HubServer(hub.root) as reader:
        other = Web(reader)
        assert other("GET", f"/{repo}/resolve/main/a.txt").body == TEXT
        web.commit(repo, {"a.txt": b"later"})
        assert other("GET", f"/{repo}/resolve/main/a.txt").body == b"later"
    with pytest.raises(InvalidOptionError, match="nobody could write anything"):
        HubServer(hub.root, writable=True)


def test_a_disk_that_is_nearly_full(web: Any, repo: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("pretrained.serve.disk_store.RESERVE", 1 << 60)
    assert web.commit(repo, {"a.txt": TEXT}).status == 507
    href = web.leave(repo, b"content")["actions"]["upload"]["href"]
    assert web("PUT", href, b"content").status == 507


def test_a_limit_for_files(tmp_path: Path, serve: Any) -> None:
    web = serve(tmp_path, people=People({"ann": "token-of-ann"}), writable=True, max_file=100)
    web("POST", "/api/repos/create", {"name": "m"}, user="ann")
    found = web.leave("ann/m", b"x" * 101)
    assert (found["error"]["code"], "at most 100" in found["error"]["message"]) == (422, True)


def test_the_folder_beside_the_store_is_read_only(models: Path, serve: Any) -> None:
    web = serve(models, people=People({"acme": "token-of-ann"}), writable=True)
    reply = web.commit("acme/bert", {"a.txt": b""})
    assert (reply.status, "folder of the server's" in reply.json["error"]) == (403, True)
    reply = web("POST", "/api/repos/create", {"name": "bert"}, user="ann")
    assert reply.status == 409
    assert web("POST", "/api/repos/create", {"name": "new"}, user="ann").status == 200
    assert [info["id"] for info in web("GET", "/api/models").json] == ["acme/new", "acme/bert", "llama"]


def test_contents_of_deleted_repositories_go(tmp_path: Path, monkeypatch: Any) -> None:
    people = People({"ann": "token-of-ann"})

    def start() -> HubServer:
        return HubServer(tmp_path, people=people, writable=True)

    with start() as server:
        web = Web(server)
        for name in ("kept", "gone"):
            web("POST", "/api/repos/create", {"name": name}, user="ann")
            web.commit(f"ann/{name}", {"a.txt": name.encode(), "both.txt": b"both"})
        assert web("DELETE", "/api/repos/delete", {"name": "gone"}, user="ann").status == 200
        assert web("GET", "/api/models/ann/gone").status == 401
    contents = {hashlib.sha256(text).hexdigest() for text in (b"kept", b"gone", b"both")}

    def held() -> set[str]:
        return {path.name for path in (tmp_path / ".pretrained-hub/blobs").glob("*/*")} & contents

    assert len(held()) == 3
    monkeypatch.setattr("pretrained.serve.sweep.YOUNG", -60.0)
    with start() as server:
        assert held() == contents - {hashlib.sha256(b"gone").hexdigest()}
        assert Web(server)("GET", "/ann/kept/resolve/main/both.txt").body == b"both"


def test_nobody_makes_another_s_repository_heavy(web: Any, repo: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(discussions, "MAX_SAID", 10_000)
    monkeypatch.setattr(discussions, "MAX_OPEN", 3)
    url = f"/api/models/{repo}/discussions"
    for number in range(3):
        assert web("POST", url, {"title": f"number {number}"}, user="bob").status == 200
    reply = web("POST", url, {"title": "one more"}, user="bob")
    assert (reply.status, "as many as there may be" in reply.json["error"]) == (403, True)
    assert web.commit(repo, {"a.txt": b"x"}, user="bob", query="?create_pr=1").status == 403
    said = [web("POST", f"{url}/1/comment", {"comment": "x" * 3000}, user="bob").status for _ in range(5)]
    assert said == [200, 200, 200, 403, 403]
    assert (Path(web.hub.root) / f".pretrained-hub/repos/models/{repo}/state.json").stat().st_size < 3000
    assert web.commit(repo, {"a.txt": b"x"}).status == 200
    assert web("POST", f"{url}/1/status", {"status": "closed"}, user="ann").status == 200
    assert web("POST", url, {"title": "room again"}, user="bob").status == 200


def test_a_body_that_stops_is_given_up(web: Any, repo: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("pretrained.serve.calls.PATIENCE", 0.2)
    monkeypatch.setattr("pretrained.serve.app.DRAINING", 0.2)
    connection = http.client.HTTPConnection("127.0.0.1", web.hub.port, timeout=30)
    connection.putrequest("POST", f"/api/models/{repo}/paths-info/main")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"paths=")
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("connection")) == (408, "close")
    connection.close()


def test_a_body_is_read_to_its_end_when_it_is_refused(web: Any, repo: str) -> None:
    """So that the next request of the same connection is understood."""
    connection = http.client.HTTPConnection("127.0.0.1", web.hub.port, timeout=30)
    for _ in range(3):
        connection.request("POST", f"/api/models/{repo}/commit/main", b"x" * 300_000)
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (401, True)
        assert connection.sock is not None
    connection.close()


def test_a_secret_that_was_cut_off_signs_nothing(tmp_path: Path) -> None:
    people = People({"ann": "token-of-ann"})
    for _ in range(2):
        with HubServer(tmp_path, people=people, writable=True) as server:
            web = Web(server)
            web("POST", "/api/repos/create", {"name": "m"}, user="ann")
            secret = tmp_path / ".pretrained-hub/secret"
            assert len(secret.read_bytes()) == 32
        secret.write_bytes(b"")
