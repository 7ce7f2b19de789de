"""`pretrained push` and `download`, and what inspect and plan read of a hub: headers, and nothing else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi, ModelCard, constants

from pretrained.hub import ranges
from pretrained.serve.people import People
from pretrained.serve.running import HubServer

TOKEN = "hf_" + "Ada1" * 8


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.utils.are_progress_bars_disabled()
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", True)
    huggingface_hub.close_session()
    with HubServer(tmp_path / "served", people=People({"ada": TOKEN}), writable=True) as made:
        # As if HF_ENDPOINT had been set before all imports.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, made.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        yield made
    huggingface_hub.close_session()


@pytest.fixture
def folder(tmp_path: Path, reference: Path) -> Path:
    made = tmp_path / "model"
    shutil.copytree(reference / "llama/torch-safetensors-sharded", made)
    (made / "tokenizer.json").write_text("{}")
    (made / "pytorch_model.bin").write_bytes(b"the same in another format")
    (made / ".git").mkdir()
    (made / ".git/config").write_text("hidden")
    return made


def test_push_and_download(server: HubServer, folder: Path, tmp_path: Path, run: Any, run_json: Any) -> None:
    code, document = run_json("push", folder, "ada/tiny", "--tag", "small", "--license", "mit", "--message", "Mine")
    api = HfApi(endpoint=server.url, token=TOKEN)
    names = set(api.list_repo_files("ada/tiny"))
    assert code == 0 and document["commit"] == api.model_info("ada/tiny").sha
    assert names - {".gitattributes"} == {path.name for path in folder.iterdir() if path.is_file()} | {"README.md"}
    card = ModelCard.load(api.hf_hub_download("ada/tiny", "README.md", cache_dir=tmp_path / "card"))
    assert (card.data.license, card.data.tags) == ("mit", ["small"]) and "family llama" in card.text
    assert api.list_repo_commits("ada/tiny")[0].title == "Mine"

    code, document = run_json("download", "ada/tiny")
    assert code == 0 and document["commit"] == api.model_info("ada/tiny").sha
    assert "pytorch_model.bin" not in document["files"] and "tokenizer.json" in document["files"]
    here = Path(document["path"])
    assert here.is_relative_to(tmp_path / "cache")
    assert sorted(path.name for path in here.iterdir()) == sorted(document["files"])
    assert run("download", "hf://ada/tiny@main", "--all", "--to", tmp_path / "out", "--verify").exit_code == 0
    for path in folder.iterdir():
        assert path.is_dir() or (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()

    result = run("push", folder, "ada/tiny", "--create-pr")
    assert result.exit_code == 0
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert run("push", folder, "ada/tiny", "--replace", "--revision", "dev").exit_code == 0
    assert "model-00002-of-00002.safetensors" not in api.list_repo_files("ada/tiny", revision="dev")
    assert "model-00002-of-00002.safetensors" in api.list_repo_files("ada/tiny")


def test_what_goes_wrong(server: HubServer, folder: Path, tmp_path: Path, run: Any) -> None:
    result = run("download", "ada/none")
    assert result.exit_code == 2 and "no such repository, or no access to it" in result.stderr
    (tmp_path / "empty").mkdir()
    result = run("push", tmp_path / "empty", "ada/none")
    assert result.exit_code == 2 and "holds no file to push" in result.stderr
    result = run("push", folder, "bob/none")
    assert result.exit_code == 2 and "cannot push to bob/none" in result.stderr
    result = run("push", folder, "../none")
    assert result.exit_code == 2 and "must be plain words" in result.stderr
    assert TOKEN not in result.stderr


def test_inspect_and_plan_read_headers_alone(
    server: HubServer, folder: Path, tmp_path: Path, run: Any, run_json: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("push", folder, "ada/tiny").exit_code == 0
    asked: list[int] = []
    fetch = ranges.fetch

    def noted(opener: Any, pieces: Any, **options: Any) -> None:
        asked.append(sum(piece.nbytes for piece in pieces))
        fetch(opener, pieces, **options)

    monkeypatch.setattr("pretrained.hub.http_file.fetch", noted)
    monkeypatch.setattr("pretrained.checkpoint.formats.safetensors._FIRST_RANGE", 2000)
    code, remote = run_json("inspect", "ada/tiny")
    assert code == 0 and len(asked) == 2 and sum(asked) == 4000
    _, local = run_json("inspect", folder)
    assert remote["tensors"] == local["tensors"] and remote["totals"] == local["totals"]
    assert remote["commit"] == HfApi(endpoint=server.url, token=TOKEN).model_info("ada/tiny").sha
    asked.clear()
    code, remote = run_json("plan", "hf://ada/tiny")
    _, local = run_json("plan", folder)
    assert code == 0 and sum(asked) == 4000
    assert remote["steps"] == local["steps"]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_inspect_fetches_what_has_to_be_a_file(
    server: HubServer, tmp_path: Path, reference: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("push", reference / "bert/torch-bin", "ada/bin").exit_code == 0
    monkeypatch.setattr("pretrained.checkpoint.opening._MAX_UNSTREAMED", 1000)
    assert run("inspect", "ada/bin").exit_code == 0
    assert list((tmp_path / "cache").rglob("pytorch_model.bin"))
