"""Writes llama_heads/: one set of tiny Llama weights, and what every head makes of it, with losses.

Run once with transformers 5.23.0: `python make_llama_heads.py`. Laid out as bert_heads/ is.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaConfig

HERE = Path(__file__).parent / "llama_heads"
BASE = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 32,
    "initializer_range": 0.15,
    "attention_bias": True,
    "mlp_bias": True,
    "pad_token_id": 0,
}
TEXT = {"input_ids": "@input_ids", "attention_mask": "@attention_mask"}
CASES: dict[str, dict] = {
    "model": {
        "class": "LlamaModel",
        "inputs": {**TEXT, "output_attentions": True, "output_hidden_states": True},
    },
    "causal-lm": {"class": "LlamaForCausalLM", "inputs": {**TEXT, "labels": "@labels"}},
    "causal-lm-items": {
        "class": "LlamaForCausalLM",
        "inputs": {**TEXT, "labels": "@labels", "num_items_in_batch": 11},
    },
    "causal-lm-tied": {
        "class": "LlamaForCausalLM",
        "config": {"tie_word_embeddings": True},
        "inputs": {**TEXT, "position_ids": "@position_ids", "labels": "@labels"},
    },
    "causal-lm-last": {"class": "LlamaForCausalLM", "inputs": {**TEXT, "logits_to_keep": 3}},
    "single-label": {
        "class": "LlamaForSequenceClassification",
        "config": {"num_labels": 3},
        "inputs": {**TEXT, "labels": "@class_labels"},
    },
    "multi-label": {
        "class": "LlamaForSequenceClassification",
        "config": {"num_labels": 3},
        "inputs": {**TEXT, "labels": "@multi_labels"},
    },
    "regression": {
        "class": "LlamaForSequenceClassification",
        "config": {"num_labels": 1},
        "inputs": {**TEXT, "labels": "@numbers"},
    },
}


def make_inputs() -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 10, dtype=torch.int64)
    mask[1, 7:] = 0
    mask[2, :3] = 0
    input_ids = torch.randint(1, 61, (3, 10)) * mask
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "labels": torch.where(mask == 1, input_ids, -100),
        "class_labels": torch.tensor([2, 0, 1]),
        "multi_labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
        "numbers": torch.tensor([0.3, -1.2, 2.0]),
    }


def flatten(name: str, value: object) -> dict[str, np.ndarray]:
    if isinstance(value, torch.Tensor):
        return {name: value.detach().numpy()}
    return {f"{name}.{i}": item.detach().numpy() for i, item in enumerate(value)}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(0)
    inputs = make_inputs()
    body = transformers.LlamaForCausalLM(LlamaConfig(**BASE))
    weights = {k: torch.randn_like(v) * 0.2 + (v == 1) for k, v in body.state_dict().items()}
    expected: dict[str, np.ndarray] = {}
    for case, spec in CASES.items():
        config = LlamaConfig(**BASE, **spec.get("config", {}), attn_implementation="eager")
        model = getattr(transformers, spec["class"])(config).eval()
        own = model.state_dict()
        for name in own:
            shared = name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
            key = shared if shared in weights else f"{case}|{name}"
            if config.tie_word_embeddings and name == "lm_head.weight":
                key = "model.embed_tokens.weight"
            weights.setdefault(key, torch.randn_like(own[name]) * 0.2)
            own[name] = weights[key]
        model.load_state_dict(own)
        given = {k: inputs[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items()}
        with torch.no_grad():
            output = model(**given, use_cache=False)
        for name, value in output.items():
            expected |= flatten(f"{case}/{name}", value)
    save_file({k: v.contiguous() for k, v in weights.items()}, HERE / "model.safetensors", metadata={"format": "pt"})
    (HERE / "model.safetensors").chmod(0o644)
    (HERE / "cases.json").write_text(json.dumps({"base": BASE, "cases": CASES}, indent=2, sort_keys=True) + "\n")
    np.savez_compressed(HERE / "inputs.npz", **{k: v.numpy() for k, v in inputs.items()})
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
