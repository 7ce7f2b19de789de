"""Web servers and file systems: models at http://, memory:// and file:// URLs, streamed and downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from loopback_hub import Web

from pretrained import AutoModel, LlamaForCausalLM
from pretrained.errors import HubError, InvalidOptionError, MissingFrameworkError, OptionError, SourceError
from pretrained.hub import ranges
from pretrained.hub.connections import Connections
from pretrained.hub.http_file import HttpFile
from pretrained.hub.ref import resolve
from pretrained.options import SourceOptions

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def folder(reference: Path) -> Path:
    return reference / "llama/torch-safetensors-sharded"


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
    made = Web({f"/models/tiny/{path.name}": path.read_bytes() for path in folder.iterdir()})
    with made.running():
        yield made


@pytest.fixture
def memory(folder: Path) -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    for path in folder.iterdir():
        fs.pipe_file(f"/models/tiny/{path.name}", path.read_bytes())
    yield "memory://models/tiny"
    fs.rm("/models", recursive=True)


def same(model: Any, folder: Path) -> bool:
    local = LlamaForCausalLM.from_pretrained(folder).state_dict()
    mine = model.state_dict()
    return local.keys() == mine.keys() and all(torch.equal(local[name], mine[name]) for name in local)


@pytest.mark.parametrize("stream", [False, True])
def test_a_folder_on_a_web_server(stream: bool, web: Web, folder: Path, tmp_path: Path) -> None:
    options = {"cache_dir": tmp_path / "cache", "stream": stream}
    model = LlamaForCausalLM.from_pretrained(f"{web.url}/models/tiny/", **options)
    assert same(model, folder)
    assert web.tokens == {None}
    web.served.clear()
    assert same(LlamaForCausalLM.from_pretrained(f"{web.url}/models/tiny", **options), folder)
    assert bool(web.served) is stream  # what was downloaded is kept; what is streamed leaves nothing
    assert (tmp_path / "cache").exists() is not stream


def test_a_file_that_is_replaced_is_another_file(web: Web, tmp_path: Path, reference: Path) -> None:
    other = reference / "llama/torch-safetensors"
    url, options = f"{web.url}/one/model.safetensors", {"cache_dir": tmp_path / "cache", "config": str(other)}
    web.files["/one/model.safetensors"] = (other / "model.safetensors").read_bytes()
    assert same(LlamaForCausalLM.from_pretrained(url, **options), other)
    web.files["/one/model.safetensors"] = b"no weights at all, and of another length"
    with pytest.raises(OSError, match="no safetensors file"):
        LlamaForCausalLM.from_pretrained(url, **options)


@pytest.mark.parametrize("lacks", ["ranges", "etags"])
def test_servers_that_can_little(lacks: str, web: Web, folder: Path, tmp_path: Path) -> None:
    setattr(web, lacks, False)
    model = LlamaForCausalLM.from_pretrained(f"{web.url}/models/tiny", cache_dir=tmp_path / "cache")
    assert same(model, folder)
    kept = list((tmp_path / "cache").rglob("*.safetensors"))
    assert bool(kept) is (lacks == "ranges")  # without anything to tell two contents apart nothing is kept


def test_what_is_not_there(web: Web, tmp_path: Path) -> None:
    for absent in (404, 403):
        web.absent = absent
        with pytest.raises(OSError, match=r"no config.json|no weights|403") as caught:
            AutoModel.from_pretrained(f"{web.url}/models/none?key=s3cret", cache_dir=tmp_path)
        assert "s3cret" not in str(caught.value)
    with pytest.raises((SourceError, HubError), match=r"there is no http://|403"):
        AutoModel.from_pretrained(f"{web.url}/models/tiny/other.safetensors", cache_dir=tmp_path)
    web.absent = 404
    with pytest.raises(SourceError, match=r"there is no http://[^ ]*/other.safetensors"):
        resolve(f"{web.url}/models/tiny/other.safetensors", SourceOptions())
    with pytest.raises(HubError, match=r"cannot reach http://127.0.0.1:9/x: "):
        resolve("http://127.0.0.1:9/x", SourceOptions()).names().__contains__("config.json")
    web.absent = 500
    with pytest.raises(HubError, match=r"answers 500 \(server error\)"):
        AutoModel.from_pretrained(f"{web.url}/models/none", cache_dir=tmp_path)


def test_a_folder_without_weights(web: Web, tmp_path: Path) -> None:
    """Some formats have no index: its name, which is empty, is not asked for."""
    web.files = {name: content for name, content in web.files.items() if name.endswith("/config.json")}
    with pytest.raises(SourceError, match=r"no weights in .*; there is config\.json"):
        LlamaForCausalLM.from_pretrained(f"{web.url}/models/tiny", cache_dir=tmp_path / "cache")


def test_a_subfolder_and_a_query(web: Web, folder: Path, tmp_path: Path) -> None:
    options = {"cache_dir": tmp_path, "subfolder": "tiny"}
    assert same(LlamaForCausalLM.from_pretrained(f"{web.url}/models?key=s3cret", **options), folder)
    assert set(web.queries) == {"key=s3cret"}
    assert not any("s3cret" in name for _, names, files in os.walk(tmp_path) for name in (*names, *files))
    with pytest.raises(InvalidOptionError, match="which is a file"):
        resolve(f"{web.url}/models/tiny/config.json", SourceOptions(subfolder="x"))


def test_options_of_hubs_and_of_file_systems(web: Web) -> None:
    url = f"{web.url}/models/tiny"
    with pytest.raises(OptionError, match="revision= is of repositories"):
        resolve(url, SourceOptions(revision="v1"))
    with pytest.raises(OptionError, match="records none"):
        resolve(url, SourceOptions(verify=True))
    with pytest.raises(OptionError, match="storage_options= are of file systems"):
        resolve(url, SourceOptions(storage_options={"a": 1}))
    with pytest.raises(HubError, match="nothing may be downloaded"):
        resolve(url, SourceOptions(local_files_only=True))
    with pytest.raises(InvalidOptionError, match="nobody knows what nothing:// is"):
        resolve("nothing://x/y", SourceOptions())
    with pytest.raises(MissingFrameworkError, match="pip install adlfs"):
        resolve("abfs://x/y", SourceOptions())


@pytest.mark.parametrize("stream", [False, True])
def test_a_folder_in_a_file_system(stream: bool, memory: str, folder: Path, tmp_path: Path) -> None:
    options = {"cache_dir": tmp_path / "cache", "stream": stream}
    assert same(LlamaForCausalLM.from_pretrained(memory, **options), folder)
    assert same(LlamaForCausalLM.from_pretrained("memory://models", subfolder="tiny", **options), folder)
    index = f"{memory}/model.safetensors.index.json"
    assert same(LlamaForCausalLM.from_pretrained(index, **options), folder)
    assert (tmp_path / "cache").exists() is not stream
    with pytest.raises(SourceError, match="memory://models/none"):
        resolve("memory://models/none", SourceOptions())


def test_a_file_url_is_a_folder_here(folder: Path) -> None:
    snapshot = resolve(folder.resolve().as_uri(), SourceOptions())
    assert snapshot.folder == folder.resolve()
    assert same(LlamaForCausalLM.from_pretrained(folder.resolve().as_uri()), folder)
    one = folder.resolve() / "config.json"
    assert resolve(one.as_uri(), SourceOptions()).only == "config.json"


def test_a_file_system_that_fails(memory: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ranges, "PAUSE", 0.001)
    fs = fsspec.filesystem("memory")

    def refuse(*args: Any, **kwargs: Any) -> bytes:
        raise OSError("https://bucket/x?Signature=s3cret")

    monkeypatch.setattr(type(fs), "cat_file", refuse)
    with pytest.raises(HubError, match=r"cannot read memory://models/tiny/config.json: OSError") as caught:
        AutoModel.from_pretrained(memory, stream=True)
    assert "s3cret" not in str(caught.value) and caught.value.__cause__ is None


class Signing:
    """A file system whose signed URLs are good for a few requests."""

    protocol = "signing"

    def __init__(self, web: Web) -> None:
        self.web, self.signed = web, 0

    def sign(self, path: str, expiration: int) -> str:
        self.signed += 1
        return f"{self.web.url}{path}?signature={self.signed}"


def test_signed_urls_of_a_file_system(web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrained.hub import url_store

    fs = Signing(web)
    answer = web.answer
    uses: dict[str, int] = {}

    def expiring(request: Any) -> None:
        query = request.path.partition("?")[2]
        uses[query] = uses.get(query, 0) + 1
        if uses[query] > 2:
            return web.send(request, b"expired", 403)
        answer(request)

    monkeypatch.setattr(web, "answer", expiring)
    monkeypatch.setattr("pretrained.checkpoint.formats.safetensors._FIRST_RANGE", 2000)
    items = {path.name: {"name": f"/models/tiny/{path.name}", "size": path.stat().st_size} for path in folder.iterdir()}
    store = url_store._FileSystem(fs, items, "signing://models/tiny", SourceOptions(stream=True))
    snapshot = url_store.LazySnapshot("x", None, {name: name for name in items}, store)
    from pretrained.checkpoint.find import find_checkpoint
    from pretrained.options import WeightOptions

    weights = find_checkpoint(snapshot, WeightOptions())
    for entry in weights.entries.values():
        assert weights.containers[entry.file].read(entry).shape == entry.shape
    assert fs.signed > 4


def test_ranges_that_are_not_those_asked_for(web: Web) -> None:
    file = HttpFile(Connections(), lambda: f"{web.url}/models/tiny/config.json", name="x", size=10_000)
    from pretrained.errors import CheckpointChangedError

    with pytest.raises(CheckpointChangedError, match="ends at byte"):
        file.open(0, 5000)
    with pytest.raises(CheckpointChangedError, match="has no byte 5000 any more"):
        file.open(5000, 6000)
    with pytest.raises(CheckpointChangedError, match="bytes long and was 10000"):
        file.open(0, 10)
