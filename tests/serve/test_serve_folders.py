"""Folders of models and Hugging Face caches: what is served of them, under which commit, and what is not."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download

from pretrained.checkpoint.commit import Stage
from pretrained.errors import SourceError
from pretrained.serve.digests import Digests
from pretrained.serve.folders import FolderShelf
from pretrained.serve.running import HubServer


def names(web: Any) -> list[str]:
    return [info["id"] for info in web("GET", "/api/models").json]


def files(web: Any, repo: str, revision: str = "main") -> list[str]:
    return [item["path"] for item in web("GET", f"/api/models/{repo}/tree/{revision}?recursive=1").json]


def test_models_of_a_folder(models: Path, serve: Any) -> None:
    (models / "empty").mkdir()
    (models / "notes").mkdir()
    (models / "notes/README.md").write_text("no model")
    (models / "README.md").write_text("no model either")
    (models / "bad--name").mkdir()
    (models / "bad--name/config.json").write_text("{}")
    web = serve(models)
    assert names(web) == ["acme/bert", "llama"]
    assert files(web, "acme/bert") == ["config.json", "model.safetensors"]
    for missing in ("notes", "bad--name", "acme", "llama/config.json", "..%2Fmodels", "acme%2Fbert%2F.."):
        assert web("GET", f"/api/models/{missing}").status in (401, 404)


def test_one_model(models: Path, serve: Any) -> None:
    assert names(serve(models / "llama")) == ["llama"]


def test_the_commit_is_made_of_the_content_alone(models: Path, tmp_path: Path, serve: Any) -> None:
    shutil.copytree(models, tmp_path / "again")
    (tmp_path / "again/llama/config.json").touch()
    shas = [
        {info["id"]: info["sha"] for info in serve(root)("GET", "/api/models").json}
        for root in (models, tmp_path / "again")
    ]
    assert shas[0] == shas[1]
    assert all(len(sha) == 40 for sha in shas[0].values())


def test_a_change_is_another_commit_and_the_old_one_is_gone(models: Path, serve: Any) -> None:
    web = serve(models)
    before = web("GET", "/api/models/llama").json["sha"]
    assert web("GET", f"/llama/resolve/{before}/config.json").status == 200
    config = json.loads((models / "llama/config.json").read_text())
    (models / "llama/config.json").write_text(json.dumps({**config, "new": 1}))
    after = web("GET", "/api/models/llama").json["sha"]
    assert before != after
    reply = web("GET", f"/llama/resolve/{before}/config.json")
    assert (reply.status, reply.headers["x-error-code"]) == (404, "RevisionNotFound")
    assert web("GET", f"/llama/resolve/{after}/config.json").json["new"] == 1
    assert web("GET", "/llama/resolve/main/config.json").headers["x-repo-commit"] == after


def test_a_file_that_changes_under_a_client_is_refused_and_never_mixed(
    models: Path, serve: Any, monkeypatch: Any
) -> None:
    web = serve(models)
    sha = web("GET", "/api/models/llama").json["sha"]
    repo = next(iter(web.hub.shelves)).find("models", "llama")
    old = repo.scan()
    monkeypatch.setattr(repo, "scan", lambda progress=None: old)  # a look that is a moment too early
    (models / "llama/generation_config.json").write_text("{}")
    reply = web("GET", f"/llama/resolve/{sha}/generation_config.json")
    assert (reply.status, reply.headers["x-error-code"]) == (404, "RevisionNotFound")


def test_links_out_and_hidden_files_are_not_served(models: Path, tmp_path: Path, serve: Any) -> None:
    (tmp_path / "secret").write_text("secret")
    (models / "llama/link.json").symlink_to(tmp_path / "secret")
    (models / "llama/folder").symlink_to(tmp_path)
    (models / "llama/.env").write_text("secret")
    (models / "llama/.git").mkdir()
    (models / "llama/.git/config").write_text("secret")
    (models / "llama/.gitattributes").write_text("x")
    (models / "llama/onnx").mkdir()
    (models / "llama/onnx/model.onnx").write_bytes(b"onnx")
    web = serve(models)
    assert set(files(web, "llama")) - {path.name for path in (models / "llama").iterdir()} == {"onnx/model.onnx"}
    assert {"link.json", ".env"}.isdisjoint(files(web, "llama"))
    assert ".gitattributes" in files(web, "llama")
    for path in ("link.json", ".env", "folder/secret", ".git/config", "../acme/bert/config.json", "%2e%2e/x"):
        assert web("GET", f"/llama/resolve/main/{path}").status in (400, 404)
    assert web("GET", "/api/models/llama/onnx").status in (401, 404)  # a folder of a model is no model


def test_a_save_that_was_interrupted_is_served_whole(models: Path, serve: Any) -> None:
    stage = Stage(models / "llama")
    stage.__enter__()
    stage.path("config.json").write_text('{"half": "written"}')
    web = serve(models)
    assert "half" not in web("GET", "/llama/resolve/main/config.json").json
    assert not [name for name in files(web, "llama") if name.startswith(".")]
    stage.__exit__(None, None, None)


def test_checksums_are_remembered(models: Path, tmp_path: Path, monkeypatch: Any) -> None:
    memory = tmp_path / "memory/digests.json"
    shelf = FolderShelf(models, memory)
    first = {repo.id: repo.scan().oid for repo in shelf.listed("models")}
    shelf.close()
    assert memory.exists()

    def never(*_: Any) -> Any:
        raise AssertionError("a file was read again")

    monkeypatch.setattr("pretrained.serve.digests.digest", never)
    shelf = FolderShelf(models, memory)
    assert {repo.id: repo.scan().oid for repo in shelf.listed("models")} == first
    assert all(repo.unread() == 0 for repo in shelf.listed("models"))
    memory.write_text("{damaged")
    assert not Digests(memory).knows(models / "llama/config.json")


def test_a_cache_is_served_as_it_was_downloaded(models: Path, tmp_path: Path, serve: Any) -> None:
    origin = serve(models)
    cache = tmp_path / "cache"
    for repo in ("acme/bert", "llama"):
        snapshot_download(repo, endpoint=origin.hub.url, cache_dir=cache, token=False)
    web = serve(cache)
    assert names(web) == ["acme/bert", "llama"]
    for repo in ("acme/bert", "llama"):
        ours, theirs = (api("GET", f"/api/models/{repo}?blobs=1").json for api in (web, origin))
        assert ours["sha"] == theirs["sha"]
        assert ours["siblings"] == theirs["siblings"]
        trees = [api("GET", f"/api/models/{repo}/tree/main").json for api in (web, origin)]
        assert trees[0] == trees[1]
    again = snapshot_download("llama", endpoint=web.hub.url, cache_dir=tmp_path / "second", token=False)
    for path in (models / "llama").iterdir():
        assert (Path(again) / path.name).read_bytes() == path.read_bytes()


def test_a_cache_without_links_and_a_link_out(models: Path, tmp_path: Path, serve: Any) -> None:
    sha = "0123456789" * 4
    snapshot = tmp_path / "cache/models--acme--plain/snapshots" / sha
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "secret").write_text("secret")
    (snapshot / "out.json").symlink_to(tmp_path / "secret")
    (tmp_path / "cache/models--acme--plain/refs/refs/pr").mkdir(parents=True)
    (tmp_path / "cache/models--acme--plain/refs/refs/pr/3").write_text(sha)
    (tmp_path / "cache/models--acme--plain/refs/v1").write_text(sha)
    (tmp_path / "cache/models--acme--plain/refs/bad").write_text("../../..")
    (tmp_path / "cache/datasets--acme--text/snapshots" / sha).mkdir(parents=True)
    (tmp_path / "cache/datasets--acme--text/snapshots" / sha / "a.csv").write_text("a,b")
    web = serve(tmp_path / "cache")
    assert files(web, "acme/plain") == ["config.json"]
    assert web("GET", f"/acme/plain/resolve/{sha}/out.json").status == 404
    for revision in ("main", "v1", "refs%2Fpr%2F3", sha):
        assert web("GET", f"/acme/plain/resolve/{revision}/config.json").body == b"{}"
    refs = web("GET", "/api/models/acme/plain/refs?include_prs=1").json
    assert sorted(ref["name"] for ref in refs["branches"]) == ["main", "v1"]
    assert refs["pullRequests"][0]["ref"] == "refs/pr/3"
    assert web("GET", "/datasets/acme/text/resolve/main/a.csv").body == b"a,b"


def test_a_cache_whose_blobs_are_shared_by_repositories(tmp_path: Path, serve: Any) -> None:
    sha, content = "ab" * 20, b"shared"
    etag = hashlib.sha256(content).hexdigest()
    home = tmp_path / "models--acme--x"
    for folder in (home / "blobs", home / "snapshots" / sha, tmp_path / "blobs/ff"):
        folder.mkdir(parents=True)
    (tmp_path / "blobs/ff" / ("ff" * 32)).write_bytes(content)
    (home / "blobs" / etag).symlink_to(f"../../blobs/ff/{'ff' * 32}")
    (home / "snapshots" / sha / "w.bin").symlink_to(f"../../blobs/{etag}")
    web = serve(tmp_path)
    assert web("GET", f"/acme/x/resolve/{sha}/w.bin").body == content
    assert web("GET", f"/api/models/acme/x/tree/{sha}").json[0]["lfs"]["oid"] == etag


def test_two_at_once_do_not_read_twice(models: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from pretrained.serve import digests

    read: list[Path] = []
    real: Callable[..., Any] = digests.digest
    monkeypatch.setattr(digests, "digest", lambda path, *rest: (read.append(path), real(path, *rest))[1])
    shelf = FolderShelf(models)
    threads = [threading.Thread(target=lambda: [repo.scan() for repo in shelf.listed("models")]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == len(set(read))


def test_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder .*missing to serve"):
        HubServer(tmp_path / "missing")
    with HubServer(tmp_path) as one:
        with pytest.raises(SourceError, match=rf"cannot listen on 127\.0\.0\.1 port {one.port}"):
            HubServer(tmp_path, port=one.port).bind()
        assert HfApi(endpoint=one.url, token=False).list_models() is not None


def test_who_asks_while_files_are_read_is_told_to_come_again(models: Path, serve: Any, monkeypatch: Any) -> None:
    from pretrained.serve import folders

    web = serve(models)
    monkeypatch.setattr(folders, "PATIENCE", 0.1)
    repo = next(iter(web.hub.shelves)).find("models", "llama")
    with repo._lock:
        reply = web("GET", "/api/models/llama")
        assert (reply.status, reply.headers["retry-after"]) == (503, "10")
        assert web("GET", "/api/models/acme/bert").status == 200
    assert web("GET", "/api/models/llama").status == 200


def test_a_save_that_was_recorded_and_is_damaged(models: Path, serve: Any) -> None:
    from pretrained.checkpoint.commit_log import RECORD

    (models / "llama" / RECORD).write_text("{damaged")
    web = serve(models)
    reply = web("GET", "/api/models/llama")
    assert (reply.status, "cannot be read now" in reply.json["error"]) == (503, True)
    assert web("GET", "/api/models/acme/bert").status == 200
    assert names(web) == ["acme/bert"]
    assert b"cannot be read now" in web("GET", "/").body
