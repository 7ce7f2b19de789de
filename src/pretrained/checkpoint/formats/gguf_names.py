"""What llama.cpp calls the tensors of a decoder, and how it lays them out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..._types import Shape
from ..rules import Op, Permute, Reshape, Shift
from ..tensors import Entry
from .gguf_header import GgufFlawError

__all__ = ["ARCHITECTURES", "check_heads", "experts_of", "head_counts", "torch_place"]

MAX_EXPERTS = 4096

# Architectures whose blocks are those of Llama, and whether the rows of their queries and keys are interleaved:
# llama.cpp turns neighbouring channels where the checkpoints of transformers turn channel i with channel i + half.
ARCHITECTURES: Mapping[str, bool] = {
    "llama": True,
    "qwen2": False,
    "qwen3": False,
    "qwen3moe": False,
    "gemma": False,
    "gemma2": False,
    "gemma3": False,
    "phi3": False,
}
# Norms are stored with the one that the model adds by itself.
_OFFSET_NORMS = ("gemma", "gemma2", "gemma3")

_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_AROUND = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_FUSED = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
# Where they are not those of _IN_BLOCK.
_OWN: Mapping[str, Mapping[str, str]] = {
    "llama": {"ffn_gate_inp": "block_sparse_moe.gate"},
    "qwen3moe": {"ffn_gate_inp": "mlp.gate"},
    "gemma2": _AROUND,
    "gemma3": _AROUND,
    "phi3": _FUSED,
}
# Experts: the tensors of one by itself, in llama.cpp's older names, which stacked ones are given as well.
_EXPERTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "llama": ("block_sparse_moe.experts", {"ffn_gate": "w1", "ffn_down": "w2", "ffn_up": "w3"}),
    "qwen3moe": ("mlp.experts", {"ffn_gate": "gate_proj", "ffn_down": "down_proj", "ffn_up": "up_proj"}),
}
_STACK = re.compile(r"(blk\.\d{1,9}\.ffn_(?:gate|up|down))_exps\.weight")
_EXPERT = re.compile(r"blk\.(\d{1,9})\.(ffn_(?:gate|up|down))\.(\d{1,6})\.weight")
_BLOCK = re.compile(r"blk\.(\d{1,9})\.(\w+)\.(weight|bias)")
_LEAF = re.compile(r"(\w+)\.(weight|bias)")
# Tables that follow from the config; the factors of rope_freqs are read into it.
_TABLES = re.compile(r"rope_(freqs|factors_(long|short))\.weight|blk\.\d+\.attn_rot_embd\.weight")


def torch_place(name: str, shape: Shape, metadata: Mapping[str, str]) -> tuple[str, tuple[Op, ...]] | None:
    """(torch's name, what makes the layout torch's) of a tensor; None for what is no weight.

    A name that no known architecture has stays as it is.
    """
    architecture = metadata.get("general.architecture", "")
    if architecture not in ARCHITECTURES:
        return name, ()
    if _TABLES.fullmatch(name):
        return None
    if match := _BLOCK.fullmatch(name):
        number, module, leaf = match.groups()
        own = _OWN.get(architecture, {}).get(module) or _IN_BLOCK.get(module)
        if own is None:
            return name, ()
        ops = _untwisted(module, shape, metadata) if ARCHITECTURES[architecture] else _shifted(module, architecture)
        return f"model.layers.{int(number)}.{own}.{leaf}", ops
    if (match := _EXPERT.fullmatch(name)) and architecture in _EXPERTS:
        block, pieces = _EXPERTS[architecture]
        return f"model.layers.{int(match[1])}.{block}.{int(match[3])}.{pieces[match[2]]}.weight", ()
    if (match := _LEAF.fullmatch(name)) and match[1] in _OUTSIDE:
        return f"{_OUTSIDE[match[1]]}.{match[2]}", _shifted(match[1], architecture)
    return name, ()


def _shifted(module: str, architecture: str) -> tuple[Op, ...]:
    return (Shift(-1.0),) if architecture in _OFFSET_NORMS and module.endswith("norm") else ()


def experts_of(name: str, shape: Shape, architecture: Any) -> list[str] | None:
    """What the experts of a stack `(experts, out, in)` are called one by one; None for any other tensor."""
    match = _STACK.fullmatch(name)
    if match is None or architecture not in _EXPERTS or len(shape) != 3 or not 0 < shape[0] <= MAX_EXPERTS:
        return None
    return [f"{match[1]}.{number}.weight" for number in range(shape[0])]


def _untwisted(module: str, shape: Shape, metadata: Mapping[str, str]) -> tuple[Op, ...]:
    """What puts the rows of queries or keys `(heads · head_dim, …)` back into the order of the two halves of a head."""
    if module not in ("attn_q", "attn_k"):
        return ()
    heads = head_counts(metadata)[module == "attn_k"]
    rows, *rest = shape
    pairs = (heads, rows // heads // 2, 2, *rest)
    halves = (heads, 2, rows // heads // 2, *rest)
    swap = Permute((0, 2, 1, *range(3, len(pairs))))
    return Reshape(shape, pairs), swap, Reshape(halves, shape)


def head_counts(metadata: Mapping[str, str]) -> tuple[int, int]:
    """Number of heads of the queries, and of the keys and values.

    Raises:
        GgufFlawError: they are missing, or are no numbers.
    """
    prefix = f"{metadata.get('general.architecture')}.attention.head_count"
    found = [metadata.get(prefix), metadata.get(f"{prefix}_kv", metadata.get(prefix))]
    for key, value in zip((prefix, f"{prefix}_kv"), found, strict=True):
        if value is None or not re.fullmatch(r"[1-9]\d{0,8}", value):
            raise GgufFlawError(f"should be one positive number, and is {value!r:.80}", key=key)
    queries, keys = found
    return int(queries or 0), int(keys or 0)


def check_heads(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> None:
    """Raises GgufFlawError unless the rows of all queries and keys are whole heads, if their order has to be known."""
    if not ARCHITECTURES.get(metadata.get("general.architecture", "")):
        return
    for name, entry in entries.items():
        match = _BLOCK.fullmatch(name)
        if match is None or match[2] not in ("attn_q", "attn_k"):
            continue
        heads = head_counts(metadata)[match[2] == "attn_k"]
        if not entry.shape or entry.shape[0] % (2 * heads):
            reason = f"the shape {list(entry.shape)} has no {heads} heads of an even size"
            raise GgufFlawError(reason, tensor=name)
