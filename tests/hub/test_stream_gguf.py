"""GGUF files read in ranges: heads, plain numbers, blocks, parts, and what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from loopback_hub import COMMIT, Hub, Store, Web

from pretrained import AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from pretrained.checkpoint import opening
from pretrained.checkpoint.find import find_gguf
from pretrained.checkpoint.formats.gguf import read_gguf
from pretrained.cli.root import root
from pretrained.errors import PretrainedError, ShardIndexError, WeightsFormatError
from pretrained.hub import ranges
from pretrained.hub.ref import resolve
from pretrained.options import SourceOptions, WeightOptions

Kind = gguf.GGMLQuantizationType
IN_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MIN_REQUEST", 64 << 10)
    monkeypatch.setattr(ranges, "MAX_REQUEST", 64 << 10)
    monkeypatch.setattr(ranges, "PAUSE", 0.001)
    monkeypatch.setattr("pretrained.checkpoint.formats.gguf.WINDOW", 4096)
    monkeypatch.setattr("pretrained.checkpoint.formats.gguf_header.WINDOW", 4096)
    monkeypatch.setattr(opening, "_MAX_UNSTREAMED", 0)  # nothing is fetched whole on the side


def name_of(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{leaf}"
    _, _, number, inner = module.split(".", 3)
    return f"blk.{number}.{IN_BLOCK[inner]}.{leaf}"


def tensors(kind: Kind) -> dict[str, tuple[Any, Kind]]:
    """The tensors of a small Llama under llama.cpp's names; its matrices as `kind`."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    found = {}
    for name, parameter in LlamaForCausalLM(config).named_parameters():
        own = kind if parameter.ndim == 2 else Kind.F32
        found[name_of(name)] = (gguf.quants.quantize(parameter.detach().numpy(), own), own)
    return found


def write(path: Path, held: dict[str, tuple[Any, Kind]], **split: int) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(32)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_array("tokenizer.ggml.tokens", [f"token-{i}" for i in range(300)])  # more than one window
    for key, value in split.items():
        writer.add_uint16(f"split.{key}", value)
    for name, (blocks, kind) in held.items():
        writer.add_tensor(name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def put(hub: Hub, folder: Path) -> None:
    hub.commits = {COMMIT: {path.name: path.read_bytes() for path in folder.iterdir()}}


def streamed(hub: Hub, tmp_path: Path, **options: Any) -> dict[str, Any]:
    return {"endpoint": hub.url, "token": False, "cache_dir": tmp_path / "cache", "stream": True, **options}


def require_same(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    other = dict(expected.named_parameters())
    assert {name for name, _ in found.named_parameters()} == other.keys()
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, other[name]), name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    return made


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "BF16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gguf_is_streamed(kind: str, dtype: torch.dtype, hub: Hub, folder: Path, tmp_path: Path) -> None:
    write(folder / "m.gguf", tensors(Kind[kind]))
    put(hub, folder)
    local = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained("org/name", **streamed(hub, tmp_path, dtype=dtype))
    require_same(model, local)
    assert not (tmp_path / "cache").exists()


def test_only_what_is_wanted_is_fetched(hub: Hub, store: Store, folder: Path, tmp_path: Path) -> None:
    write(folder / "m.gguf", tensors(Kind.Q8_0))
    put(hub, folder)
    local = AutoModel.from_pretrained(folder)
    model = AutoModel.from_pretrained("org/name", **streamed(hub, tmp_path))
    require_same(model, local)
    file = read_gguf(folder / "m.gguf")
    offset, nbytes = file.raw_place(file.entries["output.weight"])
    assert offset + nbytes > (folder / "m.gguf").stat().st_size - 64  # the head of the model is the last tensor
    assert max(stop for _, _, stop in store.served) <= offset
    assert sum(start == 0 for _, start, _ in store.served) == 1  # config and weights are of one reading


@pytest.mark.parametrize("named", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", None])
def test_parts(named: str | None, hub: Hub, folder: Path, tmp_path: Path) -> None:
    held = tensors(Kind.Q4_0)
    names = sorted(held)
    for number, part in enumerate((names[:5], names[5:])):
        path = folder / f"m-0000{number + 1}-of-00002.gguf"
        write(path, {name: held[name] for name in part}, no=number, count=2)
    put(hub, folder)
    local = AutoModelForCausalLM.from_pretrained(folder, gguf_file=named)
    model = AutoModelForCausalLM.from_pretrained("org/name", **streamed(hub, tmp_path, gguf_file=named))
    require_same(model, local)
    del hub.commits[COMMIT]["m-00002-of-00002.gguf"]
    with pytest.raises(ShardIndexError, match=r"the part 'm-00002-of-00002\.gguf' is missing"):
        AutoModelForCausalLM.from_pretrained("org/name", **streamed(hub, tmp_path, gguf_file="m-00001-of-00002.gguf"))


@pytest.mark.parametrize("fault", ["cuts", "busy", "lifetime"])
def test_what_a_network_does(fault: str, hub: Hub, store: Store, folder: Path, tmp_path: Path) -> None:
    write(folder / "m.gguf", tensors(Kind.Q8_0))
    put(hub, folder)
    setattr(store, fault, 3)
    local = AutoModelForCausalLM.from_pretrained(folder)
    require_same(AutoModelForCausalLM.from_pretrained("org/name", **streamed(hub, tmp_path)), local)


@pytest.mark.parametrize("where", [0, 3, 4, 23, 100, 4095, 4096, 5000, -1])
def test_a_file_that_is_cut_off(where: int, hub: Hub, folder: Path, tmp_path: Path) -> None:
    """The same complaint as of a file on this machine."""
    path = folder / "m.gguf"
    write(path, tensors(Kind.F16))
    path.write_bytes(path.read_bytes()[:where])
    put(hub, folder)
    messages = []
    for ref, options in ((folder, {}), ("org/name", streamed(hub, tmp_path))):
        with pytest.raises((WeightsFormatError, PretrainedError)) as caught:
            AutoModelForCausalLM.from_pretrained(ref, **options)
        messages.append((type(caught.value), str(caught.value).rpartition("m.gguf")[2]))
    assert messages[0] == messages[1]


def test_a_tensor_by_itself(hub: Hub, store: Store, folder: Path, tmp_path: Path) -> None:
    """What converts, compares or reads a table of a config asks for one tensor at a time."""
    held = tensors(Kind.Q8_0)
    write(folder / "m.gguf", held)
    put(hub, folder)
    source = SourceOptions(endpoint=hub.url, token=False, cache_dir=tmp_path / "cache", stream=True)
    weights = find_gguf(resolve("org/name", source), WeightOptions())
    assert weights is not None
    (container,) = weights.containers.values()
    for name in ("blk.1.ffn_up.weight", "output_norm.weight"):
        entry = container.entries[name]
        expected = gguf.quants.dequantize(held[name][0], held[name][1])
        assert np.array_equal(container.read(entry), expected.reshape(entry.shape))


def test_inspect_reads_heads_only(folder: Path, tmp_path: Path, quiet: None) -> None:
    write(folder / "m.gguf", tensors(Kind.Q8_0))
    web = Web({"/m/m.gguf": (folder / "m.gguf").read_bytes()})
    with web.running():
        result = CliRunner().invoke(root, ["inspect", f"{web.url}/m/m.gguf"])
    assert result.exit_code == 0, result.output
    assert "blk.1.ffn_up.weight" in result.output
    assert web.num_bytes < (folder / "m.gguf").stat().st_size / 2
