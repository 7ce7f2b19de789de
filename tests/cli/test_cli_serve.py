"""`pretrained serve` as a program: what it says, what it refuses, how it ends."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from serving import Served


def test_it_serves_and_ends(copy: Any, tmp_path: Path) -> None:
    copy("bert/torch-safetensors")
    with Served(tmp_path / "copies", ["--verbose", "--require-token", "--token", "ann=token-of-ann"]) as hub:
        assert hub.output.startswith(f"{tmp_path / 'copies'}: 1 repository at http://127.0.0.1:")
        request = urllib.request.Request(f"{hub.url}/api/models", headers={"Authorization": "Bearer token-of-ann"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert [info["id"] for info in json.load(reply)] == ["bert-torch-safetensors"]
        hub.stop()
    assert hub.code == 0
    assert hub.stderr.startswith("GET /api/models 200 ")
    assert "token-of-ann" not in hub.output + hub.stderr
    assert json.loads((tmp_path / "memory/pretrained/serve-digests.json").read_text())


def test_tokens_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("# people\nann=token=with=equals\n\n")
    words = ["--writable", "--token-file", str(tmp_path / "tokens"), "--max-file-size", "1MB"]
    with Served(tmp_path / "store", words) as hub:
        assert "0 repositories" in hub.output
        request = urllib.request.Request(
            f"{hub.url}/api/whoami-v2", headers={"Authorization": "Bearer token=with=equals"}
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert json.load(reply)["name"] == "ann"
    assert (tmp_path / "store/.pretrained-hub/secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--token", "hf_secretsecretsecret"], "--token must be written as NAME=VALUE"),
        (["--token", "ann=short"], "the token of ann must have 8 to 512"),
        (["--token", "ann=12345678", "--token", "ann=87654321"], "--token names 'ann' twice"),
        (["--org", "acme=bob"], "'bob' of acme has no token"),
        (["--writable"], "nobody could write anything: add --token USER=TOKEN"),
        (["--require-token"], "nobody could read anything: add --token USER=TOKEN"),
        (["--token-file", "nothing"], "nothing"),
        (["--max-file-size", "huge"], "huge"),
    ],
)
def test_wrong_words(run: Any, tmp_path: Path, words: list[str], message: str) -> None:
    result = run("serve", tmp_path, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "secret" not in result.output


def test_nothing_to_serve(run: Any, tmp_path: Path) -> None:
    result = run("serve", tmp_path / "missing")
    assert (result.exit_code, "no folder" in result.stderr) == (2, True)


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_its_packages_it_says_what_to_install(run: Any, tmp_path: Path, monkeypatch: Any, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    result = run("serve", tmp_path)
    assert result.exit_code == 2
    assert f"serving needs {missing}: pip install 'pretrained[serve]'" in result.stderr
