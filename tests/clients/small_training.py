"""Small models, batches and comparisons for tests that let other people's tools loose on our models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tests.models.tiny import tiny_bert, tiny_llama
from torch import Tensor
from torch.utils.data import Dataset

from pretrained import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, PreTrainedModel

KINDS: Mapping[str, tuple[Any, Callable[[], Any]]] = {
    "classes": (AutoModelForSequenceClassification, tiny_bert),
    "tied": (AutoModelForMaskedLM, tiny_bert),
    "decoder": (AutoModelForCausalLM, lambda: tiny_llama(tie_word_embeddings=True)),
}


class Rows(Dataset[dict[str, Tensor]]):
    """Twelve rows of tokens; labels are the tokens, or a class for each row."""

    def __init__(self, kind: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(2, 60, (12, 7), generator=generator)
        self.labels = torch.arange(12) % 2 if kind == "classes" else self.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "input_ids": self.ids[index],
            "attention_mask": torch.ones_like(self.ids[index]),
            "labels": self.labels[index],
        }


def fresh(kind: str, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    auto, config = KINDS[kind]
    return auto.from_config(config())


def values_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())
