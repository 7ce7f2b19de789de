"""Writes qwen2_heads/ and qwen3_heads/: tiny weights, and what every head makes of them, with and without windows.

Run once with transformers 5.23.0: `python make_qwen_heads.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from _make import classification_cases, text_labels, write
from transformers import Qwen2Config, Qwen3Config

PAD, VOCAB = 0, 61
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 30,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "initializer_range": 0.15,
    "pad_token_id": PAD,
}
TEXT = {"input_ids": "@input_ids", "attention_mask": "@attention_mask"}
EVERYTHING = {"output_attentions": True, "output_hidden_states": True}
SLIDING = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
TYPES = {
    "use_sliding_window": True,
    "sliding_window": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}


def cases(prefix: str) -> dict[str, dict]:
    causal = f"{prefix}ForCausalLM"
    found: dict[str, dict] = {
        "model": {"class": f"{prefix}Model", "inputs": {**TEXT, **EVERYTHING}},
        "model-sliding": {"class": f"{prefix}Model", "config": SLIDING, "inputs": {**TEXT, **EVERYTHING}},
        "model-types": {"class": f"{prefix}Model", "config": TYPES, "inputs": {**TEXT, **EVERYTHING}},
        "model-sliding-ids": {"class": f"{prefix}Model", "config": SLIDING, "inputs": {"input_ids": "@input_ids"}},
        "model-mask4d": {
            "class": f"{prefix}Model",
            "config": SLIDING,
            "inputs": {"input_ids": "@input_ids", "attention_mask": "@mask_4d"},
        },
        "causal-lm": {"class": causal, "inputs": {**TEXT, "labels": "@labels"}},
        "causal-lm-items": {"class": causal, "inputs": {**TEXT, "labels": "@labels", "num_items_in_batch": 11}},
        "causal-lm-tied": {
            "class": causal,
            "config": {"tie_word_embeddings": True},
            "inputs": {**TEXT, "position_ids": "@position_ids", "labels": "@labels"},
        },
        "causal-lm-last": {"class": causal, "inputs": {**TEXT, "logits_to_keep": 3}},
        "causal-lm-yarn": {
            "class": causal,
            "config": {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 8,
                }
            },
            "inputs": {**TEXT, "labels": "@labels"},
        },
        **classification_cases(prefix, TEXT),
    }
    if prefix == "Qwen3":
        found["model-biased"] = {
            "class": "Qwen3Model",
            "config": {"attention_bias": True},
            "inputs": {**TEXT, **EVERYTHING},
        }
    for spec in found.values():
        spec["inputs"]["use_cache"] = False
    return found


def main() -> None:
    for prefix, config_class, head_dim in (("Qwen2", Qwen2Config, {}), ("Qwen3", Qwen3Config, {"head_dim": 6})):
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
        folder = Path(__file__).parent / f"{prefix.lower()}_heads"
        write(folder, config_class, BASE | head_dim, cases(prefix), inputs)


if __name__ == "__main__":
    main()
