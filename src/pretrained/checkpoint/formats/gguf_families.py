"""What each architecture of a GGUF file adds to the config that all have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from .gguf_facts import Facts

__all__ = ["Known", "family_of"]

logger = logging.getLogger(__name__)

Config = dict[str, Any]
_EXPERTS = frozenset({"expert_count"})
# Gemma's 27B models, by their number of layers, divide scores by the root of the width of a head as the hidden size
# has it, the others by that of the heads there are; llama.cpp knows them by the same number.
_LARGE_GEMMA = {"gemma2": 46, "gemma3": 62}
_LOCAL_BASE = 10000.0  # of the sliding layers of Gemma 3


class Known(NamedTuple):
    """A family: its model_type, the prefix of its classes, keys it takes care of itself, and what fills its config."""

    model_type: str
    prefix: str
    keys: frozenset[str]
    complete: Callable[[Facts, Config], None]


def family_of(facts: Facts) -> Known:
    """The family of an architecture; a Llama with experts is a Mixtral."""
    if facts.architecture == "llama" and facts.get("expert_count") not in (None, 0):
        return Known("mixtral", "Mixtral", _EXPERTS, _mixtral)
    return _FAMILIES[facts.architecture]


def _llama(facts: Facts, config: Config) -> None:
    config["attention_bias"] = "blk.0.attn_q.bias" in facts.shapes
    config["mlp_bias"] = "blk.0.ffn_down.bias" in facts.shapes
    _sees_all(facts, config)


def _qwen2(facts: Facts, config: Config) -> None:  # whose queries, keys and values always have a bias
    _sees_all(facts, config)


def _qwen3(facts: Facts, config: Config) -> None:
    config["attention_bias"] = "blk.0.attn_q.bias" in facts.shapes
    _sees_all(facts, config)


def _sees_all(facts: Facts, config: Config) -> None:
    config["hidden_act"] = "silu"
    window = facts.get("attention.sliding_window")
    if type(window) is int and 0 < window < facts.count("context_length"):
        logger.warning(
            "%s attends to the last %d positions only; the model built here attends to all of them", facts.file, window
        )


def _mixtral(facts: Facts, config: Config) -> None:
    _sees_all(facts, config)
    config |= {
        "num_local_experts": facts.count("expert_count"),
        "num_experts_per_tok": facts.count("expert_used_count"),
        "sliding_window": None,
    }


def _qwen3_moe(facts: Facts, config: Config) -> None:
    _qwen3(facts, config)
    config |= {
        "num_experts": facts.count("expert_count"),
        "num_experts_per_tok": facts.count("expert_used_count"),
        "moe_intermediate_size": facts.count("expert_feed_forward_length"),
        "norm_topk_prob": True,  # llama.cpp does so for all files of this architecture
    }


def _gemma(facts: Facts, config: Config) -> None:
    config["hidden_act"] = "gelu_pytorch_tanh"


def _gemma2(facts: Facts, config: Config) -> None:
    config |= {
        "query_pre_attn_scalar": _query_scalar(facts, config),
        "sliding_window": facts.count("attention.sliding_window", 4096),
        "attn_logit_softcapping": facts.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": facts.number("final_logit_softcapping", 30.0),
    }


def _gemma3(facts: Facts, config: Config) -> None:
    cap = facts.get("final_logit_softcapping")
    config |= {
        "query_pre_attn_scalar": _query_scalar(facts, config),
        "sliding_window": facts.count("attention.sliding_window"),
        "rope_theta": facts.number("rope.freq_base", 1e6),
        "rope_local_base_freq": _LOCAL_BASE,
        "final_logit_softcapping": facts.number("final_logit_softcapping") if cap else None,
    }


def _query_scalar(facts: Facts, config: Config) -> int:
    """What scores are divided by the root of, which no key of the file says."""
    if config["num_hidden_layers"] == _LARGE_GEMMA[facts.architecture]:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])


def _phi3(facts: Facts, config: Config) -> None:
    head_dim = config["head_dim"]
    turning = facts.count("rope.dimension_count", head_dim)
    window = facts.get("attention.sliding_window")
    config.setdefault("pad_token_id", None)  # the family's own default need not be in this vocabulary
    config |= {
        "hidden_act": "silu",
        "partial_rotary_factor": turning / head_dim,
        "original_max_position_embeddings": facts.count(
            "rope.scaling.original_context_length", config["max_position_embeddings"]
        ),
        "sliding_window": facts.count("attention.sliding_window") if window else None,
    }
    if int(head_dim * config["partial_rotary_factor"]) != turning:  # what the model makes of the share again
        raise facts.error(facts.full("rope.dimension_count"), f"is {turning} of {head_dim}, which is no share of them")
    if "rope_factors_long.weight" in facts.shapes or "rope_factors_short.weight" in facts.shapes:
        for name in ("rope_factors_long.weight", "rope_factors_short.weight"):
            if name not in facts.shapes:
                raise facts.error(name, "is missing beside the other of longrope")
        config["rope_scaling"] = {
            "rope_type": "longrope",
            "short_factor": facts.table("rope_factors_short.weight", turning // 2),
            "long_factor": facts.table("rope_factors_long.weight", turning // 2),
            "attention_factor": facts.number("rope.scaling.attn_factor", 1.0),
        }


_FAMILIES = {
    "llama": Known("llama", "Llama", frozenset(), _llama),
    "qwen2": Known("qwen2", "Qwen2", frozenset(), _qwen2),
    "qwen3": Known("qwen3", "Qwen3", frozenset(), _qwen3),
    "qwen3moe": Known("qwen3_moe", "Qwen3Moe", _EXPERTS, _qwen3_moe),
    "gemma": Known("gemma", "Gemma", frozenset(), _gemma),
    "gemma2": Known("gemma2", "Gemma2", frozenset({"attn_logit_softcapping", "final_logit_softcapping"}), _gemma2),
    "gemma3": Known("gemma3_text", "Gemma3", frozenset({"final_logit_softcapping"}), _gemma3),
    "phi3": Known("phi3", "Phi3", frozenset({"rope.dimension_count", "rope.scaling.type"}), _phi3),
}
