"""A Llama as llama.cpp keeps it, loaded, converted and looked at; the files are written by gguf's own writer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

import pretrained
from pretrained import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from pretrained.cli.root import root
from pretrained.errors import ConfigError, MismatchError, SourceError, TensorError
from pretrained.models.llama.configuration_llama import LlamaConfig
from pretrained.models.llama.modeling_llama import LlamaForCausalLM, LlamaModel

Kind, Value = gguf.GGMLQuantizationType, gguf.GGUFValueType

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def llama(**changes: Any) -> LlamaForCausalLM:
    """A model of random weights, whose rows are whole blocks of any type."""
    torch.manual_seed(3)
    settings = {
        "vocab_size": 40,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
        "rms_norm_eps": 1e-5,
    }
    model = LlamaForCausalLM(LlamaConfig(**settings | changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn(parameter.shape) * 0.1 + ("norm" in name))
    return model.eval()


def gguf_name(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    if not module.startswith("model.layers."):
        return f"{NAMES[module]}.{leaf}"
    _, _, number, inner = module.split(".", 3)
    return f"blk.{number}.{NAMES[inner]}.{leaf}"


def interleave(weight: Any, heads: int) -> Any:
    """As llama.cpp's converter stores queries and keys: channel i of a head, then channel i + half."""
    return np.concatenate([np.stack(np.split(head, 2), 1).reshape(head.shape) for head in np.split(weight, heads)])


def write(
    path: Path, model: LlamaForCausalLM, kind: Kind = Kind.F32, architecture: str = "llama", **fields: Any
) -> dict[str, torch.Tensor]:
    """Writes the model, its matrices as `kind`; returns what a load must give: the values that the blocks stand for."""
    config: Any = model.config
    path.parent.mkdir(exist_ok=True, parents=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_key_length(config.head_dim)
    writer.add_bos_token_id(5)
    writer.add_array("tokenizer.ggml.tokens", [f"t{i}" for i in range(config.vocab_size)])
    for name, value in fields.items():
        writer.add_key_value(f"{architecture}.{name.replace('__', '.')}", *value)
    expected = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        twist = heads is not None and architecture == "llama"
        stored = interleave(values, heads) if twist else values
        own = kind if values.ndim == 2 else Kind.F32
        blocks = gguf.quants.quantize(stored, own)
        writer.add_tensor(gguf_name(name), blocks, raw_dtype=own)
        meant = gguf.quants.dequantize(blocks, own).reshape(values.shape)
        if twist:  # back again, by a way of its own
            pairs = meant.reshape(heads, -1, 2, *values.shape[1:])
            meant = np.concatenate([pairs[:, :, 0], pairs[:, :, 1]], 1).reshape(values.shape)
        expected[name] = torch.from_numpy(np.array(meant))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 2, 3, 5, 8, 13]])).logits


def require_same(model: Any, expected: dict[str, torch.Tensor]) -> None:
    found = dict(model.named_parameters())
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].detach(), tensor, rtol=0, atol=0, msg=name)


CASES = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "many heads": {"num_key_value_heads": 8},
    "wide heads": {"head_dim": 64},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "base": {"rope_theta": 5e5},
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_comes_back_to_the_last_bit(case: str, tmp_path: Path) -> None:
    model = llama(**CASES[case])
    write(tmp_path / "any name.gguf", model)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert report.is_clean, report.render()
    assert type(loaded) is LlamaForCausalLM
    require_same(loaded, {name: p.detach() for name, p in model.named_parameters()})
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)
    found, expected = loaded.config.to_dict(), model.config.to_dict()
    differ = {key for key in found | expected if found.get(key) != expected.get(key)}
    assert differ == {"architectures", "dtype", "bos_token_id", "initializer_range"}
    assert loaded.config.bos_token_id == 5
    assert not loaded.training
    tied = loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert tied == (case == "tied")


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.TQ1_0, Kind.TQ2_0,
                                  Kind.MXFP4, Kind.F16, Kind.BF16], ids=lambda kind: kind.name)  # fmt: skip
