"""Writes distilbert_heads/: tiny DistilBERT weights, and what every head makes of them.

Run once with transformers 5.23.0: `python make_distilbert_heads.py`. The table of sinusoidal positions is what a fresh
model has.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from _make import choice_inputs, classification_cases, text_labels, write
from transformers import DistilBertConfig, DistilBertModel

PAD, VOCAB = 0, 71
BASE = {
    "vocab_size": VOCAB,
    "dim": 24,
    "hidden_dim": 30,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 20,
    "initializer_range": 0.15,
}
TEXT = {"input_ids": "@input_ids", "attention_mask": "@attention_mask"}
CASES: dict[str, dict] = {
    "model": {
        "class": "DistilBertModel",
        "inputs": {**TEXT, "output_attentions": True, "output_hidden_states": True},
    },
    "model-embeds": {"class": "DistilBertModel", "inputs": {"inputs_embeds": "@inputs_embeds"}},
    "model-mask4d": {"class": "DistilBertModel", "inputs": {**TEXT, "attention_mask": "@mask_4d"}},
    "model-positions": {"class": "DistilBertModel", "inputs": {**TEXT, "position_ids": "@position_ids"}},
    "masked-lm": {"class": "DistilBertForMaskedLM", "inputs": {**TEXT, "labels": "@token_labels"}},
    "masked-lm-relu": {
        "class": "DistilBertForMaskedLM",
        "config": {"activation": "relu", "tie_word_embeddings": False},
        "inputs": {**TEXT, "labels": "@token_labels"},
    },
    **classification_cases("DistilBert", TEXT),
    "choice": {
        "class": "DistilBertForMultipleChoice",
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
        "input_ids": torch.where(mask == 1, torch.randint(1, VOCAB, (3, 9)), PAD),
        "attention_mask": mask,
        "mask_4d": (1.0 - visible[:, None].float()) * torch.finfo(torch.float32).min,
        "position_ids": torch.randint(0, 20, (3, 9)),
        "inputs_embeds": torch.randn(3, 9, 24),
        **text_labels(mask, VOCAB, 5),
        **choice_inputs(VOCAB, PAD),
    }
    folder = Path(__file__).parent / "distilbert_heads"
    write(folder, DistilBertConfig, BASE, CASES, inputs)
    fresh = DistilBertModel(DistilBertConfig(**BASE, sinusoidal_pos_embds=True))
    np.save(folder / "sinusoids.npy", fresh.embeddings.position_embeddings.weight.detach().numpy())


if __name__ == "__main__":
    main()
