"""Streams: tensors straight from ranges, with whatever a network does, and nothing on the disk."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loopback_hub import COMMIT, Hub, Store, Web, online

import pretrained
from pretrained import AutoModel, LlamaForCausalLM, load_into
from pretrained.checkpoint.find import find_checkpoint
from pretrained.checkpoint.formats.safetensors import Outgoing, read_remote_header, write
from pretrained.errors import (
    CheckpointChangedError,
    HubError,
    InvalidOptionError,
    MismatchError,
    OptionError,
    SourceError,
    WeightsFormatError,
)
from pretrained.hub import ranges
from pretrained.hub.ref import resolve
from pretrained.options import SourceOptions, WeightOptions

KB, MB = 1000, 1 << 20


def model_files(folder: Path, sizes: dict[str, int]) -> dict[str, bytes]:
    """One safetensors file with float32 vectors of these sizes, all different."""
    rng = np.random.default_rng(0)
    path = folder / "made.safetensors"
    tensors = [
        Outgoing(name, "float32", (size,), lambda size=size: rng.standard_normal(size, np.float32))  # type: ignore[misc]
        for name, size in sizes.items()
    ]
    write(path, tensors, {"format": "pt"})
    return {"config.json": b'{"model_type": "bert"}' + b" " * 200, "model.safetensors": path.read_bytes()}


class Vectors(torch.nn.Module):
    def __init__(self, sizes: dict[str, int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        for name, size in sizes.items():
            setattr(self, name, torch.nn.Parameter(torch.zeros(size, dtype=dtype)))


def content_of(files: dict[str, bytes], sizes: dict[str, int]) -> dict[str, np.ndarray]:
    raw = files["model.safetensors"]
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    return {
        name: np.frombuffer(raw, np.float32, sizes[name], 8 + length + header[name]["data_offsets"][0])
        for name in sizes
    }


def reference_hub(hub: Hub, folder: Path) -> None:
    hub.commits = {COMMIT: {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}}


def streamed(hub: Hub, tmp_path: Path, **options: Any) -> dict[str, Any]:
    return {"endpoint": hub.url, "token": False, "cache_dir": tmp_path / "cache", "stream": True, **options}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests so small that a small file takes many."""
    monkeypatch.setattr(ranges, "MIN_REQUEST", 64 << 10)
    monkeypatch.setattr(ranges, "MAX_REQUEST", 64 << 10)
    monkeypatch.setattr(ranges, "PAUSE", 0.001)
    monkeypatch.setattr("pretrained.checkpoint.formats.safetensors._FIRST_RANGE", 4 * KB)


SIZES = {"a": 300 * KB, "b": 50, "c": 0, "d": 200 * KB, "e": 7}


