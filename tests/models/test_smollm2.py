"""The published SmolLM2-135M-Instruct, 4 bits a weight in a GGUF, says what it should and survives a save."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pretrained import AutoConfig, AutoModelForCausalLM
from pretrained.cli.command import Where
from pretrained.cli.tokenizing import load_tokenizer

# <|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n
PROMPT = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
ANSWER = [504, 3575, 282, 4649, 314, 7042, 30, 2]  # The capital of France is Paris.<|im_end|>


@pytest.fixture(scope="module")
def model(smollm2: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(smollm2)


def answer(model: torch.nn.Module) -> list[int]:
    """The likeliest tokens, one after the other, each seen through the cache."""
    found: list[int] = []
    tokens, past = torch.tensor([PROMPT]), None
    with torch.no_grad():
        while len(found) < 12 and found[-1:] != [2]:
            output = model(tokens, past_key_values=past, use_cache=True)
            past = output.past_key_values
            tokens = output.logits[:, -1:].argmax(-1)
            found.append(int(tokens))
    return found


def test_config(smollm2: Path) -> None:
    config = AutoConfig.from_pretrained(smollm2)
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("llama", 576, 30)
    assert (config.num_attention_heads, config.num_key_value_heads, config.vocab_size) == (9, 3, 49152)
    assert config.tie_word_embeddings and config.eos_token_id == 2


def test_it_answers(model: torch.nn.Module) -> None:
    assert model.dtype == torch.float32 and model.num_parameters() == 134_515_008
    assert answer(model) == ANSWER


def test_saved_as_safetensors_it_is_the_same(model: torch.nn.Module, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, durable=False)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    state = model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert again.config.rope_theta == model.config.rope_theta
    assert answer(again) == ANSWER


def test_its_own_tokenizer(model, smollm2):
    """A question in its chat template, read and written by the tokenizer in the file."""
    where = Where()
    tokenizer = load_tokenizer(where.snapshot(str(smollm2)), where.weights)
    asked = tokenizer.chat([{"role": "user", "content": "What is the capital of France?"}])
    ids = torch.tensor([tokenizer.encode(asked, has_special=True)])
    found = model.generate(ids, max_new_tokens=16)
    assert tokenizer.decode(found[0, ids.shape[1] :].tolist()) == "The capital of France is Paris."
