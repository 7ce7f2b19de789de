"""Decoders in TensorFlow give torch's tokens, from batches that are padded on the left."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest
import torch
from tf_cases import find_tf
from tiny import REFERENCE, TINY

import pretrained

WRITTEN = [
    (family, name)
    for family in ("gpt2", "llama")
    for name in json.loads((REFERENCE / family / "generate.json").read_text())
    if name.startswith("torch/")
]
CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}
PROMPT = np.array([[7, 8, 9, 10, 11], [1, 1, 12, 13, 14]])
MASK = (PROMPT != 1).astype(np.int64)


@functools.cache
def loaded(family: str) -> Any:
    return find_tf(family, CLASSES[family]).from_pretrained(REFERENCE / family / "torch-safetensors")


@pytest.mark.parametrize(("family", "name"), WRITTEN)
def test_what_the_reference_wrote(family: str, name: str) -> None:
    """By settings; the numbers of tokens are the same in most cases, so they share programs."""
    case = json.loads((REFERENCE / family / "generate.json").read_text())[name]
    with np.load(REFERENCE / family / "inputs.npz") as arrays:
        inputs = dict(arrays)
    found = loaded(family).generate(**inputs, **case["kwargs"])
    assert np.asarray(found).tolist() == case["sequences"]


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("mistral", "MistralForCausalLM"),
        ("qwen2", "Qwen2ForCausalLM"),
        ("gpt2", "GPT2LMHeadModel"),
        ("roberta", "RobertaForCausalLM"),
    ],
)
def test_tokens_are_torchs(model_type: str, name: str) -> None:
    """Through a window that slides, and where positions are counted from another number on; compiled and not."""
    changes = {"is_decoder": True} if model_type == "roberta" else {}
    theirs = getattr(pretrained, name)(TINY[model_type](**changes)).eval()
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    mine = getattr(pretrained, f"TF{name}").from_pretrained(None, config=theirs.config, state_dict=state)
    settings: dict[str, Any] = {"max_new_tokens": 9, "eos_token_id": 5, "pad_token_id": 1, "do_sample": False}
    wanted = theirs.generate(torch.tensor(PROMPT), attention_mask=torch.tensor(MASK), **settings).tolist()
    for jit_compile in (False, True) if model_type != "roberta" else (False,):
        found = mine.generate(PROMPT, attention_mask=MASK, jit_compile=jit_compile, **settings)
        assert np.asarray(found)[:, : len(wanted[0])].tolist() == wanted
