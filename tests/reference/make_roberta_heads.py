"""Writes roberta_heads/: tiny RoBERTa weights, and what every head makes of them. `python make_roberta_heads.py`."""

from __future__ import annotations

from pathlib import Path

import torch
from _make import choice_inputs, classification_cases, text_labels, write
from transformers import RobertaConfig

PAD, VOCAB = 1, 71
BASE = {
    "vocab_size": VOCAB,
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
CROSSED = {
    "encoder_hidden_states": "@encoder_hidden_states",
    "encoder_attention_mask": "@encoder_attention_mask",
    "output_attentions": True,
}
CASES: dict[str, dict] = {
    # The richest body first: every other model takes its part of these weights.
    "model-crossed": {"class": "RobertaModel", "config": DECODER, "inputs": {**TEXT, **CROSSED}},
    "model": {
        "class": "RobertaModel",
        "inputs": {**TEXT, "output_attentions": True, "output_hidden_states": True},
    },
    "model-ids": {"class": "RobertaModel", "inputs": {"input_ids": "@input_ids"}},
    "model-embeds": {"class": "RobertaModel", "inputs": {"inputs_embeds": "@inputs_embeds"}},
    "model-mask4d": {"class": "RobertaModel", "inputs": {**TEXT, "attention_mask": "@mask_4d"}},
    "model-positions": {"class": "RobertaModel", "inputs": {**TEXT, "position_ids": "@position_ids"}},
    "masked-lm": {"class": "RobertaForMaskedLM", "inputs": {**TEXT, "labels": "@token_labels"}},
    "masked-lm-relu": {
        "class": "RobertaForMaskedLM",
        "config": {"hidden_act": "relu"},
        "inputs": {**TEXT, "labels": "@token_labels"},
    },
    "causal-lm": {
        "class": "RobertaForCausalLM",
        "config": {"is_decoder": True},
        "inputs": {**TEXT, "labels": "@input_ids"},
    },
    "causal-lm-crossed": {
        "class": "RobertaForCausalLM",
        "config": DECODER,
        "inputs": {**TEXT, **CROSSED, "labels": "@token_labels"},
    },
    **classification_cases("Roberta", TEXT),
    "choice": {
        "class": "RobertaForMultipleChoice",
        "inputs": {"input_ids": "@choice_ids", "attention_mask": "@choice_mask", "labels": "@choice_labels"},
    },
}


def main() -> None:
    torch.manual_seed(0)
    mask = torch.ones(3, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    mask[2, :2] = 0
    visible = (torch.rand(3, 9, 9) < 0.7) | torch.eye(9, dtype=torch.bool)
    inputs = {
        "input_ids": torch.where(mask == 1, torch.randint(2, VOCAB, (3, 9)), PAD),
        "attention_mask": mask,
        "mask_4d": (1.0 - visible[:, None].float()) * torch.finfo(torch.float32).min,
        "token_type_ids": torch.randint(0, 2, (3, 9)),
        "position_ids": torch.randint(0, 20, (3, 9)),
        "inputs_embeds": torch.randn(3, 9, 24),
        "encoder_hidden_states": torch.randn(3, 5, 24),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
        **text_labels(mask, VOCAB, 5),
        **choice_inputs(VOCAB, PAD),
    }
    write(Path(__file__).parent / "roberta_heads", RobertaConfig, BASE, CASES, inputs)


if __name__ == "__main__":
    main()
