"""Writes gpt2_heads/: one set of tiny GPT-2 weights, and what every head makes of it, with losses.

Run once with transformers 5.23.0: `python make_gpt2_heads.py`. Laid out as bert_heads/ is; what a case's config gives
another shape is stored under `case|name` too.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import GPT2Config

HERE = Path(__file__).parent / "gpt2_heads"
BASE = {
    "vocab_size": 61,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 20,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEXT = {"input_ids": "@input_ids", "attention_mask": "@attention_mask"}
ENCODER = {
    "encoder_hidden_states": "@encoder_hidden_states",
    "encoder_attention_mask": "@encoder_attention_mask",
}
# Types other than "cls_index" take the wrong axis of inputs with choices in that release.
PLAIN = {"input_ids": "@input_ids"}
CHOICES = {"input_ids": "@choice_ids", "labels": "@choice_labels", "mc_labels": "@right_choices"}
CASES: dict[str, dict] = {
    "model": {"class": "GPT2Model", "inputs": {**TEXT, "output_attentions": True, "output_hidden_states": True}},
    "model-positions": {
        "class": "GPT2Model",
        "inputs": {**TEXT, "position_ids": "@position_ids", "token_type_ids": "@token_type_ids"},
    },
    "model-embeds": {
        "class": "GPT2Model",
        "inputs": {"inputs_embeds": "@inputs_embeds", "attention_mask": "@attention_mask"},
    },
    "model-mask4d": {"class": "GPT2Model", "inputs": {**TEXT, "attention_mask": "@mask_4d"}},
    "model-unscaled": {"class": "GPT2Model", "config": {"scale_attn_weights": False}, "inputs": TEXT},
    "model-by-layer": {
        "class": "GPT2Model",
        "config": {"scale_attn_by_inverse_layer_idx": True},
        "inputs": {**TEXT, "output_attentions": True},
    },
    "model-upcast": {
        "class": "GPT2Model",
        "config": {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
        "inputs": {**TEXT, "output_attentions": True},
    },
    "model-inner": {
        "class": "GPT2Model",
        "config": {"n_inner": 30, "activation_function": "silu", "layer_norm_epsilon": 0.1},
        "inputs": TEXT,
    },
    "causal-lm": {"class": "GPT2LMHeadModel", "inputs": {**TEXT, "labels": "@labels"}},
    "causal-lm-items": {
        "class": "GPT2LMHeadModel",
        "inputs": {**TEXT, "labels": "@labels", "num_items_in_batch": 11},
    },
    "causal-lm-untied": {
        "class": "GPT2LMHeadModel",
        "config": {"tie_word_embeddings": False},
        "inputs": {**TEXT, "labels": "@labels"},
    },
    "causal-lm-last": {"class": "GPT2LMHeadModel", "inputs": {**TEXT, "logits_to_keep": 3}},
    "causal-lm-crossed": {
        "class": "GPT2LMHeadModel",
        "config": {"add_cross_attention": True},
        "inputs": {**TEXT, **ENCODER, "labels": "@labels", "output_attentions": True},
    },
    "model-crossed-upcast": {
        "class": "GPT2Model",
        "config": {
            "add_cross_attention": True,
            "reorder_and_upcast_attn": True,
            "scale_attn_by_inverse_layer_idx": True,
        },
        "inputs": {**TEXT, **ENCODER},
    },
    "double": {
        "class": "GPT2DoubleHeadsModel",
        "inputs": {**CHOICES, "mc_token_ids": "@choice_places", "attention_mask": "@choice_mask"},
    },
    "double-last": {
        "class": "GPT2DoubleHeadsModel",
        "config": {"summary_activation": "tanh"},
        "inputs": CHOICES,
    },
    "double-mean": {"class": "GPT2DoubleHeadsModel", "config": {"summary_type": "mean"}, "inputs": PLAIN},
    "double-first": {"class": "GPT2DoubleHeadsModel", "config": {"summary_type": "first"}, "inputs": PLAIN},
    "double-type-last": {"class": "GPT2DoubleHeadsModel", "config": {"summary_type": "last"}, "inputs": PLAIN},
    "double-wide": {
        "class": "GPT2DoubleHeadsModel",
        "config": {"summary_proj_to_labels": False},
        "inputs": {"input_ids": "@choice_ids"},
    },
    "single-label": {
        "class": "GPT2ForSequenceClassification",
        "config": {"num_labels": 3},
        "inputs": {**TEXT, "labels": "@class_labels"},
    },
    "multi-label": {
        "class": "GPT2ForSequenceClassification",
        "config": {"num_labels": 3},
        "inputs": {**TEXT, "labels": "@multi_labels"},
    },
    "regression": {
        "class": "GPT2ForSequenceClassification",
        "config": {"num_labels": 1},
        "inputs": {**TEXT, "labels": "@numbers"},
    },
    "token": {
        "class": "GPT2ForTokenClassification",
        "config": {"num_labels": 5},
        "inputs": {**TEXT, "labels": "@tag_labels"},
    },
    "answer": {
        "class": "GPT2ForQuestionAnswering",
        "inputs": {**TEXT, "start_positions": "@starts", "end_positions": "@ends"},
    },
}


def make_inputs() -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 10, dtype=torch.int64)
    mask[1, 7:] = 0
    mask[2, :3] = 0
    input_ids = torch.randint(1, 61, (3, 10)) * mask
    tag_labels = torch.randint(0, 5, (3, 10))
    tag_labels[mask == 0] = -100
    visible = ((torch.rand(3, 10, 10) < 0.7) & torch.ones(10, 10, dtype=torch.bool).tril()) | torch.eye(10).bool()
    choice_ids = torch.randint(1, 61, (2, 3, 6))
    choice_mask = torch.ones_like(choice_ids)
    choice_mask[0, 1, 4:] = 0
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "mask_4d": (1.0 - visible[:, None].float()) * torch.finfo(torch.float32).min,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "token_type_ids": torch.randint(0, 61, (3, 10)),
        "inputs_embeds": torch.randn(3, 10, 24) * 0.2,
        "encoder_hidden_states": torch.randn(3, 5, 24),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
        "labels": torch.where(mask == 1, input_ids, -100),
        "tag_labels": tag_labels,
        "class_labels": torch.tensor([2, 0, 1]),
        "multi_labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
        "numbers": torch.tensor([0.3, -1.2, 2.0]),
        "starts": torch.tensor([1, 12, 4]),
        "ends": torch.tensor([4, 3, 40]),
        "choice_ids": choice_ids,
        "choice_mask": choice_mask,
        "choice_labels": torch.where(choice_mask == 1, choice_ids, -100),
        "choice_places": torch.tensor([[5, 3, 4], [0, 5, 5]]),
        "right_choices": torch.tensor([2, 0]),
    }


def flatten(name: str, value: object) -> dict[str, np.ndarray]:
    if isinstance(value, torch.Tensor):
        return {name: value.detach().numpy()}
    return {f"{name}.{i}": item.detach().numpy() for i, item in enumerate(value)}


def fill(model: torch.nn.Module, case: str, weights: dict[str, torch.Tensor]) -> None:
    """Gives the model the shared weights; what is its own is drawn and noted."""
    own = model.state_dict()
    for name in own:
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            own[name] = own["transformer.wte.weight"]
            continue
        key = name if name.startswith("transformer.") else f"transformer.{name}"
        if key not in weights or weights[key].shape != own[name].shape:
            key = f"{case}|{name}"
            weights[key] = torch.randn_like(own[name]) * 0.2
        own[name] = weights[key]
    model.load_state_dict(own)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(0)
    inputs = make_inputs()
    # The richest body first: every other model takes its part of these weights.
    body = transformers.GPT2Model(GPT2Config(**BASE, add_cross_attention=True))
    weights = {f"transformer.{k}": torch.randn_like(v) * 0.2 + (v == 1) for k, v in body.state_dict().items()}
    expected: dict[str, np.ndarray] = {}
    for case, spec in CASES.items():
        config = GPT2Config(**BASE | spec.get("config", {}), attn_implementation="eager")
        model = getattr(transformers, spec["class"])(config).eval()
        fill(model, case, weights)
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
