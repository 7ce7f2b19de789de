"""Every JAX class that generates gives torch's tokens, from a batch that is padded on the left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flax_cases import CASES, FlaxCase

GENERATING = [case for case in CASES if case.cls.can_generate()]
PROMPT = np.array([[7, 8, 9, 10, 11], [0, 0, 12, 13, 14]])
MASK = (PROMPT != 0).astype(np.int64)


@pytest.mark.parametrize("case", GENERATING, ids=str)
def test_tokens_are_torchs(case: FlaxCase) -> None:
    theirs = case.torch.shared
    settings = {"max_new_tokens": 12, "eos_token_id": 5, "pad_token_id": 0, "num_beams": 1}
    for beams in (1, 3) if case.model_type in ("gpt2", "t5") else (1,):
        settings["num_beams"] = beams
        wanted = theirs.generate(torch.tensor(PROMPT), attention_mask=torch.tensor(MASK), **settings).numpy()
        found = np.asarray(case.shared.generate(PROMPT, attention_mask=MASK, **settings).sequences)
        assert found[:, : wanted.shape[1]].tolist() == wanted.tolist()


def test_all_that_should_can() -> None:
    names = {case.cls.__name__ for case in GENERATING}
    assert {"FlaxGPT2LMHeadModel", "FlaxLlamaForCausalLM", "FlaxMistralForCausalLM", "FlaxBertForCausalLM"} <= names
    assert {case.cls.__name__ for case in CASES if case.caches} <= names