def test_every_type_that_gguf_writes(kind: Kind, tmp_path: Path) -> None:
    expected = write(tmp_path / "x.gguf", llama(tie_word_embeddings=True), kind)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    require_same(loaded, expected)
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf", dtype="bfloat16")
    require_same(half, {name: tensor.bfloat16() for name, tensor in expected.items()})
    assert half.config.dtype == "bfloat16"


def test_plain_numbers_are_mapped(tmp_path: Path) -> None:
    model = llama()
    write(tmp_path / "x.gguf", model)
    loaded, report = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    turned = sum(p.numel() * 4 for n, p in loaded.named_parameters() if "q_proj" in n or "k_proj" in n)
    assert report["bytes_read"] == turned
    assert report["bytes_mapped"] == sum(p.numel() * 4 for p in loaded.parameters()) - turned
    copied, report = LlamaForCausalLM.from_pretrained(tmp_path, mmap=False, output_loading_info=True)
    assert report["bytes_mapped"] == 0
    require_same(copied, {name: p.detach() for name, p in model.named_parameters()})


def test_every_way_to_name_it(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", model := llama())
    places: list[tuple[Any, dict[str, Any]]] = [
        (tmp_path, {}),
        (str(tmp_path / "a.gguf"), {}),
        (tmp_path, {"gguf_file": "a.gguf"}),
        (tmp_path.parent, {"subfolder": tmp_path.name, "gguf_file": "a.gguf"}),
        (tmp_path.parent, {"gguf_file": f"{tmp_path.name}/a.gguf"}),
    ]
    for place, options in places:
        config = AutoConfig.from_pretrained(place, **options)
        assert type(config) is LlamaConfig
        assert (config.hidden_size, config.dtype) == (256, "float32")
        loaded = AutoModelForCausalLM.from_pretrained(place, **options)
        torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)
    assert AutoConfig.from_pretrained(tmp_path, rope_theta=5.0).rope_theta == 5.0
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is LlamaModel
    torch.testing.assert_close(base.norm.weight, model.model.norm.weight, rtol=0, atol=0)
    head, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert report["missing_keys"] == ["score.weight"]
    assert head.score.weight.shape == (3, 256)
    empty = llama()
    assert pretrained.load_into(empty, tmp_path / "a.gguf").is_clean
    require_same(empty, {name: p.detach() for name, p in model.named_parameters()})


def test_beside_other_weights_it_is_read_when_named(tmp_path: Path) -> None:
    first, second = llama(), llama(num_hidden_layers=1)
    first.save_pretrained(tmp_path)
    write(tmp_path / "a.gguf", second)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.num_hidden_layers == 2
    assert AutoConfig.from_pretrained(tmp_path).num_hidden_layers == 2
    for place, options in ((tmp_path, {"gguf_file": "a.gguf"}), (tmp_path / "a.gguf", {})):
        loaded = AutoModelForCausalLM.from_pretrained(place, **options)
        torch.testing.assert_close(logits(loaded), logits(second), rtol=0, atol=0)
        assert AutoConfig.from_pretrained(place, **options).num_hidden_layers == 1
    write(tmp_path / "b.gguf", second)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").unlink()
    with pytest.raises(SourceError, match=r"no config\.json beside the weights"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(SourceError, match=r"no 'c\.gguf' in .*; there is a\.gguf, b\.gguf"):
        AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="c.gguf")


def test_a_stub_of_a_config_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", model := llama(rope_theta=1e6))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.rope_theta == 1e6
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)
    own = AutoModelForCausalLM.from_pretrained(
        tmp_path, config=LlamaConfig(**model.config.to_dict() | {"rope_theta": 9.0})
    )
    assert own.config.rope_theta == 9.0


def test_a_save_is_a_checkpoint_like_any(tmp_path: Path) -> None:
    expected = write(tmp_path / "x.gguf", llama(tie_word_embeddings=True), Kind.Q8_0)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    require_same(again, expected)
    assert again.config.to_dict() == loaded.config.to_dict()
    loaded.save_pretrained(tmp_path)  # beside the file it is from
    require_same(AutoModelForCausalLM.from_pretrained(tmp_path), expected)


