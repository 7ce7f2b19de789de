"""What the Gemma models have of their own: scaled embeddings, norms that are offsets, caps, two rotary bases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_gemma, tiny_gemma2, tiny_gemma3

from pretrained import AutoConfig, Gemma2ForCausalLM, Gemma2Model, Gemma3ForCausalLM, Gemma3TextModel, GemmaModel
from pretrained.errors import InvalidOptionError
from pretrained.pt.attention import attend, eager
from pretrained.pt.layers import OffsetRMSNorm, ScaledEmbedding, init_normal, soft_cap

SLIDING, FULL = "sliding_attention", "full_attention"


def text(length: int = 9) -> torch.Tensor:
    return torch.randint(1, 61, (2, length), generator=torch.Generator().manual_seed(1))


# Layers


def test_norm_begins_as_no_scale_at_all() -> None:
    norm, x = OffsetRMSNorm(5, 1e-6), torch.randn(3, 5)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm(x), expected)
    with torch.no_grad():
        norm.weight.fill_(0.5)
    torch.testing.assert_close(norm(x), 1.5 * expected)
    init_normal(norm, 0.02)
    assert not norm.weight.any()
    assert repr(norm) == "OffsetRMSNorm(5, eps=1e-06)"


def test_norm_is_wide_to_the_end() -> None:
    """A scale near one is lost in bfloat16 if it is rounded before it is used."""
    norm = OffsetRMSNorm(64, 1e-6).to(torch.bfloat16)
    with torch.no_grad():
        norm.weight.fill_(2**-9)
    x = torch.randn(8, 64).to(torch.bfloat16)
    wide = x.float() / (x.float().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.equal(norm(x), (wide * (1 + 2**-9)).to(torch.bfloat16))


def test_embeddings_are_scaled_by_a_rounded_constant() -> None:
    layer = ScaledEmbedding(7, 4, 0, 3072**0.5)
    torch.testing.assert_close(layer(torch.tensor([3])), layer.weight[3:4] * 3072**0.5)
    half = layer.to(torch.bfloat16)
    assert torch.equal(half(torch.tensor([3])), half.weight[3:4] * 55.5)
    assert half.embed_scale.dtype == torch.float32 and "embed_scale" not in half.state_dict()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_capped_scores(attention: str) -> None:
    query, key, value = torch.randn(3, 2, 4, 5, 6).unbind(0)
    scores = torch.tanh(query @ key.transpose(2, 3) * 0.7 / 2.0) * 2.0
    found, weights = attend(attention, query, key, value, scale=0.7, softcap=2.0)
    torch.testing.assert_close(found, scores.softmax(-1) @ value)
    assert weights is None
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    causal = scores.masked_fill(future, -torch.inf).softmax(-1)
    torch.testing.assert_close(eager(query, key, value, scale=0.7, softcap=2.0, causal=True)[1], causal)
    assert attend(attention, query, key, value, scale=0.7, softcap=2.0, need_weights=True)[1] is not None
    assert torch.equal(soft_cap(scores, None), scores)


# Gemma


def test_the_old_name_of_the_activation() -> None:
    torch.manual_seed(0)
    one = GemmaModel(tiny_gemma(hidden_act="gelu")).eval()
    torch.manual_seed(0)
    other = GemmaModel(tiny_gemma(hidden_act="gelu_pytorch_tanh")).eval()
    assert torch.equal(one(text())[0], other(text())[0])
    assert one.config.hidden_act == "gelu"


# Gemma 2


def test_layers_slide_in_turn() -> None:
    assert [layer.window for layer in Gemma2Model(tiny_gemma2(num_hidden_layers=5)).layers] == [4, None, 4, None, 4]
    assert [layer.window for layer in Gemma2Model(tiny_gemma2(layer_types=[FULL, SLIDING, FULL])).layers] == [
        None,
        4,
        None,
    ]


def test_sdpa_is_refused_where_scores_are_capped(tmp_path: Path) -> None:
    Gemma2Model(tiny_gemma2()).save_pretrained(tmp_path)
    assert Gemma2Model.from_pretrained(tmp_path).config._attn_implementation == "eager"
    with pytest.raises(InvalidOptionError, match="Gemma2Model computes attention itself; it has only 'eager'"):
        Gemma2Model.from_pretrained(tmp_path, attn_implementation="sdpa")


def test_logits_are_capped() -> None:
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(tiny_gemma2(final_logit_softcapping=0.01))
    assert model(text()).logits.abs().max() <= 0.01


# Gemma 3


def test_every_so_many_layers_are_full() -> None:
    model = Gemma3TextModel(tiny_gemma3(num_hidden_layers=7, sliding_window_pattern=3))
    assert [layer.window for layer in model.layers] == [4, 4, None, 4, 4, None, 4]
    assert [layer.kind for layer in model.layers][:3] == [SLIDING, SLIDING, FULL]
    assert [name for name, _ in model.rotary_emb.named_children()] == [FULL, SLIDING]
    only = Gemma3TextModel(tiny_gemma3(layer_types=[SLIDING] * 3))
    assert [name for name, _ in only.rotary_emb.named_children()] == [SLIDING]


def test_both_spellings_of_two_bases(tmp_path: Path) -> None:
    old: dict[str, Any] = {
        "rope_theta": 5000.0,
        "rope_local_base_freq": 300.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    new = {
        "rope_parameters": {
            FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            SLIDING: {"rope_type": "default", "rope_theta": 300.0},
        }
    }
    found = []
    for settings in (old, new):
        config = tiny_gemma3(**settings)
        assert (config.rope_theta, config.rope_local_base_freq) == (5000.0, 300.0)
        assert config.rope_scaling == old["rope_scaling"]
        torch.manual_seed(0)
        found.append(Gemma3TextModel(config).eval()(text())[0])
        config.save_pretrained(tmp_path)
        assert AutoConfig.from_pretrained(tmp_path).rope_settings == config.rope_settings
    assert torch.equal(*found)
    defaults = type(tiny_gemma3())().rope_settings
    assert (defaults[FULL]["rope_theta"], defaults[SLIDING]["rope_theta"]) == (1e6, 1e4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_tokens_see_both_ways(attention: str) -> None:
    config = tiny_gemma3(num_hidden_layers=1, use_bidirectional_attention=True, attn_implementation=attention)
    assert config.window == 3 and config.to_dict()["sliding_window"] == 4
    torch.manual_seed(0)
    model, ids = Gemma3TextModel(config).eval(), text(8)[:1]
    other = ids.clone()
    other[0, 3] = ids[0, 3] % 60 + 1
    with torch.no_grad():
        difference = (model(ids)[0] - model(other)[0]).abs().amax(-1)[0]
    assert (difference > 1e-4).tolist() == [False, True, True, True, True, True, False, False]


def test_logits_of_gemma_3_can_be_capped() -> None:
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(tiny_gemma3(final_logit_softcapping=0.01))
    assert model(text()).logits.abs().max() <= 0.01
