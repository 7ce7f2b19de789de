"""Repositories: what is in the cache, and what a hub of a hundred lines answers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from loopback_hub import COMMIT, OTHER, Hub, online, weights

from pretrained.checkpoint.find import find_checkpoint
from pretrained.errors import HubError, InvalidOptionError, SourceError, UntrustedPathError
from pretrained.hub.ref import resolve
from pretrained.hub.repository import open_repository
from pretrained.hub.snapshot import FolderSnapshot
from pretrained.models.bert.configuration_bert import BertConfig
from pretrained.options import SourceOptions, WeightOptions

# The cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache as huggingface_hub keeps it: blobs, and snapshots whose files are links to them."""
    home = tmp_path / "cache" / "models--org--name"
    files = {
        "config.json": json.dumps({"model_type": "bert", "hidden_size": 24}).encode(),
        "model.safetensors": weights(tmp_path),
        "sub/config.json": json.dumps({"hidden_size": 48}).encode(),
    }
    (home / "blobs").mkdir(parents=True)
    for name, content in files.items():
        blob = home / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        link = home / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (len(Path(name).parts) + 1), "blobs", blob.name))
    for ref, commit in {"main": COMMIT, "v1": COMMIT, "refs/pr/3": COMMIT, "gone": OTHER}.items():
        path = home / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
    return tmp_path / "cache"


def cached(cache: Path, **options: Any) -> SourceOptions:
    return SourceOptions(cache_dir=cache, local_files_only=True, **options)


@pytest.mark.parametrize("revision", [None, "main", "v1", "refs/pr/3", COMMIT])
def test_a_cached_repository(revision: str | None, cache: Path) -> None:
    snapshot = resolve("org/name", cached(cache, revision=revision))
    assert isinstance(snapshot, FolderSnapshot)
    assert (snapshot.name, snapshot.commit) == ("org/name", COMMIT)
    assert snapshot.names() == ["config.json", "model.safetensors"]
    assert list(find_checkpoint(snapshot, WeightOptions()).entries) == ["w"]  # links into blobs/ are the cache's own


def test_a_config_out_of_the_cache(cache: Path) -> None:
    config = BertConfig.from_pretrained("org/name", cache_dir=cache, local_files_only=True)
    assert (config.hidden_size, config.name_or_path) == (24, "org/name")
    config = BertConfig.from_pretrained("org/name", cache_dir=str(cache), local_files_only=True, subfolder="sub")
    assert config.hidden_size == 48


def test_offline_by_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve("org/name", SourceOptions(cache_dir=cache)).commit == COMMIT
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    assert resolve("org/name", SourceOptions()).commit == COMMIT


@pytest.mark.parametrize(
    ("repo", "options"),
    [
        ("org/other", {}),
        ("name", {}),
        ("org/name", {"revision": "v2"}),
        ("org/name", {"revision": OTHER}),
        ("org/name", {"revision": "gone"}),
    ],
)
def test_what_is_not_in_the_cache(repo: str, options: dict[str, str], cache: Path) -> None:
    with pytest.raises(HubError, match=r"is not in the cache .* nothing may be downloaded") as caught:
        resolve(repo, cached(cache, **options))
    known = "Cached of this repository: aaaaaaaaaaaa (main) (v1)" if repo == "org/name" else "Cached: models--org--name"
    assert known in str(caught.value)
    assert (caught.value.path, caught.value.status) == (repo, None)
    assert isinstance(caught.value, OSError)


def test_no_cache_at_all(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="Cached: nothing"):
        resolve("org/name", cached(tmp_path / "none"))


@pytest.mark.parametrize("subfolder", ["nothing", "config.json"])
def test_a_subfolder_that_is_not_cached(subfolder: str, cache: Path) -> None:
    with pytest.raises(SourceError, match=f"no folder '{subfolder}' in the cached org/name@aaaaaaaa"):
        resolve("org/name", cached(cache, subfolder=subfolder))


@pytest.mark.parametrize("revision", ["../../../outside", "/etc", "..", "a/../../b", "main\r\nX: y"])
def test_a_revision_stays_in_the_cache(revision: str, cache: Path) -> None:
    (cache.parent / "outside").mkdir()
    with pytest.raises(UntrustedPathError, match="revision"):
        resolve("org/name", cached(cache, revision=revision))


@pytest.mark.parametrize("content", ["../../../../outside", "/etc", "", "x" * 10_000, "é", COMMIT[:7], COMMIT.upper()])
def test_a_ref_that_holds_no_commit(content: str, cache: Path) -> None:
    (cache.parent / "outside").mkdir()
    (cache / "models--org--name" / "refs" / "main").write_bytes(content.encode("latin-1"))
    with pytest.raises(HubError, match="is not in the cache"):
        resolve("org/name", cached(cache))


def test_a_link_out_of_the_cache(cache: Path, tmp_path: Path) -> None:
    link = cache / "models--org--name" / "snapshots" / COMMIT / "model.safetensors"
    link.unlink()
    link.symlink_to(tmp_path / "1.0.safetensors")
    with pytest.raises(UntrustedPathError):
        find_checkpoint(resolve("org/name", cached(cache)), WeightOptions())
    (link.parent / "evil").symlink_to(tmp_path)
    with pytest.raises(UntrustedPathError, match="leads out of it"):
        resolve("org/name", cached(cache, subfolder="evil"))


# A hub


