"""Checkpoints to measure with, made on the spot by plain numpy, so that no library under test has a hand in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from _harness import Context

__all__ = ["LARGE", "TINY", "experts", "large", "large_fp32", "num_bytes", "num_layers", "tiny"]

Shape = tuple[int, ...]

LARGE = {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
TINY = {
    "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 80,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
EXPERTS = {
    "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 12,
    "num_attention_heads": 16, "num_key_value_heads": 4, "num_local_experts": 8, "num_experts_per_tok": 2,
}  # fmt: skip


def large(context: Context) -> Path:
    """1.1 billion parameters in bfloat16: 2.2 GB (0.75 GB with --quick)."""
    return _made(context, "large-bf16", _sized(context), "bfloat16")


def large_fp32(context: Context) -> Path:
    """The same in float32: 4.4 GB (1.5 GB with --quick)."""
    return _made(context, "large-fp32", _sized(context), "float32")


def tiny(context: Context) -> Path:
    """80 layers of next to nothing: 723 tensors."""
    return _made(context, "tiny", TINY, "bfloat16")


def experts(context: Context) -> Path:
    """A Mixtral whose experts are stored one by one, as published: 2.3 GB in bfloat16 (0.7 GB with --quick)."""
    return _made(context, "experts", {**EXPERTS, "num_hidden_layers": 3} if context.quick else EXPERTS, "bfloat16")


def num_layers(context: Context) -> int:
    """Layers of the large model."""
    return int(_sized(context)["num_hidden_layers"])


def num_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's one weight file."""
    return (folder / "model.safetensors").stat().st_size


def _sized(context: Context) -> dict[str, int]:
    return {**LARGE, "num_hidden_layers": 4} if context.quick else LARGE


def _made(context: Context, name: str, sizes: dict[str, int], dtype: str) -> Path:
    folder = context.scratch / f"{name}-{sizes['num_hidden_layers']}"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_weights(folder / "model.safetensors", sizes, dtype)
        config = {
            "architectures": ["MixtralForCausalLM" if "num_local_experts" in sizes else "LlamaForCausalLM"],
            "model_type": "mixtral" if "num_local_experts" in sizes else "llama",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "dtype": dtype,
            "torch_dtype": dtype,
            **sizes,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder


def _shapes(sizes: dict[str, int]) -> Iterator[tuple[str, Shape]]:
    hidden, inner, vocab = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
    keys = hidden // sizes["num_attention_heads"] * sizes["num_key_value_heads"]
    yield "lm_head.weight", (vocab, hidden)
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(sizes["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        if "num_local_experts" in sizes:
            yield from _expert_shapes(layer + "block_sparse_moe.", sizes)
        yield layer + "input_layernorm.weight", (hidden,)
        if "num_local_experts" not in sizes:
            yield layer + "mlp.down_proj.weight", (hidden, inner)
            yield layer + "mlp.gate_proj.weight", (inner, hidden)
            yield layer + "mlp.up_proj.weight", (inner, hidden)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        yield layer + "self_attn.k_proj.weight", (keys, hidden)
        yield layer + "self_attn.o_proj.weight", (hidden, hidden)
        yield layer + "self_attn.q_proj.weight", (hidden, hidden)
        yield layer + "self_attn.v_proj.weight", (keys, hidden)
    yield "model.norm.weight", (hidden,)


def _expert_shapes(block: str, sizes: dict[str, int]) -> Iterator[tuple[str, Shape]]:
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    for i in range(sizes["num_local_experts"]):
        yield f"{block}experts.{i}.w1.weight", (inner, hidden)
        yield f"{block}experts.{i}.w2.weight", (hidden, inner)
        yield f"{block}experts.{i}.w3.weight", (inner, hidden)
    yield f"{block}gate.weight", (sizes["num_local_experts"], hidden)


def _write_weights(path: Path, sizes: dict[str, int], dtype: str) -> None:
    import numpy as np

    size = 2 if dtype == "bfloat16" else 4
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in _shapes(sizes):
        start, end = end, end + size * int(np.prod(shape))
        code = "BF16" if size == 2 else "F32"
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    # Small random numbers, the same run over and over from another place each time: no page equals another.
    pool = np.random.default_rng(0).standard_normal(9_000_011, dtype=np.float32) * np.float32(0.02)
    pool = (pool.view(np.uint32) >> 16).astype(np.uint16) if size == 2 else pool.view(np.uint32)
    one = 0x3F80 if size == 2 else 0x3F800000
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        place = 0
        for name, shape in _shapes(sizes):
            count = int(np.prod(shape))
            if "norm" in name:
                file.write(np.full(count, one, pool.dtype).tobytes())
                continue
            while count > 0:
                piece = pool[place : place + count]
                file.write(piece.tobytes())
                count -= len(piece)
                place = (place + len(piece)) % len(pool)