SCALINGS = {
    "linear": (
        {"rope__scaling__type": ("linear", Value.STRING), "rope__scaling__factor": (2.0, Value.FLOAT32)},
        {"rope_type": "linear", "factor": 2.0},
    ),
    "yarn": (
        {
            "rope__scaling__type": ("yarn", Value.STRING),
            "rope__scaling__factor": (4.0, Value.FLOAT32),
            "rope__scaling__original_context_length": (16, Value.UINT32),
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    ),
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_stretched_positions(kind: str, tmp_path: Path) -> None:
    fields, scaling = SCALINGS[kind]
    model = llama(rope_scaling=scaling)
    write(tmp_path / "x.gguf", model, **fields)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.rope_scaling == scaling
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)


def test_factors_of_frequencies_stretch_them(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}  # fmt: skip
    plain, model = llama(rope_theta=5e5), llama(rope_theta=5e5, rope_scaling=scaling)
    factors = (plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq).numpy()
    for given, kind in ((factors, "llama3"), (factors * 1.5, "longrope")):
        write_with_factors(tmp_path / "x.gguf", model, given)
        loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
        assert report.is_clean
        assert loaded.config.rope_scaling["rope_type"] == kind
        found = loaded.model.rotary_emb.inv_freq
        torch.testing.assert_close(found, plain.model.rotary_emb.inv_freq / torch.from_numpy(given), rtol=3e-7, atol=0)
        assert loaded.model.rotary_emb.attention_factor == 1.0
        loaded.save_pretrained(tmp_path / "out")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        torch.testing.assert_close(logits(again), logits(loaded), rtol=0, atol=0)


def write_with_factors(path: Path, model: LlamaForCausalLM, factors: Any) -> None:
    real = gguf.GGUFWriter.write_header_to_file

    def with_factors(self: Any, *args: Any) -> None:
        self.add_tensor("rope_freqs.weight", factors.astype(np.float32))
        real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "write_header_to_file", with_factors)
        write(path, model)


def test_parts_are_one_model(tmp_path: Path) -> None:
    model = llama()
    write(tmp_path / "whole.gguf", model)
    split(tmp_path / "whole.gguf", tmp_path / "parts")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "parts")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0)
    named = AutoModelForCausalLM.from_pretrained(tmp_path / "parts" / "m-00002-of-00002.gguf")
    torch.testing.assert_close(logits(named), logits(model), rtol=0, atol=0)
    assert AutoConfig.from_pretrained(tmp_path / "parts").hidden_size == 256


