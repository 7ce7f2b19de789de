"""Pushes while others push to the same branch, and to a hub that is busy: all of one push, and all of it once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import CommitOperationAdd, ModelCard
from test_push import api, loaded, names, same, tiny, to
from test_push import server as server

from pretrained import LlamaConfig, LlamaForCausalLM
from pretrained.errors import HubError
from pretrained.hub import asking
from pretrained.hub import upload as module
from pretrained.serve.app import Application
from pretrained.serve.refusals import RefusedError
from pretrained.serve.running import HubServer

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSE", 0.0)
    monkeypatch.setattr(module, "PAUSE", 0.001)


def other() -> LlamaForCausalLM:
    """A model of other sizes."""
    torch.manual_seed(9)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=30, **sizes)).eval()


def meanwhile(monkeypatch: pytest.MonkeyPatch, *works: Callable[[], Any]) -> None:
    """Does each of the works right before a commit, when all else of the push is done."""
    left, commit = list(works), module.Upload.commit

    def late(upload: module.Upload) -> Any:
        if left:
            left.pop(0)()  # a push in here is not disturbed itself, or by the next one
        return commit(upload)

    monkeypatch.setattr(module.Upload, "commit", late)


def test_files_that_somebody_else_pushed_meanwhile_are_stale_too(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny().push_to_hub("ada/new", **to(server))
    model = tiny(1)
    meanwhile(monkeypatch, lambda: tiny(2).push_to_hub("ada/new", max_shard_size="3kB", **to(server)))
    model.push_to_hub("ada/new", **to(server))
    assert {name for name in names(server, "ada/new") if "safetensors" in name} == {"model.safetensors"}
    assert same(loaded(server, "ada/new", tmp_path), model)


def test_a_file_that_was_there_and_is_another_meanwhile(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What need not be uploaded has to be in the commit all the same."""
    model = tiny()
    model.push_to_hub("ada/new", **to(server))
    meanwhile(monkeypatch, lambda: other().push_to_hub("ada/new", **to(server)))
    model.push_to_hub("ada/new", **to(server))
    assert same(loaded(server, "ada/new", tmp_path), model)


