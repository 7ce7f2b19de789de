"""The config of a model, from what its GGUF file says of itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..tensors import Container
from .gguf import GgufFile
from .gguf_facts import Facts
from .gguf_families import family_of

__all__ = ["config_of"]


# What changes the maths and no config of these families can say, and the values that say nothing.
_UNKNOWN_MATHS: Mapping[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_shared_count": (0,),
    "expert_weights_scale": (0.0, 1.0),
    "expert_gating_func": (0, 1),  # none said, softmax
    "leading_dense_block_count": (0,),
    "interleave_moe_layer_step": (0, 1),
    "logit_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.causal": (True,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "use_parallel_residual": (False,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
}
# Factors of rotary frequencies are recognised as those of Llama 3.1 and its successors within this.
_SAME = 1e-4
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def config_of(containers: Iterable[Container]) -> dict[str, Any]:
    """The content of a config.json for the model in these files, the parts of one GGUF in order.

    Raises:
        ConfigError: the architecture is missing or not known; a key of the metadata is missing, of a wrong type, out of
            range, or asks for what the family cannot do. `key` is the key of the metadata.
    """
    facts = Facts([part for part in containers if isinstance(part, GgufFile)])
    kind = facts.fields.get("general.type", "model")
    if kind != "model":
        raise facts.error("general.type", f"is {kind!r:.80}: this is no model but a part of one")
    model_type, prefix, known, complete = family_of(facts)
    for key, harmless in _UNKNOWN_MATHS.items():
        if key not in known and facts.get(key) not in (None, *harmless):
            raise facts.error(facts.full(key), f"is {facts.get(key)!r:.80}, which is not supported")
    heads = facts.count("attention.head_count")
    hidden, layers = facts.count("embedding_length"), facts.count("block_count")
    if layers > len(facts.shapes):
        raise facts.error(facts.full("block_count"), f"is {layers}, and there are {len(facts.shapes)} tensors")
    head_dim = facts.count("attention.key_length", hidden // heads)
    if facts.count("attention.value_length", head_dim) != head_dim:
        raise facts.error(facts.full("attention.value_length"), f"should be the length of a key, {head_dim}")
    if "rope.dimension_count" not in known and facts.count("rope.dimension_count", head_dim) != head_dim:
        raise facts.error(facts.full("rope.dimension_count"), f"should be the length of a key, {head_dim}")
    config = {
        "model_type": model_type,
        "architectures": [f"{prefix}ForCausalLM"],
        "vocab_size": facts.vocab_size(),
        "hidden_size": hidden,
        "intermediate_size": facts.count("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": facts.count("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": facts.count("context_length"),
        "rms_norm_eps": facts.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": facts.number("rope.freq_base", 10000.0),
        "rope_scaling": None if "rope.scaling.type" in known else _rope_scaling(facts, head_dim),
        "tie_word_embeddings": "output.weight" not in facts.shapes,
        "dtype": "float32",
        **facts.token_ids(),
    }
    complete(facts, config)
    return config


def _rope_scaling(facts: Facts, head_dim: int) -> dict[str, Any] | None:
    """How rotary frequencies are stretched, as `rope_scaling` of a config says it."""
    if longrope := [name for name in facts.shapes if name.startswith(("rope_factors_long", "rope_factors_short"))]:
        raise facts.error(longrope[0], "is a tensor of longrope, which no config of this architecture has")
    kind = facts.get("rope.scaling.type")
    if kind not in (None, "none", "linear", "yarn"):
        raise facts.error(facts.full("rope.scaling.type"), f"is {kind!r:.80}; known: none, linear, yarn")
    # Without a type it is linear, and 0 says that there is none. The second key is an older name of the first.
    keys = [key for key in ("rope.scaling.factor", "rope.scale_linear") if facts.get(key) not in (None, 0)]
    factor = facts.number(keys[0]) if keys and kind != "none" else 1.0
    magnitude = facts.number("rope.scaling.attn_factor", 1.0) * facts.number("rope.scaling.yarn_attn_factor", 1.0)
    has_table = "rope_freqs.weight" in facts.shapes
    if kind == "yarn":
        if has_table:
            raise facts.error("rope_freqs.weight", "is there beside a scaling of type yarn; only one of them can be")
        return _yarn(facts, factor, magnitude)
    if magnitude != 1.0:
        raise facts.error(facts.full("rope.scaling.attn_factor"), f"is {magnitude}, which needs the scaling type yarn")
    if has_table:
        return _from_table(facts, head_dim, factor)
    return {"rope_type": "linear", "factor": factor} if factor != 1.0 else None


def _yarn(facts: Facts, factor: float, magnitude: float) -> dict[str, Any]:
    trained = facts.count("rope.scaling.original_context_length", facts.count("context_length"))
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
    for name in ("beta_fast", "beta_slow"):
        if facts.get(f"rope.scaling.yarn_{name}") is not None:
            scaling[name] = facts.number(f"rope.scaling.yarn_{name}")
    if magnitude != 1.0:  # llama.cpp multiplies what YaRN gives, a config replaces it
        scaling["attention_factor"] = magnitude * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0)
    return scaling


def _from_table(facts: Facts, head_dim: int, factor: float) -> dict[str, Any] | None:
    """What divides each frequency, from a tensor: the settings of Llama 3 where it is theirs, else a list as it is."""
    factors = [value * factor for value in facts.table("rope_freqs.weight", head_dim // 2)]
    if all(value == 1.0 for value in factors):
        return None
    scaling = {"rope_type": "llama3", "factor": float(f"{max(factors):.6g}"), **_LLAMA3}
    expected = _llama3_factors(scaling, head_dim, facts.number("rope.freq_base", 10000.0))
    if all(abs(a - b) <= _SAME * b for a, b in zip(factors, expected, strict=True)):
        return scaling
    # One list for short sequences and the same for long ones, without a change of the magnitude: just a division.
    return {
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": facts.count("context_length"),
    }


def _llama3_factors(scaling: Mapping[str, Any], head_dim: int, theta: float) -> list[float]:
    """What Llama 3 divides each frequency by ("The Llama 3 Herd of Models", arXiv 2407.21783)."""
    low, high, trained = _LLAMA3.values()
    found = []
    for i in range(head_dim // 2):
        turns = trained / (2 * math.pi * theta ** (2 * i / head_dim))  # over the length that it was trained with
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        found.append(1 / ((1 - kept) / scaling["factor"] + kept))
    return found