def test_a_repository_online(hub: Hub, tmp_path: Path) -> None:
    snapshot = resolve("org/name", online(hub, tmp_path))
    assert (snapshot.name, snapshot.commit, snapshot.folder) == ("org/name", COMMIT, None)
    assert snapshot.names() == ["config.json", "model.safetensors", "pytorch_model.bin", "sub/config.json"]
    assert not any("resolve" in request for request in hub.requests)  # nothing is fetched before it is asked for
    found = find_checkpoint(snapshot, WeightOptions())
    assert list(found.entries) == ["w"]
    assert not any("pytorch_model" in request for request in hub.requests)


def test_every_file_comes_from_one_commit(hub: Hub, tmp_path: Path) -> None:
    snapshot = resolve("org/name", online(hub, tmp_path))
    hub.branches["main"] = OTHER  # somebody pushes
    found = find_checkpoint(snapshot, WeightOptions())
    (container,) = found.containers.values()
    assert container.read(found.entries["w"]).tolist() == [1.0, 1.0]
    assert not any(OTHER in request for request in hub.requests)
    again = resolve("org/name", online(hub, tmp_path))
    assert again.commit == OTHER
    assert resolve("org/name", online(hub, tmp_path, revision=COMMIT)).commit == COMMIT


def test_what_was_fetched_is_there_offline(hub: Hub, tmp_path: Path) -> None:
    options = {"endpoint": hub.url, "cache_dir": tmp_path / "downloads", "token": False}
    assert BertConfig.from_pretrained("org/name", **options).hidden_size == 24
    assert BertConfig.from_pretrained("org/name", subfolder="sub", **options).hidden_size == 48
    hub.requests.clear()
    assert BertConfig.from_pretrained("org/name", local_files_only=True, revision=COMMIT, **options).hidden_size == 24
    assert hub.requests == []


def test_a_subfolder_online(hub: Hub, tmp_path: Path) -> None:
    assert resolve("org/name", online(hub, tmp_path, subfolder="sub")).names() == ["config.json"]
    with pytest.raises(SourceError, match="no folder 'su' in org/name@aaaaaaaa"):
        resolve("org/name", online(hub, tmp_path, subfolder="su"))


def test_a_file_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    snapshot = resolve("org/name", online(hub, tmp_path, force_download=True))
    first = snapshot.path("config.json")
    count = len(hub.requests)
    assert snapshot.path("config.json") == first
    assert len(hub.requests) == count
    assert first.read_bytes() == hub.commits[COMMIT]["config.json"]


def test_the_token_goes_where_it_belongs(hub: Hub, tmp_path: Path) -> None:
    token = "hf_" + "x9Y8" * 8
    snapshot = resolve("org/name", online(hub, tmp_path, token=token))
    snapshot.path("config.json")
    assert hub.tokens == {f"Bearer {token}"}
    hub.tokens.clear()
    resolve("org/name", online(hub, tmp_path)).path("config.json")
    assert hub.tokens == {None}


@pytest.mark.parametrize(
    ("repo", "options", "what"),
    [
        ("org/none", {}, "RepositoryNotFoundError (HTTP 404)"),
        ("org/name", {"revision": "v9"}, "RevisionNotFoundError (HTTP 404)"),
    ],
)
def test_what_the_hub_does_not_have(repo: str, options: dict[str, str], what: str, hub: Hub, tmp_path: Path) -> None:
    token = "hf_" + "x9Y8" * 8
    with pytest.raises(HubError) as caught:
        resolve(repo, online(hub, tmp_path, token=token, **options))
    assert what in str(caught.value)
    assert (caught.value.status, caught.value.path) == (404, repo)
    assert token not in str(caught.value) + repr(caught.value)
    assert ("If a folder was meant" if repo == "org/none" else "no such revision. There are: main") in str(caught.value)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses(status: int, hub: Hub, tmp_path: Path) -> None:
    hub.status = status
    with pytest.raises(
        HubError, match=rf"cannot load org/name at http://127\.0\.0\.1:\d+: \w+ \(HTTP {status}\)"
    ) as caught:
        open_repository("org/name", online(hub, tmp_path))
    assert caught.value.status == status


def test_a_hub_that_fails_in_the_middle(hub: Hub, tmp_path: Path) -> None:
    snapshot = resolve("org/name", online(hub, tmp_path))
    hub.status = 403
    with pytest.raises(HubError) as caught:
        snapshot.path("config.json")
    assert caught.value.path == f"org/name@{COMMIT[:8]}/config.json"


def test_a_hub_that_is_not_there(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(HubError, match="Connect"):
        resolve("org/name", SourceOptions(endpoint="http://127.0.0.1:9", cache_dir=tmp_path, token=False))


def test_a_hub_that_is_none(hub: Hub, tmp_path: Path) -> None:
    hub.branches["main"] = "not-a-commit"
    hub.commits["not-a-commit"] = {}
    with pytest.raises(HubError, match="'not-a-commit' is no commit, so this is no hub"):
        resolve("org/name", online(hub, tmp_path))


def test_a_token_that_no_request_can_hold(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="characters that no token has") as caught:
        resolve("org/name", online(hub, tmp_path, token="geheim\u20ac\r\n"))
    assert "geheim" not in str(caught.value)


def test_a_gated_repository(hub: Hub, tmp_path: Path) -> None:
    """Its listing is open; its files are not."""
    snapshot = resolve("org/name", online(hub, tmp_path))
    hub.status, hub.error_code = 403, "GatedRepo"
    with pytest.raises(HubError, match=r"403 \(the repository is gated: ask for access on its page, and pass token=\)"):
        snapshot.path("model.safetensors")
    with pytest.raises(HubError, match=r"GatedRepoError \(HTTP 403\): the repository is gated \(no token was sent\)"):
        resolve("org/name", online(hub, tmp_path))