def test_a_card_that_somebody_wrote_meanwhile_stays(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = CommitOperationAdd("README.md", b"---\nlicense: mit\ntags: [theirs]\n---\nWritten by hand.\n")
    meanwhile(monkeypatch, lambda: api(server).create_commit("ada/new", [card], commit_message="A card"))
    tiny().push_to_hub("ada/new", tags=["ours"], **to(server))
    found = ModelCard.load(api(server).hf_hub_download("ada/new", "README.md", cache_dir=tmp_path / "cards"))
    assert found.text.strip() == "Written by hand."
    assert (found.data.license, found.data.tags) == ("mit", ["theirs", "ours"])


def test_a_proposal_begins_at_what_was_looked_at(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny().push_to_hub("ada/new", max_shard_size="3kB", **to(server))
    first = api(server).model_info("ada/new").sha
    model = tiny(1)
    meanwhile(monkeypatch, lambda: tiny(2).push_to_hub("ada/new", max_shard_size="2kB", **to(server)))
    info = model.push_to_hub("ada/new", create_pr=True, **to(server))
    commits = api(server).list_repo_commits("ada/new", revision=info.pr_revision)
    assert [commit.commit_id for commit in commits[:2]] == [info.oid, first]
    assert same(loaded(server, "ada/new", tmp_path, revision=info.pr_revision), model)


def test_many_pushes_at_once(server: HubServer, tmp_path: Path) -> None:
    """Whoever was the last: the branch holds that one, and nothing of the others."""
    tiny().push_to_hub("ada/new", **to(server))
    models = [tiny(seed) for seed in range(1, 5)]
    sizes = ["3kB", "5kB", "2kB", "1GB"]

    def push(number: int) -> Any:
        return models[number].push_to_hub("ada/new", max_shard_size=sizes[number], **to(server))

    with ThreadPoolExecutor(4) as pool:
        infos = list(pool.map(push, range(4)))
    assert len({info.oid for info in infos}) == 4
    head = api(server).model_info("ada/new").sha
    last = next(number for number, info in enumerate(infos) if info.oid == head)
    assert same(loaded(server, "ada/new", tmp_path), models[last])
    weights = {name for name in names(server, "ada/new") if name.endswith(".safetensors")}
    assert len({name.rpartition("-of-")[2] for name in weights}) == 1
    assert len(weights) == (1 if sizes[last] == "1GB" else int(next(iter(weights)).split("-of-")[1][:5]))


def test_a_branch_that_never_rests(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny().push_to_hub("ada/new", **to(server))
    monkeypatch.setattr(module, "CONFLICTS", 3)
    tried: list[str] = []

    async def always_late(self: Application, request: Any) -> Any:
        if "/commit/" in request.url.path:
            tried.append(request.url.path)
            raise RefusedError(412, "main is elsewhere by now")
        return await reply(self, request)

    reply = Application._reply
    monkeypatch.setattr(Application, "_reply", always_late)
    with pytest.raises(HubError, match=r"\(HTTP 412\): somebody else changed it again and again meanwhile. Push again"):
        tiny(1).push_to_hub("ada/new", **to(server))
    assert len(tried) == 3


class Busy:
    """Answers in the place of a server: `status` to the first request of each kind, before or after it was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: int, *, only: str = "/", done: bool = False) -> None:
        self.refused: list[str] = []
        self._lock = threading.Lock()
        reply = Application._reply

        async def refuse(application: Application, request: Any) -> Any:
            kind = f"{request.method} {'/'.join(request.url.path.split('/')[:6])}"
            with self._lock:
                is_first = only in request.url.path and kind not in self.refused
                if is_first:
                    self.refused.append(kind)
            answer = await reply(application, request) if done or not is_first else None
            if is_first:
                raise RefusedError(status, "busy", headers={"Retry-After": "0"})
            return answer

        monkeypatch.setattr(Application, "_reply", refuse)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    model = tiny()
    with monkeypatch.context() as patch:
        busy = Busy(patch, status)
        model.push_to_hub("ada/new", revision="dev", **to(server))
    assert any("/commit" in kind for kind in busy.refused) and any("repos/create" in kind for kind in busy.refused)
    assert [c.title for c in api(server).list_repo_commits("ada/new", revision="dev")] == [
        "Upload LlamaForCausalLM",
        "initial commit",
    ]
    assert same(loaded(server, "ada/new", tmp_path, revision="dev"), model)


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny().push_to_hub("ada/new", **to(server))
    model = tiny(1)
    with monkeypatch.context() as patch:
        busy = Busy(patch, 503, only="/commit/", done=True)
        info = model.push_to_hub("ada/new", commit_message="Once", **to(server))
    assert len(busy.refused) == 1
    titles = [commit.title for commit in api(server).list_repo_commits("ada/new")]
    assert titles == ["Once", "Upload LlamaForCausalLM", "initial commit"]
    assert info.oid == api(server).model_info("ada/new").sha
    assert same(loaded(server, "ada/new", tmp_path), model)


def test_a_pull_request_is_not_opened_twice(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny().push_to_hub("ada/new", **to(server))
    with monkeypatch.context() as patch:
        Busy(patch, 503, only="/commit/", done=True)
        with pytest.raises(HubError, match=r"\(HTTP 503\): the server is in trouble"):
            tiny(1).push_to_hub("ada/new", create_pr=True, **to(server))
    assert len(list(api(server).get_repo_discussions("ada/new"))) == 1
    with monkeypatch.context() as patch:  # too many requests: nothing was done, so it may be done now
        Busy(patch, 429, only="/commit/")
        tiny(2).push_to_hub("ada/new", create_pr=True, **to(server))
    assert len(list(api(server).get_repo_discussions("ada/new"))) == 2


def test_a_hub_that_stays_busy_is_given_up(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny().push_to_hub("ada/new", **to(server))
    reply, asked = Application._reply, []

    async def busy(application: Application, request: Any) -> Any:
        if "/commit/" not in request.url.path:
            return await reply(application, request)
        asked.append(request.url.path)
        raise RefusedError(429, "busy", headers={"Retry-After": "1000" if len(asked) > 1 else "0"})

    monkeypatch.setattr(Application, "_reply", busy)
    with pytest.raises(HubError, match=r"\(HTTP 429\): too many requests"):
        tiny(1).push_to_hub("ada/new", **to(server))
    assert len(asked) == 2  # a wait of 1000 s is longer than anybody waits
