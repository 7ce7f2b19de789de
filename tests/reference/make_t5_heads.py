"""Writes t5_heads/: one set of tiny T5 weights, and what every head makes of it, with losses.

Run once with transformers 5.23.0: `python make_t5_heads.py`. Laid out as bert_heads/ is; what a case's config gives
another shape is stored under `case|name`. The release ties the logits to the word embeddings whatever the config says,
so models that are untied get a projection of their own here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import T5Config

HERE = Path(__file__).parent / "t5_heads"
BASE = {
    "vocab_size": 61,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}
TEXT = {"input_ids": "@input_ids", "attention_mask": "@attention_mask"}
BOTH = {**TEXT, "decoder_input_ids": "@decoder_input_ids", "decoder_attention_mask": "@decoder_attention_mask"}
ENDED = {"input_ids": "@ended_ids", "attention_mask": "@ended_mask"}
ALL = {"output_attentions": True, "output_hidden_states": True}
CASES: dict[str, dict] = {
    "model": {"class": "T5Model", "inputs": {**BOTH, **ALL}},
    "model-embeds": {
        "class": "T5Model",
        "inputs": {
            "inputs_embeds": "@inputs_embeds",
            "attention_mask": "@attention_mask",
            "decoder_inputs_embeds": "@decoder_inputs_embeds",
        },
    },
    "model-deep-decoder": {
        "class": "T5Model",
        "config": {"num_decoder_layers": 3},
        "inputs": {**BOTH, "output_hidden_states": True},
    },
    "model-many-buckets": {
        "class": "T5Model",
        "config": {"relative_attention_num_buckets": 14, "relative_attention_max_distance": 128},
        "inputs": BOTH,
    },
    "generation": {"class": "T5ForConditionalGeneration", "inputs": {**TEXT, "labels": "@labels"}},
    "generation-given": {"class": "T5ForConditionalGeneration", "inputs": {**BOTH, "labels": "@labels"}},
    "generation-gated": {
        "class": "T5ForConditionalGeneration",
        "config": {"feed_forward_proj": "gated-gelu"},
        "inputs": {**TEXT, "labels": "@labels"},
    },
    "generation-1.1": {
        "class": "T5ForConditionalGeneration",
        "config": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "inputs": {**TEXT, "labels": "@labels"},
    },
    "generation-silu": {
        "class": "T5ForConditionalGeneration",
        "config": {"feed_forward_proj": "gated-silu", "layer_norm_epsilon": 0.1},
        "inputs": {**TEXT, "labels": "@labels"},
    },
    "encoder": {"class": "T5EncoderModel", "inputs": {**TEXT, **ALL}},
    "single-label": {
        "class": "T5ForSequenceClassification",
        "config": {"num_labels": 3},
        "inputs": {**ENDED, "labels": "@class_labels"},
    },
    "multi-label": {
        "class": "T5ForSequenceClassification",
        "config": {"num_labels": 3},
        "inputs": {**ENDED, "labels": "@multi_labels"},
    },
    "regression": {
        "class": "T5ForSequenceClassification",
        "config": {"num_labels": 1},
        "inputs": {**ENDED, "labels": "@numbers"},
    },
    "token": {
        "class": "T5ForTokenClassification",
        "config": {"num_labels": 5},
        "inputs": {**TEXT, "labels": "@tag_labels"},
    },
    "answer": {
        "class": "T5ForQuestionAnswering",
        "inputs": {**TEXT, "start_positions": "@starts", "end_positions": "@ends"},
    },
    "answer-given": {"class": "T5ForQuestionAnswering", "inputs": BOTH},
}


def make_inputs() -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 20, dtype=torch.int64)
    mask[1, 14:] = 0
    mask[2, :4] = 0
    input_ids = torch.randint(2, 61, (3, 20)) * mask
    decoder_mask = torch.ones(3, 14, dtype=torch.int64)
    decoder_mask[1, 11:] = 0
    decoder_ids = torch.randint(2, 61, (3, 14)) * decoder_mask
    tag_labels = torch.randint(0, 5, (3, 20))
    tag_labels[mask == 0] = -100
    ended = torch.randint(2, 61, (3, 9))
    ends = torch.tensor([8, 5, 6])
    ended[torch.arange(3), ends] = 1
    ended_mask = (torch.arange(9) <= ends[:, None]).long()
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "decoder_input_ids": decoder_ids,
        "decoder_attention_mask": decoder_mask,
        "inputs_embeds": torch.randn(3, 20, 16) * 0.3,
        "decoder_inputs_embeds": torch.randn(3, 14, 16) * 0.3,
        "labels": torch.where(decoder_mask == 1, torch.randint(2, 61, (3, 14)), -100),
        "tag_labels": tag_labels,
        "ended_ids": ended * ended_mask,
        "ended_mask": ended_mask,
        "class_labels": torch.tensor([2, 0, 1]),
        "multi_labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
        "numbers": torch.tensor([0.3, -1.2, 2.0]),
        "starts": torch.tensor([1, 12, 4]),
        "ends": torch.tensor([4, 3, 40]),
    }


def flatten(name: str, value: object) -> dict[str, np.ndarray]:
    if isinstance(value, torch.Tensor):
        return {name: value.detach().numpy()}
    return {f"{name}.{i}": item.detach().numpy() for i, item in enumerate(value)}


def fill(model: torch.nn.Module, case: str, is_tied: bool, weights: dict[str, torch.Tensor]) -> None:
    """Gives the model the shared weights; what is its own is drawn and noted."""
    if not is_tied:
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    own = model.state_dict()
    for name in own:
        plain = name.removeprefix("transformer.")
        if plain.endswith("embed_tokens.weight") or (plain == "lm_head.weight" and is_tied):
            plain = "shared.weight"
        key = plain
        if key not in weights or weights[key].shape != own[name].shape:
            key = f"{case}|{name}"
            weights[key] = torch.randn_like(own[name]) * 0.3 + (1 if "layer_norm" in name else 0)
        own[name] = weights[key]
    model.load_state_dict(own)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(0)
    inputs = make_inputs()
    body = transformers.T5Model(T5Config(**BASE))
    weights = {
        k: torch.randn_like(v) * 0.3 + (1 if "layer_norm" in k else 0)
        for k, v in body.state_dict().items()
        if "embed_tokens" not in k
    }
    expected: dict[str, np.ndarray] = {}
    for case, spec in CASES.items():
        changes = spec.get("config", {})
        config = T5Config(**BASE | changes, attn_implementation="eager")
        model = getattr(transformers, spec["class"])(config).eval()
        fill(model, case, changes.get("tie_word_embeddings", True), weights)
        given = {k: inputs[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items()}
        with torch.no_grad():
            output = model(**given)
        for name, value in output.items():
            if name != "past_key_values":
                expected |= flatten(f"{case}/{name}", value)
    save_file({k: v.contiguous() for k, v in weights.items()}, HERE / "model.safetensors", metadata={"format": "pt"})
    (HERE / "model.safetensors").chmod(0o644)
    (HERE / "cases.json").write_text(json.dumps({"base": BASE, "cases": CASES}, indent=2, sort_keys=True) + "\n")
    np.savez_compressed(HERE / "inputs.npz", **{k: v.numpy() for k, v in inputs.items()})
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