@pytest.mark.parametrize("kind", ["torch-safetensors", "torch-safetensors-sharded", "torch-safetensors-bf16"])
def test_a_model_is_streamed(
    kind: str, hub: Hub, tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    reference_hub(hub, reference / "llama" / kind)
    local = LlamaForCausalLM.from_pretrained(reference / "llama" / kind)
    model, report = LlamaForCausalLM.from_pretrained("org/name", output_loading_info=True, **streamed(hub, tmp_path))
    assert report.is_clean and report.bytes_mapped == 0
    assert model.config._commit_hash == COMMIT
    for name, tensor in local.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert not (tmp_path / "cache").exists()
    del model
    assert not list((tmp_path / "tmp").iterdir())


def test_a_stream_casts_and_arranges(hub: Hub, tmp_path: Path, reference: Path) -> None:
    """GPT-2 has transposed layers when it becomes ours, and bfloat16 is another dtype than what is at rest."""
    reference_hub(hub, reference / "gpt2/torch-safetensors")
    options = {"dtype": "bfloat16"}
    local = AutoModel.from_pretrained(reference / "gpt2/torch-safetensors", **options)
    model = AutoModel.from_pretrained("org/name", **streamed(hub, tmp_path), **options)
    assert model.dtype == torch.bfloat16
    for name, tensor in local.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.usefixtures("small_pieces")
def test_only_the_bytes_that_are_wanted(hub: Hub, store: Store, tmp_path: Path) -> None:
    files = model_files(tmp_path, SIZES)
    hub.commits = {COMMIT: files}
    module = Vectors(SIZES)
    report = load_into(module, "org/name", only="d", **streamed(hub, tmp_path))
    assert report.num_loaded == 1 and not report.missing_keys and not report.unexpected_keys
    expected = content_of(files, SIZES)
    assert np.array_equal(module.d.detach().numpy(), expected["d"])
    assert not module.a.any()  # what is not asked for keeps its value
    asked = sum(stop - start for _, start, stop in store.served)
    assert asked <= 800 * KB + 4 * KB
    load_into(module, "org/name", **streamed(hub, tmp_path))
    for name, values in expected.items():
        assert np.array_equal(getattr(module, name).detach().numpy(), values)


def test_a_base_model_is_read_without_its_head(hub: Hub, store: Store, tmp_path: Path, reference: Path) -> None:
    folder = reference / "llama/torch-safetensors"
    reference_hub(hub, folder)
    model = AutoModel.from_pretrained("org/name", **streamed(hub, tmp_path))
    assert type(model).__name__ == "LlamaModel"
    assert not any("lm_head" in name for name in model.state_dict())


def test_what_only_matches_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.commits = {COMMIT: model_files(tmp_path, SIZES)}
    with pytest.raises(MismatchError, match=r"only= matches no parameter of Vectors .* such are a, b, c"):
        load_into(Vectors(SIZES), "org/name", only=["x.*", "y"], **streamed(hub, tmp_path))
    with pytest.raises(InvalidOptionError, match="only is a pattern such as"):
        load_into(Vectors(SIZES), "org/name", only=3, **streamed(hub, tmp_path))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("fault", ["cuts", "busy", "lifetime"])
def test_what_a_network_does(fault: str, hub: Hub, store: Store, tmp_path: Path) -> None:
    """Cut connections, a store that is busy, signatures that expire after three requests."""
    files = model_files(tmp_path, SIZES)
    hub.commits = {COMMIT: files}
    setattr(store, fault, 3)
    module = Vectors(SIZES)
    load_into(module, "org/name", **streamed(hub, tmp_path))
    for name, values in content_of(files, SIZES).items():
        assert np.array_equal(getattr(module, name).detach().numpy(), values)
    if fault == "lifetime":
        assert len(store.signatures) > 3


def test_a_server_without_ranges_is_refused(hub: Hub, store: Store, tmp_path: Path) -> None:
    hub.commits = {COMMIT: model_files(tmp_path, SIZES)}
    store.ranges = False
    module = Vectors(SIZES)
    with pytest.raises(HubError, match=r"answers a request for a range with the whole file") as caught:
        load_into(module, "org/name", **streamed(hub, tmp_path))
    assert "X-Signature" not in str(caught.value)
    assert not module.a.any()


def test_a_file_that_is_replaced_in_the_middle(tmp_path: Path, quiet: None) -> None:
    files = model_files(tmp_path, SIZES)
    web = Web({f"/m/{name}": content for name, content in files.items()})
    with web.running():
        source = SourceOptions(stream=True)
        weights = find_checkpoint(resolve(f"{web.url}/m", source), WeightOptions())
        (container,) = weights.containers.values()
        web.files["/m/model.safetensors"] = bytes(len(files["model.safetensors"]))
        with pytest.raises(CheckpointChangedError, match="no longer has the ETag that it had"):
            container.read(weights.entries["d"])
        web.files["/m/model.safetensors"] = b"short"
        with pytest.raises(CheckpointChangedError, match=r"replaced; load it again"):
            container.read(weights.entries["d"])


def test_a_stream_that_breaks_off_for_good(
    hub: Hub, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "PAUSE", 0.001)
    files = model_files(tmp_path, SIZES)
    hub.commits = {COMMIT: files}
    store.reach = 600 * KB
    module = Vectors(SIZES)
    with pytest.raises(HubError, match=r"cannot read org/name@aaaaaaaa/model.safetensors: the connection was cut"):
        load_into(module, "org/name", **streamed(hub, tmp_path))
    assert not module.a.any() and not module.d.any()


def test_the_cached_file_is_used_if_there_is_one(hub: Hub, store: Store, tmp_path: Path) -> None:
    hub.commits = {COMMIT: model_files(tmp_path, SIZES)}
    options = streamed(hub, tmp_path)
    load_into(Vectors(SIZES), "org/name", **{**options, "stream": False})
    store.served.clear()
    report = load_into(Vectors(SIZES), "org/name", **options)
    assert store.served == [] and report.bytes_mapped > 0


def test_auto_streams_what_the_disk_has_no_room_for(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commits = {COMMIT: model_files(tmp_path, SIZES)}
    usage = type("usage", (), {"free": MB})
    monkeypatch.setattr("pretrained.hub.repository.shutil.disk_usage", lambda path: usage)
    load_into(Vectors(SIZES), "org/name", **streamed(hub, tmp_path, stream="auto"))
    cached = list((tmp_path / "cache").rglob("model.safetensors"))
    assert cached == []
    usage.free = 100 * MB
    load_into(Vectors(SIZES), "org/name", **streamed(hub, tmp_path, stream="auto"))
    assert list((tmp_path / "cache").rglob("model.safetensors"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"<!doctype html><html>", "an HTML page"),
        (lambda raw: raw[:-4], "does not|beyond|end"),
        (lambda raw: (10**7).to_bytes(8, "little") + raw[8:], "the header claims 10000000 bytes"),
        (lambda raw: b"", "empty"),
    ],
)
def test_a_damaged_file_shows_in_its_header(damage: Any, message: str, hub: Hub, tmp_path: Path) -> None:
    files = model_files(tmp_path, SIZES)
    hub.commits = {COMMIT: {**files, "model.safetensors": damage(files["model.safetensors"])}}
    hub.lfs_from = 0
    with pytest.raises(WeightsFormatError, match=message):
        load_into(Vectors(SIZES), "org/name", **streamed(hub, tmp_path))


def test_a_long_header_takes_two_ranges(hub: Hub, store: Store, tmp_path: Path) -> None:
    sizes = {f"tensor_number_{i:05}": 1 for i in range(3000)}
    hub.commits = {COMMIT: model_files(tmp_path, sizes)}
    snapshot = resolve("org/name", online(hub, tmp_path, stream=True))
    source = snapshot.source("model.safetensors")
    assert source is not None
    assert list(read_remote_header(source).entries) == list(sizes)
    assert len(store.served) == 2 and store.served[0][2] == 100_000


def test_other_formats_are_fetched_if_they_are_small(
    hub: Hub, tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference_hub(hub, reference / "bert/torch-bin")
    local = AutoModel.from_pretrained(reference / "bert/torch-bin")
    model = AutoModel.from_pretrained("org/name", **streamed(hub, tmp_path))
    assert torch.equal(next(iter(local.parameters())), next(iter(model.parameters())))
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr("pretrained.checkpoint.opening._MAX_UNSTREAMED", 1000)
    with pytest.raises(SourceError, match=r"is PyTorch \.bin, which cannot be streamed, and too large") as caught:
        AutoModel.from_pretrained("org/name", **streamed(hub, tmp_path))
    assert caught.value.key == "stream"


def test_options_that_exclude_each_other(tmp_path: Path) -> None:
    for other in ("local_files_only", "verify"):
        with pytest.raises(OptionError, match=f"stream=True and {other}=True exclude each other"):
            SourceOptions(stream=True, **{other: True})
    for name, value in (("stream", "yes"), ("verify", 2), ("storage_options", 3), ("endpoint", "host"), ("token", 1.5)):
        with pytest.raises(InvalidOptionError, match=name):
            AutoModel.from_pretrained(tmp_path, **{name: value})


def test_an_error_in_a_thread_ends_the_others(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commits = {COMMIT: model_files(tmp_path, SIZES)}
    container = find_checkpoint(resolve("org/name", online(hub, tmp_path, stream=True)), WeightOptions())
    (header,) = container.containers.values()

    def refuse(memory: memoryview) -> None:
        raise ValueError("no")

    entry = container.entries["a"]
    piece = pretrained._types.Piece(entry.offset, entry.nbytes, lambda: memoryview(bytearray(entry.nbytes)), refuse)
    with pytest.raises(ValueError, match="no"):
        header.source.fetch([piece])


def test_a_stream_to_two_devices(hub: Hub, tmp_path: Path, reference: Path) -> None:
    """What is to rest on disk has no file to rest in, so it goes to the offload folder."""
    folder = reference / "llama/torch-safetensors"
    reference_hub(hub, folder)
    options = streamed(hub, tmp_path, device_map={"": "cpu", "model.layers.1": "disk"})
    with pytest.raises(InvalidOptionError, match="give offload_folder= a folder"):
        LlamaForCausalLM.from_pretrained("org/name", **options)
    model = LlamaForCausalLM.from_pretrained("org/name", offload_folder=tmp_path / "away", **options)
    local = LlamaForCausalLM.from_pretrained(folder)
    inputs = torch.arange(6)[None]
    with torch.no_grad():
        assert torch.equal(model(inputs).logits, local(inputs).logits)
