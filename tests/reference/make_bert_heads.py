"""Writes bert_heads/: one set of tiny BERT weights, and what every head makes of it, with losses.

Run once with transformers 5.23.0: `python make_bert_heads.py`. Each case names a class, changes to the config and
inputs; a value `"@name"` is an array of inputs.npz. Weights of heads that differ between cases are stored under
`case|name`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import BertConfig

HERE = Path(__file__).parent / "bert_heads"
BASE = {
    "vocab_size": 71,
    "hidden_size": 24,
    "intermediate_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "initializer_range": 0.15,
}
TEXT = {"input_ids": "@input_ids", "attention_mask": "@attention_mask", "token_type_ids": "@token_type_ids"}
DECODER = {"is_decoder": True, "add_cross_attention": True}
CASES: dict[str, dict] = {
    "model": {
        "class": "BertModel",
        "inputs": {**TEXT, "output_attentions": True, "output_hidden_states": True},
    },
    "model-mask4d": {"class": "BertModel", "inputs": {**TEXT, "attention_mask": "@mask_4d"}},
    "model-positions": {"class": "BertModel", "inputs": {**TEXT, "position_ids": "@position_ids"}},
    "pretraining": {
        "class": "BertForPreTraining",
        "inputs": {**TEXT, "labels": "@token_labels", "next_sentence_label": "@pair_labels"},
    },
    "masked-lm": {"class": "BertForMaskedLM", "inputs": {**TEXT, "labels": "@token_labels"}},
    "causal-lm": {
        "class": "BertLMHeadModel",
        "config": {"is_decoder": True},
        "inputs": {**TEXT, "labels": "@input_ids"},
    },
    "causal-lm-crossed": {
        "class": "BertLMHeadModel",
        "config": DECODER,
        "inputs": {
            **TEXT,
            "encoder_hidden_states": "@encoder_hidden_states",
            "encoder_attention_mask": "@encoder_attention_mask",
            "labels": "@token_labels",
            "output_attentions": True,
        },
    },
    "next-sentence": {"class": "BertForNextSentencePrediction", "inputs": {**TEXT, "labels": "@pair_labels"}},
    "single-label": {
        "class": "BertForSequenceClassification",
        "config": {"num_labels": 3},
        "inputs": {**TEXT, "labels": "@class_labels"},
    },
    "multi-label": {
        "class": "BertForSequenceClassification",
        "config": {"num_labels": 3},
        "inputs": {**TEXT, "labels": "@multi_labels"},
    },
    "regression": {
        "class": "BertForSequenceClassification",
        "config": {"num_labels": 1},
        "inputs": {**TEXT, "labels": "@numbers"},
    },
    "regression-3": {
        "class": "BertForSequenceClassification",
        "config": {"num_labels": 3, "problem_type": "regression"},
        "inputs": {**TEXT, "labels": "@multi_labels"},
    },
    "token": {
        "class": "BertForTokenClassification",
        "config": {"num_labels": 5},
        "inputs": {**TEXT, "labels": "@tag_labels"},
    },
    "answer": {
        "class": "BertForQuestionAnswering",
        "inputs": {**TEXT, "start_positions": "@starts", "end_positions": "@ends"},
    },
    "choice": {
        "class": "BertForMultipleChoice",
        "inputs": {"input_ids": "@choice_ids", "attention_mask": "@choice_mask", "labels": "@choice_labels"},
    },
}


def make_inputs() -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    mask[2, :2] = 0
    token_labels = torch.randint(0, 71, (3, 9))
    token_labels[torch.rand(3, 9) < 0.6] = -100
    tag_labels = torch.randint(0, 5, (3, 9))
    tag_labels[mask == 0] = -100
    visible = (torch.rand(3, 9, 9) < 0.7) | torch.eye(9, dtype=torch.bool)
    choice_mask = torch.ones(2, 4, 6, dtype=torch.int64)
    choice_mask[0, 1, 4:] = 0
    return {
        "input_ids": torch.randint(1, 71, (3, 9)),
        "attention_mask": mask,
        "mask_4d": (1.0 - visible[:, None].float()) * torch.finfo(torch.float32).min,
        "token_type_ids": torch.randint(0, 2, (3, 9)),
        "position_ids": torch.randint(0, 20, (3, 9)),
        "encoder_hidden_states": torch.randn(3, 5, 24),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
        "token_labels": token_labels,
        "tag_labels": tag_labels,
        "pair_labels": torch.tensor([0, 1, 1]),
        "class_labels": torch.tensor([2, 0, 1]),
        "multi_labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
        "numbers": torch.tensor([0.3, -1.2, 2.0]),
        "starts": torch.tensor([1, 12, 0]),
        "ends": torch.tensor([4, 3, 40]),
        "choice_ids": torch.randint(1, 71, (2, 4, 6)),
        "choice_mask": choice_mask,
        "choice_labels": torch.tensor([3, 0]),
    }


def flatten(name: str, value: object) -> dict[str, np.ndarray]:
    if isinstance(value, torch.Tensor):
        return {name: value.detach().numpy()}
    return {f"{name}.{i}": item.detach().numpy() for i, item in enumerate(value)}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(0)
    inputs = make_inputs()
    # The richest body first: every other model takes its part of these weights.
    body = transformers.BertModel(BertConfig(**BASE, **DECODER))
    weights = {f"bert.{k}": torch.randn_like(v) * 0.2 + (v == 1) for k, v in body.state_dict().items()}
    expected: dict[str, np.ndarray] = {}
    for case, spec in CASES.items():
        config = BertConfig(**BASE, **spec.get("config", {}), attn_implementation="eager")
        model = getattr(transformers, spec["class"])(config).eval()
        own = model.state_dict()
        for name in own:
            shared = name if name.startswith("bert.") else f"bert.{name}"
            key = shared if shared in weights else f"{case}|{name}"
            if key not in weights and "predictions.decoder" not in name:
                weights[key] = torch.randn_like(own[name]) * 0.2
            if key in weights:
                own[name] = weights[key]
        model.load_state_dict(own)
        model.tie_weights()
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
