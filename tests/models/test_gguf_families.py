"""Decoders other than Llama as llama.cpp keeps them; the files are written by gguf's own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tiny import TINY

from pretrained import AutoModelForCausalLM
from pretrained.auto import registry
from pretrained.errors import ConfigError

Kind = gguf.GGMLQuantizationType
IDS = torch.tensor([[1, 2, 3, 5, 8, 13, 21, 34]])
SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "rms_norm_eps": 1e-5, "sliding_window": 4}
WINDOW = {"attention.sliding_window": 4}
EXPERTS = {"expert_count": 4, "expert_used_count": 2}

# name → (architecture, model_type, fields of the config, keys of the metadata)
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "mixtral": ("llama", "mixtral", {"sliding_window": None, "rope_theta": 1e6, "num_local_experts": 4}, EXPERTS),
    "qwen3moe": (
        "qwen3moe",
        "qwen3_moe",
        {"num_experts": 4, "moe_intermediate_size": 32, "mlp_only_layers": None, "rope_theta": 1e4},
        {**EXPERTS, "expert_feed_forward_length": 32},
    ),
    "gemma": ("gemma", "gemma", {}, {}),
    "gemma2": (
        "gemma2",
        "gemma2",
        {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 1.5},
        {**WINDOW, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    ),
    "gemma2 of 46 layers": (
        "gemma2",
        "gemma2",
        {"query_pre_attn_scalar": 10, "attn_logit_softcapping": 1.5, "num_hidden_layers": 46},
        {**WINDOW, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    ),
    "gemma3": (
        "gemma3",
        "gemma3_text",
        {
            "query_pre_attn_scalar": 16,
            "final_logit_softcapping": None,
            "sliding_window_pattern": 6,
            "num_hidden_layers": 6,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        {**WINDOW, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
    "phi3": ("phi3", "phi3", {"partial_rotary_factor": None}, WINDOW),
    "phi3 in part": ("phi3", "phi3", {"partial_rotary_factor": 0.75, "sliding_window": None}, {}),
    "phi3 long": (
        "phi3",
        "phi3",
        {
            "partial_rotary_factor": 0.5,
            "original_max_position_embeddings": 4,
            "rope_scaling": {
                "rope_type": "longrope",
                "short_factor": [1.0, 1.25, 1.5, 2.0],
                "long_factor": [1.0, 2.0, 4.0, 8.0],
                "attention_factor": 1.25,
            },
        },
        {**WINDOW, "rope.scaling.original_context_length": 4, "rope.scaling.attn_factor": 1.25},
    ),
}
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
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def make(case: str) -> Any:
    _, model_type, fields, _ = CASES[case]
    config = TINY[model_type](**SIZES | {"attn_implementation": "eager"} | fields)
    torch.manual_seed(0)
    model = registry.model_class_for("AutoModelForCausalLM", config)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # numbers that one can be added to and taken from without loss
                parameter.add_(torch.randint(-8, 8, parameter.shape) / 64)
    return model


def interleave(weight: Any, heads: int) -> Any:
    """As llama.cpp's converter stores queries and keys of a Llama: channel i of a head, then channel i + half."""
    return np.concatenate([np.stack(np.split(head, 2), 1).reshape(head.shape) for head in np.split(weight, heads)])


