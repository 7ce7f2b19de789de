"""What clients read: the headers and codes that they rely on, ranges, pages, and who may read what."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from pretrained.errors import InvalidOptionError
from pretrained.serve.people import People
from pretrained.serve.running import HubServer

CONTENT = bytes(range(256)) * 8


@pytest.fixture
def read(models: Path, serve: Any) -> Any:
    (models / "llama/data.bin").write_bytes(CONTENT)
    (models / "llama/empty.txt").write_bytes(b"")
    (models / "llama/page.html").write_text("<script>alert(1)</script>")
    return serve(models)


def test_a_file_has_what_clients_need(read: Any) -> None:
    sha = read("GET", "/api/models/llama").json["sha"]
    for method in ("GET", "HEAD"):
        reply = read(method, "/llama/resolve/main/data.bin", headers={"Accept-Encoding": "identity"})
        digest = hashlib.sha256(CONTENT).hexdigest()
        assert reply.status == 200
        assert reply.body == (CONTENT if method == "GET" else b"")
        assert reply.headers["content-length"] == str(len(CONTENT))
        assert reply.headers["x-repo-commit"] == sha
        assert reply.headers["etag"] == reply.headers["x-linked-etag"] == f'"{digest}"'
        assert reply.headers["x-linked-size"] == str(len(CONTENT))
        assert reply.headers["accept-ranges"] == "bytes"
    small = read("HEAD", "/llama/resolve/main/config.json")
    [listed] = [item for item in read("GET", "/api/models/llama/tree/main").json if item["path"] == "config.json"]
    assert small.headers["etag"] == f'"{listed["oid"]}"'
    assert "x-linked-etag" not in small.headers


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=2000-", 2000, 2048),
        ("bytes=-48", 2000, 2048),
        ("bytes=0-99999", 0, 2048),
        ("bytes=-99999", 0, 2048),
    ],
)
def test_ranges(read: Any, asked: str, start: int, end: int) -> None:
    for method in ("GET", "HEAD"):
        reply = read(method, "/llama/resolve/main/data.bin", headers={"Range": asked})
        assert reply.status == 206
        assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/2048"
        assert reply.headers["content-length"] == str(end - start)
        assert reply.body == (CONTENT[start:end] if method == "GET" else b"")


@pytest.mark.parametrize("asked", ["bytes=2048-", "bytes=-0", "bytes=99999999999999999-"])
def test_ranges_that_are_not_there(read: Any, asked: str) -> None:
    reply = read("GET", "/llama/resolve/main/data.bin", headers={"Range": asked})
    assert reply.status == 416
    assert reply.headers["content-range"] == "bytes */2048"
    assert read("GET", "/llama/resolve/main/empty.txt", headers={"Range": "bytes=0-"}).status == 416


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,3-4", "bytes=5-4", "lines=1-2", "bytes=", "bytes=-", "bytes=a-b", "bytes=" + "9" * 50 + "-"]
)
def test_ranges_that_mean_nothing_give_the_whole_file(read: Any, asked: str) -> None:
    reply = read("GET", "/llama/resolve/main/data.bin", headers={"Range": asked})
    assert (reply.status, reply.body) == (200, CONTENT)


def test_validators(read: Any) -> None:
    etag = read("HEAD", "/llama/resolve/main/data.bin").headers["etag"]
    url = "/llama/resolve/main/data.bin"
    assert read("GET", url, headers={"If-None-Match": etag}).status == 304
    assert read("GET", url, headers={"If-None-Match": '"other"'}).status == 200
    assert read("GET", url, headers={"If-Match": etag, "Range": "bytes=0-1"}).status == 206
    assert read("GET", url, headers={"If-Match": '"other"'}).status == 412
    for listed in (f'"x",{etag}', f'"x" , {etag},"y"', "*"):
        assert read("GET", url, headers={"If-None-Match": listed}).status == 304
        assert read("GET", url, headers={"If-Match": listed}).status == 200
    assert read("GET", url, headers={"If-Match": '"other"', "If-None-Match": etag}).status == 412
    assert read("GET", url, headers={"If-Range": '"other"', "Range": "bytes=0-1"}).status == 200
    assert read("GET", url, headers={"If-Range": etag, "Range": "bytes=0-1"}).status == 206


def test_errors_say_which_kind_they_are(read: Any) -> None:
    sha = read("GET", "/api/models/llama").json["sha"]
    cases = {
        "/api/models/no/thing": (401, "RepoNotFound"),
        "/api/models/llama/revision/nowhere": (404, "RevisionNotFound"),
        "/api/models/llama/tree/nowhere": (404, "RevisionNotFound"),
        "/api/models/llama/tree/main/nowhere": (404, "EntryNotFound"),
        "/llama/resolve/nowhere/config.json": (404, "RevisionNotFound"),
        "/llama/resolve/main/nothing": (404, "EntryNotFound"),
        "/no/thing/resolve/main/config.json": (401, "RepoNotFound"),
        "/datasets/llama/resolve/main/config.json": (401, "RepoNotFound"),
        f"/llama/resolve/{'0' * 40}/config.json": (404, "RevisionNotFound"),
    }
    for path, (status, code) in cases.items():
        reply = read("GET", path)
        assert (reply.status, reply.headers["x-error-code"]) == (status, code), path
        assert reply.json["error"] == reply.headers["x-error-message"]
    assert read("GET", "/llama/resolve/main/nothing").headers["x-repo-commit"] == sha


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing/at/all/here", 404),
        ("GET", "/api/nothing", 404),
        ("POST", "/llama/resolve/main/config.json", 405),
        ("PUT", "/api/models/llama/tree/main", 405),
        ("GET", "/api/whoami-v2", 401),
        ("GET", "/llama/resolve", 404),
        ("GET", "/llama/resolve/main", 404),
        ("GET", "/llama/resolve/main/" + "x" * 9000, 414),
        ("OPTIONS", "/api/models", 404),
        ("GET", "/_lfs/x", 404),
        ("PUT", "/_lfs/x", 403),
        ("GET", "/llama/resolve/main/a%00b", 404),
        ("GET", "/llama/resolve/main/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/api/models/llama/tree/main/..%2f..", 400),
    ],
)
def test_paths_that_lead_nowhere(read: Any, method: str, path: str, status: int) -> None:
    assert read(method, path).status == status


def test_a_server_without_users_does_not_look_at_tokens(read: Any) -> None:
    headers = {"Authorization": "Bearer hf_of_another_hub"}
    assert read("GET", "/api/models/llama", headers=headers).status == 200


def test_nothing_is_written_to_a_server_that_only_reads(models: Path, serve: Any) -> None:
    web = serve(models, people=People({"ann": "token-of-ann"}))
    for method, path in (
        ("POST", "/api/repos/create"),
        ("DELETE", "/api/repos/delete"),
        ("POST", "/api/models/llama/commit/main"),
        ("POST", "/api/models/llama/branch/x"),
        ("PUT", "/api/models/llama/settings"),
        ("POST", "/llama.git/info/lfs/objects/batch"),
    ):
        reply = web(method, path, {"name": "x"}, user="ann")
        assert (reply.status, "read-only" in reply.json["error"]) == (403, True), path
    assert not list(models.glob(".*"))


def test_pages_of_a_tree_are_of_one_commit(models: Path, serve: Any, monkeypatch: Any) -> None:
    for number in range(25):
        (models / f"llama/{number:03}.txt").write_text(str(number))
    web = serve(models)
    found, path = [], "/api/models/llama/tree/main?limit=10&recursive=True"
    sha = web("GET", "/api/models/llama").json["sha"]
    while path:
        reply = web("GET", path)
        found += [item["path"] for item in reply.json]
        path = reply.headers.get("link", "").partition(">")[0].lstrip("<")
        assert not path or f"/tree/{sha}?" in path
    assert found == sorted(found)
    assert len(found) == 25 + 5
    listed = web("GET", "/api/models?limit=1")
    assert [info["id"] for info in listed.json] == ["acme/bert"]
    assert [info["id"] for info in web("GET", listed.headers["link"].partition(">")[0].lstrip("<")).json] == ["llama"]


def test_paths_info_as_a_form_and_as_json(read: Any) -> None:
    form = urllib.parse.urlencode([("paths", "config.json"), ("paths", "nothing"), ("expand", "True")]).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    [found] = read("POST", "/api/models/llama/paths-info/main", form, headers=headers).json
    assert (found["path"], found["type"], found["lastCommit"]["title"]) == (
        "config.json",
        "file",
        "The files of the folder",
    )
    [found] = read("POST", "/api/models/llama/paths-info/main", {"paths": ["data.bin"], "expand": False}).json
    assert found["lfs"]["size"] == 2048


def test_a_page_of_the_repository_does_not_run(read: Any) -> None:
    reply = read("GET", "/llama/resolve/main/page.html")
    assert reply.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[evil]"),
        *("localhost:80@evil.example", "localhost:/evil", "[::1]evil", "127.0.0.1:8>", "127.0.0.1:123456"),
    ],
)
def test_another_host_s_name_is_refused(read: Any, host: str) -> None:
    reply = read("GET", "/api/models", headers={"Host": host})
    assert (reply.status, "--allowed-host" in reply.json["error"]) == (421, True)


@pytest.mark.parametrize("host", ["127.0.0.1:80", "LOCALHOST", "localhost:", "[::1]:8", "10.1.2.3", "hub.example"])
def test_names_that_are_ours(models: Path, serve: Any, host: str) -> None:
    web = serve(models, hosts=["hub.example"])
    assert web("GET", "/api/models", headers={"Host": host}).status == 200


def test_a_proxy_in_front_has_its_own_address(models: Path, serve: Any) -> None:
    web = serve(models, public_url="https://hub.example/")
    reply = web("GET", "/api/models?limit=1", headers={"Host": "hub.example"})
    assert reply.headers["link"].startswith("<https://hub.example/api/models?")


def test_a_closed_server_shows_nothing_to_strangers(models: Path, serve: Any) -> None:
    web = serve(models, people=People({"ann": "token-of-ann"}), is_closed=True)
    assert web("GET", "/api/models").json == []
    assert web("GET", "/api/models/llama").status == 401
    assert web("GET", "/llama/resolve/main/config.json").status == 401
    assert web("GET", "/api/models/llama", user="ann").status == 200
    with pytest.raises(InvalidOptionError, match="nobody could read anything"):
        HubServer(models, is_closed=True)


def test_sharded_metadata_in_one_answer(read: Any, models: Path) -> None:
    url = "/api/models/llama/safetensors-metadata/model.safetensors.index.json"
    found = read("GET", url).json
    index = json.loads((models / "llama/model.safetensors.index.json").read_text())
    assert found["index"]["metadata"] == index["metadata"]
    assert {name for header in found["headers"].values() for name in header} - {"__metadata__"} == set(
        index["weight_map"]
    )
    (models / "llama/model-00001-of-00002.safetensors").write_bytes(b"damaged")
    assert read("GET", url).status == 404


@pytest.mark.parametrize(
    ("tokens", "orgs", "message"),
    [
        ({"a b": "12345678"}, {}, "'a b' is no name"),
        ({"ann": "short"}, {}, "the token of ann must have 8 to 512"),
        ({"ann": "has a space"}, {}, "the token of ann must have"),
        ({"ann": "12345678", "bob": "12345678"}, {}, "two users have the same token"),
        ({"ann": "12345678"}, {"ann": ["ann"]}, "ann is a user"),
        ({"ann": "12345678"}, {"acme": ["bob"]}, "'bob' of acme has no token"),
    ],
)
def test_people_that_cannot_be(tokens: dict[str, str], orgs: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        People(tokens, orgs)


def test_tokens_are_not_kept() -> None:
    people = People({"ann": "token-of-ann"}, {"acme": ["ann"]})
    assert "token-of-ann" not in repr(people) + repr(vars(people))
    assert people.owning("token-of-ann").orgs == ("acme",)  # type: ignore[union-attr]
    assert people.owning("token-of-anx") is None
