"""Sentence similarities on published weights, with the tokenizer and a pipeline of transformers around our model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.pt.every_head import build
from torch import Tensor
from transformers import AutoTokenizer, pipeline

from pretrained import AutoModel, AutoModelForMaskedLM


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((Path(__file__).parents[1] / "reference" / "minilm.json").read_text())


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens that are not padding, of unit length: `(batch, hidden)`."""
    weight = mask[..., None].to(states.dtype)
    return torch.nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=1)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_similarities(minilm: Path, expected: dict[str, Any], attention: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModel.from_pretrained(minilm, attn_implementation=attention)
    batch = tokenizer(expected["sentences"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        embeddings = pooled(model(**batch).last_hidden_state, batch["attention_mask"])
    torch.testing.assert_close(embeddings, torch.tensor(expected["embeddings"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(embeddings @ embeddings.T, torch.tensor(expected["similarities"]), rtol=0, atol=1e-5)


def test_fine_tuned_and_loaded_again(minilm: Path, tmp_path: Path) -> None:
    """Mapped weights, trained for a step on their own pages, saved over nothing of the original."""
    content = (minilm / "model.safetensors").read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModel.from_pretrained(minilm).train()
    batch = tokenizer(["a man", "a woman in a park"], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    embeddings = pooled(model(**batch).last_hidden_state, batch["attention_mask"])
    (1 - embeddings[0] @ embeddings[1]).backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    assert AutoTokenizer.from_pretrained(tmp_path)("a man")["input_ids"] == tokenizer("a man")["input_ids"]
    assert (minilm / "model.safetensors").read_bytes() == content


def test_a_fill_mask_pipeline(minilm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = build("bert", "AutoModelForMaskedLM", vocab_size=len(tokenizer))
    assert type(model) is AutoModelForMaskedLM._choose(model.config)[1]
    found = pipeline("fill-mask", model=model, tokenizer=tokenizer)("a [MASK] is eating.", top_k=3)
    batch = tokenizer("a [MASK] is eating.", return_tensors="pt")
    with torch.no_grad():
        scores = model(**batch).logits[0, 2].softmax(-1).topk(3)
    assert [entry["token"] for entry in found] == scores.indices.tolist()
    assert [entry["score"] for entry in found] == pytest.approx(scores.values.tolist(), rel=1e-4)