def tensors_of(model: Any, architecture: str) -> dict[str, Any]:
    config, found = model.config, {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if architecture.startswith("gemma") and values.ndim == 1:
            values = values + 1
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if architecture == "llama" and heads:
            values = interleave(values, heads)
        module, _, leaf = name.rpartition(".")
        block = ""
        if module.startswith("model.layers."):
            _, _, number, module = module.split(".", 3)
            block = f"blk.{number}."
        if module == "mlp.experts":
            if leaf == "gate_up_proj":
                found[f"{block}ffn_gate_exps.weight"], found[f"{block}ffn_up_exps.weight"] = np.split(values, 2, 1)
            else:
                found[f"{block}ffn_down_exps.weight"] = values
            continue
        around = architecture in ("gemma2", "gemma3")
        own = {"post_attention_layernorm": "post_attention_norm" if around else "ffn_norm"} | NAMES
        found[f"{block}{own[module]}.{leaf}"] = values
    scaling = config.rope_scaling or {}
    for kind in ("long", "short"):
        if f"{kind}_factor" in scaling:
            found[f"rope_factors_{kind}.weight"] = np.array(scaling[f"{kind}_factor"], np.float32)
    return found


def write(path: Path, model: Any, case: str, kind: Kind = Kind.F32, one_by_one: bool = False, **changes: Any) -> None:
    architecture, _, _, keys = CASES[case]
    config = model.config
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
    writer.add_rope_dimension_count(int(config.head_dim * (getattr(config, "partial_rotary_factor", None) or 1)))
    writer.add_array("tokenizer.ggml.tokens", [f"t{i}" for i in range(config.vocab_size)])
    for key, value in {**keys, **{name.replace("__", "."): value for name, value in changes.items()}}.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{architecture}.{key}", value)
    for name, values in tensors_of(model, architecture).items():
        own = kind if values.ndim > 1 and "gate_inp" not in name else Kind.F32
        if "_exps" in name and one_by_one:
            for number, expert in enumerate(values):
                place = name.replace("_exps.weight", f".{number}.weight")
                writer.add_tensor(place, gguf.quants.quantize(np.ascontiguousarray(expert), own), raw_dtype=own)
        else:
            writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def load(path: Path) -> Any:
    model, report = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", output_loading_info=True)
    assert report.is_clean, report.render()
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_model_comes_back(case: str, tmp_path: Path) -> None:
    model = make(case)
    write(tmp_path / "m.gguf", model, case)
    loaded = load(tmp_path / "m.gguf")
    assert type(loaded) is type(model)
    found = dict(loaded.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name], parameter), name
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-6, rtol=1e-6)
    loaded.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", attn_implementation="eager")
    assert torch.equal(logits(again), logits(loaded))


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("case", ["mixtral", "qwen3moe"])
def test_blocks_of_experts(case: str, one_by_one: bool, tmp_path: Path) -> None:
    model = make(case)
    write(tmp_path / "m.gguf", model, case, Kind.Q8_0, one_by_one)
    loaded = load(tmp_path / "m.gguf")
    for (name, one), (_, other) in zip(loaded.named_parameters(), model.named_parameters(), strict=True):
        values = other.detach().numpy()
        if values.ndim > 1 and not name.endswith("mlp.gate.weight"):
            blocks = gguf.quants.quantize(values, Kind.Q8_0)
            values = gguf.quants.dequantize(blocks, Kind.Q8_0)
        if case == "mixtral" and ("q_proj" in name or "k_proj" in name):
            continue  # quantized in another order of rows
        assert np.array_equal(one.detach().numpy(), values.reshape(other.shape)), name


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("qwen3moe", {"expert_gating_func": 2}, "qwen3moe.expert_gating_func is 2, which is not supported"),
        ("mixtral", {"expert_weights_scale": 2.5}, "llama.expert_weights_scale is 2.5, which is not supported"),
        ("gemma", {"final_logit_softcapping": 3.0}, "gemma.final_logit_softcapping is 3.0, which is not supported"),
        ("gemma3", {"attn_logit_softcapping": 3.0}, "gemma3.attn_logit_softcapping is 3.0, which is not supported"),
    ],
)
def test_what_is_refused(case: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", make(case), case, **changes)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "m.gguf")


def test_longrope_has_two_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tensors_of
    monkeypatch.setitem(
        globals(), "tensors_of", lambda *a: {n: t for n, t in tensors(*a).items() if n != "rope_factors_long.weight"}
    )
    write(tmp_path / "m.gguf", make("phi3 long"), "phi3 long")
    with pytest.raises(ConfigError, match=r"rope_factors_long\.weight is missing beside the other of longrope"):
        load(tmp_path / "m.gguf")
