"""Writes <family>_heads/ of Mistral, Phi-3, the Gemmas, Mixtral and Qwen3-MoE: tiny weights and outputs of heads.

Run once with transformers 5.23.0: `python make_decoder_heads.py`, or with names of families.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers
from _make import classification_cases, text_labels, write

PAD, VOCAB = 0, 61
TEXT = {"input_ids": "@input_ids", "attention_mask": "@attention_mask"}
EVERYTHING = {"output_attentions": True, "output_hidden_states": True}
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 30,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 32,
    "initializer_range": 0.15,
    "pad_token_id": PAD,
}
NO_HEAD_DIM = {name: value for name, value in BASE.items() if name != "head_dim"}
YARN = {
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 8,
    }
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1000.0,
    "short_factor": [1.0, 1.3],
    "long_factor": [2.0, 3.5],
    "partial_rotary_factor": 0.5,
}
# Of Gemma 2: small caps, so that they show.
CAPS = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0}
DUAL = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
}
# The rows of experts have a multiple of 16 bytes, as the reference needs it.
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12}

# family → (prefix of the classes, prefix of the config class, fields, changes to them that have a case of their own)
FAMILIES: dict[str, tuple[str, str, dict, dict[str, dict]]] = {
    "mistral": (
        "Mistral",
        "Mistral",
        BASE | {"sliding_window": None},
        {"sliding": {"sliding_window": 4}, "yarn": {**YARN, "sliding_window": 3}},
    ),
    "phi3": (
        "Phi3",
        "Phi3",
        NO_HEAD_DIM | {"hidden_size": 48, "original_max_position_embeddings": 32},
        {
            "sliding": {"sliding_window": 4},
            "partial": {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}},
            "long": {"original_max_position_embeddings": 8, "rope_parameters": LONGROPE},
            "short": {"original_max_position_embeddings": 16, "rope_parameters": LONGROPE},
        },
    ),
    "gemma": (
        "Gemma",
        "Gemma",
        BASE,
        {"biased": {"attention_bias": True}, "gelu": {"hidden_act": "gelu"}, "yarn": YARN},
    ),
    "gemma2": (
        "Gemma2",
        "Gemma2",
        BASE | CAPS | {"query_pre_attn_scalar": 5, "sliding_window": 4},
        {
            "biased": {"attention_bias": True},
            "types": {"layer_types": ["full_attention", "full_attention", "sliding_attention"]},
            "uncapped": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        },
    ),
    "gemma3": (
        "Gemma3Text",
        "Gemma3Text",
        BASE | {"query_pre_attn_scalar": 5, "sliding_window": 4, "sliding_window_pattern": 2},
        {
            "biased": {"attention_bias": True},
            "dual": {"rope_parameters": DUAL, "final_logit_softcapping": 2.0},
            "both-ways": {"use_bidirectional_attention": True, "sliding_window": 5},
        },
    ),
    "mixtral": (
        "Mixtral",
        "Mixtral",
        BASE | {"intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2},
        {"sliding": {"sliding_window": 4}, "one": {"num_experts_per_tok": 1}},
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        "Qwen3Moe",
        BASE | EXPERTS | {"norm_topk_prob": True, "mlp_only_layers": [1]},
        {
            "sliding": {"use_sliding_window": True, "sliding_window": 4},
            "biased": {"attention_bias": True, "norm_topk_prob": False},
            "sparse": {"mlp_only_layers": [], "decoder_sparse_step": 2},
        },
    ),
}
ROUTED = {"output_router_logits": True}


def cases(family: str) -> dict[str, dict]:
    prefix, _, _, variants = FAMILIES[family]
    model, causal = f"{prefix}Model", f"{prefix.removesuffix('Text')}ForCausalLM"
    found: dict[str, dict] = {
        "model": {"class": model, "inputs": {**TEXT, **EVERYTHING}},
        "model-ids": {"class": model, "inputs": {"input_ids": "@input_ids"}},
        "model-mask4d": {"class": model, "inputs": {"input_ids": "@input_ids", "attention_mask": "@mask_4d"}},
        "causal-lm": {"class": causal, "inputs": {**TEXT, "labels": "@labels"}},
        "causal-lm-items": {"class": causal, "inputs": {**TEXT, "labels": "@labels", "num_items_in_batch": 11}},
        "causal-lm-other-tie": {
            "class": causal,
            "config": {"tie_word_embeddings": not prefix.startswith("Gemma")},
            "inputs": {**TEXT, "position_ids": "@position_ids", "labels": "@labels"},
        },
        "causal-lm-last": {"class": causal, "inputs": {**TEXT, "logits_to_keep": 3}},
    }
    for name, changes in variants.items():
        found[f"model-{name}"] = {"class": model, "config": changes, "inputs": {**TEXT, **EVERYTHING}}
        found[f"causal-lm-{name}"] = {"class": causal, "config": changes, "inputs": {**TEXT, "labels": "@labels"}}
    if family in ("mixtral", "qwen3_moe"):
        found["model-routed"] = {"class": model, "inputs": {**TEXT, **EVERYTHING, **ROUTED}}
        found["causal-lm-routed"] = {"class": causal, "inputs": {**TEXT, **ROUTED, "labels": "@labels"}}
        found["causal-lm-unpadded"] = {"class": causal, "inputs": {"input_ids": "@input_ids", **ROUTED}}
        found["causal-lm-coefficient"] = {
            "class": causal,
            "config": {**ROUTED, "router_aux_loss_coef": 0.5},
            "inputs": {**TEXT, "labels": "@labels"},
        }
    heads = classification_cases(prefix, TEXT)
    found |= {name: spec for name, spec in heads.items() if getattr(transformers, spec["class"], None) is not None}
    for spec in found.values():
        spec["inputs"]["use_cache"] = False
    return found


def main() -> None:
    for family in sys.argv[1:] or FAMILIES:
        torch.manual_seed(0)
        mask = torch.ones(3, 10, dtype=torch.int64)
        mask[1, 7:] = 0
        mask[2, :3] = 0
        input_ids = torch.where(mask == 1, torch.randint(1, VOCAB, (3, 10)), PAD)
        visible = (torch.rand(3, 10, 10) < 0.7) | torch.eye(10, dtype=torch.bool)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "mask_4d": (1.0 - visible[:, None].float()) * torch.finfo(torch.float32).min,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
            "labels": torch.where(mask == 1, input_ids, -100),
            **text_labels(mask, VOCAB, 5),
        }
        config_class = getattr(transformers, f"{FAMILIES[family][1]}Config")
        write(Path(__file__).parent / f"{family}_heads", config_class, FAMILIES[family][2], cases(family), inputs)


if __name__ == "__main__":
    main()
