"""Small models under which a text goes on in more than one way, and prompts for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[2] / "models"))

from generation_cases import draw_weights, prompt_for
from tiny import TINY, find_class

__all__ = ["BATCH", "ONE", "PADDED", "TINY", "generate", "model_of"]

BATCH, PADDED, ONE = (prompt_for(kind, 61, False) for kind in ("batch", "padded", "one"))
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "t5": "T5ForConditionalGeneration",
    "bert": "BertLMHeadModel",
    "roberta": "RobertaForCausalLM",
}


def model_of(family: str = "llama", seed: int = 1, **changes: Any) -> Any:
    """A model of the family, in eval mode, whose weights `seed` decides."""
    if family in ("bert", "roberta"):
        changes = {"is_decoder": True, "max_position_embeddings": 40, **changes}
    model = find_class(family, _CLASSES[family])(TINY[family](**changes)).eval()
    draw_weights(model, seed)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    if family == "t5":
        model.generation_config.decoder_start_token_id = 0
    return model


def generate(model: Any, prompt: dict[str, torch.Tensor], /, **settings: Any) -> Any:
    """What the model writes after the prompt; 10 tokens unless the settings say otherwise."""
    return model.generate(**prompt, **{"max_new_tokens": 10, **settings})
