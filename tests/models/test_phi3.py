"""Phi-3: frequencies that depend on the length, fused projections."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_phi3

from pretrained.errors import ConfigError, InvalidOptionError
from pretrained.models.phi3.modeling_phi3 import Phi3ForCausalLM, Phi3Model
from pretrained.pt.kv_cache import KVCache, StaticKVCache

LONG = {"short_factor": [1.0, 1.3, 2.0], "long_factor": [2.0, 3.5, 5.0]}


def make(**changes: Any) -> Phi3ForCausalLM:
    torch.manual_seed(0)
    settings = {"partial_rotary_factor": None, "original_max_position_embeddings": 8, "sliding_window": None}
    return Phi3ForCausalLM(tiny_phi3(**settings | changes)).eval()


def long(**changes: Any) -> Phi3ForCausalLM:
    return make(rope_parameters={"rope_type": "longrope", "rope_theta": 1000.0, **LONG}, **changes)


def text(length: int) -> torch.Tensor:
    return torch.randint(1, 61, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["longrope", "su", "yarn"])
def test_names_of_the_scaling(kind: str) -> None:
    model = make(rope_scaling={"type": kind, **LONG}, rope_theta=1000.0)
    assert model.model.rotary_emb.settings["rope_type"] == "longrope"
    torch.testing.assert_close(model(text(12)).logits, long()(text(12)).logits)


def test_factors_have_a_number_for_each_frequency() -> None:
    with pytest.raises(ConfigError, match="longrope factors must be 2 numbers, found 3"):
        long(partial_rotary_factor=0.67)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_keys_are_computed_anew_where_the_frequencies_change(kind: str) -> None:
    model, ids = long(), text(11)
    cache: Any = KVCache() if kind == "dynamic" else StaticKVCache(3, 2, 2, 16, 6)
    sizes = []
    with torch.no_grad():
        for end in (6, 7, 8, 9, 10, 11):
            step = model.prepare_inputs_for_generation(ids[:, :end], past_key_values=cache)
            sizes.append(step["input_ids"].shape[1])
            found = model(**step, use_cache=True).logits[:, -1]
            torch.testing.assert_close(found, model(ids[:, :end]).logits[:, -1], atol=1e-5, rtol=1e-5)
    assert sizes == [6, 1, 1, 9, 1, 1]


def test_other_frequencies_go_on_with_their_cache() -> None:
    model, ids, cache = make(), text(11), KVCache()
    with torch.no_grad():
        model(ids[:, :8], past_key_values=cache)
    assert model.prepare_inputs_for_generation(ids[:, :9], past_key_values=cache)["input_ids"].shape == (2, 1)


def test_rows_of_the_fused_projection() -> None:
    model = Phi3Model(tiny_phi3())
    attention = model.layers[0].self_attn
    weight = attention.qkv_proj.weight.detach().clone()
    assert weight.shape == (10 * 6, 24)
    with pytest.raises(InvalidOptionError, match=r"every 3 heads share .* heads \[5\] would be left over"):
        model.prune_heads({0: [3, 4]})
    model.prune_heads({0: [3, 4, 5]})
    kept = [*range(18), *range(36, 42), *range(48, 54)]
    assert torch.equal(attention.qkv_proj.weight, weight[kept])
    model.prune_heads({0: [0, 1, 2]})
    assert attention.qkv_proj.weight.shape == (0, 24)
    assert torch.isfinite(model(text(4)).last_hidden_state).all()


def test_dropout_of_what_a_half_adds() -> None:
    model, ids = make(resid_pdrop=0.5).train(), text(6)
    torch.manual_seed(1)
    one, other = model(ids).logits, model(ids).logits
    assert not torch.equal(one, other)
    assert torch.equal(model.eval()(ids).logits, model(ids).logits)