def split(source: Path, folder: Path) -> None:
    """In two, as llama.cpp's gguf-split does it: all the metadata in the first."""
    folder.mkdir()
    reader = gguf.GGUFReader(source)
    half = len(reader.tensors) // 2
    for number, tensors in enumerate((reader.tensors[:half], reader.tensors[half:])):
        writer = gguf.GGUFWriter(folder / f"m-{number + 1:05}-of-00002.gguf", "llama")
        if number == 0:
            for name, field in reader.fields.items():
                if not name.startswith(("GGUF.", "general.architecture")):
                    inner = field.types[-1] if len(field.types) > 1 else None
                    writer.add_key_value(name, field.contents(), field.types[0], inner)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"vocab_size": (39, Value.UINT32)}, MismatchError, r"checkpoint \[40, 256\], model \[39, 256\]"),
        ({"attention__key_length": (16, Value.UINT32)}, MismatchError, r"model \[128, 256\]"),
        ({"attention__head_count": (7, Value.UINT32)}, TensorError, "'blk.0.attn_q.weight': the shape"),
        ({"attention__head_count_kv": (4, Value.UINT32)}, MismatchError, "k_proj"),
        ({"block_count": (10**9, Value.UINT32)}, ConfigError, "llama.block_count is 1000000000"),
        ({"context_length": (2**40, Value.UINT64)}, ConfigError, "max_position_embeddings"),
        ({"expert_shared_count": (8, Value.UINT32)}, ConfigError, "llama.expert_shared_count is 8"),
    ],
)
def test_metadata_that_lies(fields: dict[str, Any], kind: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in fields:  # the writer refuses a key that is there already
            adder = {"attention__key_length": "add_key_length", "attention__head_count": "add_head_count",
                     "attention__head_count_kv": "add_head_count_kv", "block_count": "add_block_count",
                     "context_length": "add_context_length"}.get(name)  # fmt: skip
            if adder is not None:
                patch.setattr(gguf.GGUFWriter, adder, lambda self, value: None)
        write(tmp_path / "x.gguf", llama(), **fields)
    with pytest.raises(kind, match=words) as caught:
        AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "x.gguf" in str(caught.value)


def test_a_family_that_is_not_there_is_said(tmp_path: Path) -> None:
    write(tmp_path / "x.gguf", llama(), architecture="mamba")
    with pytest.raises(ConfigError, match=r"x\.gguf: general\.architecture is 'mamba'; known: llama") as caught:
        AutoModelForCausalLM.from_pretrained(tmp_path)
    assert caught.value.key == "general.architecture"
    with pytest.raises(MismatchError, match="matches no tensor"):
        AutoModelForCausalLM.from_pretrained(tmp_path, config=llama().config)


# The command line


def run(*arguments: Any) -> str:
    result = CliRunner().invoke(root, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_convert_makes_a_folder_of_it(dtype: str | None, tmp_path: Path) -> None:
    expected = write(tmp_path / "in" / "x.gguf", llama(tie_word_embeddings=True), Kind.Q4_0)
    options = [] if dtype is None else ["--dtype", dtype]
    run("convert", tmp_path / "in" / "x.gguf", tmp_path / "out", *options)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in loaded.parameters()} == {getattr(torch, dtype or "float32")}
    require_same(loaded, {name: tensor.to(getattr(torch, dtype or "float32")) for name, tensor in expected.items()})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("llama", dtype or "float32")
    if dtype is None:
        stored = load_file(tmp_path / "out" / "model.safetensors")
        assert stored.keys() == expected.keys()


def test_looking_at_it(tmp_path: Path) -> None:
    write(tmp_path / "in" / "x.gguf", llama(), Kind.Q4_0)
    shutil.copy(tmp_path / "in" / "x.gguf", tmp_path / "in" / "y.gguf")
    document = json.loads(run("inspect", tmp_path / "in", "--gguf-file", "x.gguf", "--json"))
    assert document["config"]["model_type"] == "llama"
    assert document["metadata"]["x.gguf"]["tensor_types"] == "16 Q4_0, 5 F32"
    assert {t["name"] for t in document["tensors"]} >= {"blk.0.attn_q.weight", "token_embd.weight"}
    assert "llama.block_count=2" in run("inspect", tmp_path / "in" / "x.gguf")
    planned = json.loads(run("plan", tmp_path / "in" / "x.gguf", "--json"))
    assert (planned["model"], planned["fits"], planned["missing"], planned["unexpected"]) == (
        "LlamaForCausalLM", True, [], [],
    )  # fmt: skip
    assert "bad" not in run("verify", "--data", tmp_path / "in")
    split(tmp_path / "in" / "x.gguf", tmp_path / "parts")
    assert "no index" not in run("verify", tmp_path / "parts")


def test_what_is_long_is_shortened_on_a_terminal(tmp_path: Path) -> None:
    write(tmp_path / "x.gguf", llama(), words=("x\n" * 1000, Value.STRING))
    shown = "x\\n" * 100
    assert f"llama.words={shown}…" in run("inspect", tmp_path)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("family", ["Qwen2", "Qwen3"])
def test_qwen(family: str, is_tied: bool, tmp_path: Path) -> None:
    """Queries and keys are not interleaved; biases and norms of heads come along; the config is the file's own."""
    like: Any = llama().config
    torch.manual_seed(7)
    config = getattr(pretrained, f"{family}Config")(
        vocab_size=40,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=like.head_dim,
        max_position_embeddings=64,
        initializer_range=0.1,
        rms_norm_eps=1e-5,
        tie_word_embeddings=is_tied,
    )
    model = getattr(pretrained, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    expected = write(tmp_path / "model.gguf", model, Kind.Q8_0, architecture=family.lower())
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model.gguf", output_loading_info=True)
    assert type(loaded) is type(model) and not report["missing_keys"] and not report["unexpected_keys"]
    assert loaded.config.tie_word_embeddings is is_tied and loaded.config.rope_theta == config.rope_theta
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    model.load_state_dict(expected | ({"lm_head.weight": expected["model.embed_tokens.weight"]} if is_tied else {}))
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, atol=2e-5, rtol=0)
