"""A text that comes token by token gives what it gives at once: every JAX class that predicts tokens, with a cache."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax_cases import CASES, FlaxCase

from pretrained.errors import ConfigError, InvalidOptionError, OptionError
from pretrained.flax import attention
from pretrained.flax.kv_cache import KVCache

CAUSAL = [case for case in CASES if case.caches]
each = pytest.mark.parametrize("case", CAUSAL, ids=str)
BATCH, LENGTH, ROOM = 2, 9, 12


def text(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 60, (BATCH, LENGTH))


def empty_cache(case: FlaxCase) -> KVCache:
    config = case.shared.config
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    size = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    return KVCache.empty((BATCH, ROOM, heads, size), config.num_hidden_layers, jnp.float32)


def positions_of(case: FlaxCase, mask: np.ndarray) -> np.ndarray:
    """Counted along the mask; RoBERTa counts from the index of padding on."""
    if "roberta" in case.model_type:
        return np.cumsum(mask, -1) * mask + case.shared.config.pad_token_id
    return np.maximum(np.cumsum(mask, -1) - 1, 0)


def torch_logits(case: FlaxCase, **inputs: np.ndarray) -> np.ndarray:
    return case.run_torch(case.torch.shared, inputs)["logits"]


@each
def test_token_by_token(case):
    """Behind a prompt that is padded on the left; the mask is as long as the cache, so each step is one program."""
    ids, mask = text(), np.ones((BATCH, LENGTH), int)
    mask[0, :3] = 0
    places = positions_of(case, mask)
    expected = torch_logits(case, input_ids=ids, attention_mask=mask, position_ids=places)
    room = np.concatenate((mask, np.ones((BATCH, ROOM - LENGTH), int)), 1)
    cache, pieces = empty_cache(case), []
    for start, stop in ((0, 4), *((i, i + 1) for i in range(4, LENGTH))):
        output = case.shared(
            ids[:, start:stop], attention_mask=room, position_ids=places[:, start:stop], past_key_values=cache
        )
        cache = output.past_key_values
        assert isinstance(cache, KVCache) and int(cache.length) == stop and cache.max_length == ROOM
        pieces.append(output.logits)
    found = np.concatenate(pieces, 1)
    assert np.abs(found - expected)[mask.astype(bool)].max() <= 2e-5


@each
def test_places_follow_the_past(case):
    """Nobody says where tokens are, nor which are padding."""
    ids = text(2)
    with jax.disable_jit():
        first = case.shared(ids[:, :4], past_key_values=empty_cache(case))
        second = case.shared(ids[:, 4:], past_key_values=first.past_key_values)
    found = np.concatenate((first.logits, second.logits), 1)
    assert np.abs(found - torch_logits(case, input_ids=ids)).max() <= 2e-5


@each
def test_fused_attention_computes_the_same(case):
    """With "sdpa", and with one that a caller registered."""
    ids, calls = text(3), []

    def counted(*args: Any) -> Any:
        calls.append(1)
        return attention.eager(*args)

    attention.register("counted", counted)
    try:
        found = [case.load(attn_implementation=name)(ids).logits for name in ("sdpa", "counted")]
    finally:
        del attention.ATTENTION["counted"]
    expected = torch_logits(case, input_ids=ids)
    assert len(calls) == case.torch.layers
    assert all(np.abs(logits - expected).max() <= 2e-5 for logits in found)


@pytest.mark.parametrize("case", [case for case in CAUSAL if "logits_to_keep" in case.torch.parameters], ids=str)
def test_logits_of_some_places(case):
    ids = text(4)
    with jax.disable_jit():
        whole = case.shared(ids).logits
        assert np.array_equal(case.shared(ids, logits_to_keep=2).logits, whole[:, -2:])
        assert np.array_equal(case.shared(ids, logits_to_keep=jnp.array([1, 4])).logits, whole[:, [1, 4]])
        assert case.shared(ids, np.ones_like(ids)).logits.shape == whole.shape  # by position comes the mask


GROUPED = [case for case in CAUSAL if "num_key_value_heads" in vars(case.torch.config())]


@pytest.mark.parametrize("case", GROUPED, ids=str)
def test_heads_of_a_group_go_together(case):
    model = case.load()
    with pytest.raises(InvalidOptionError, match=r"every 3 heads share their keys .* heads \[2\] of layer 0 would be"):
        model.prune_heads({0: [0, 1]})
    assert not model.config.pruned_heads
    with pytest.raises(ConfigError, match="key heads must divide the query heads: num_attention_heads=6"):
        case.cls(case.torch.config(num_key_value_heads=4))
    model.prune_heads({0: [0, 1, 2]})
    cache = empty_cache(case)
    shapes = [(*cache.layers[0][0].shape[:2], 1, 6), *[pair[0].shape for pair in cache.layers[1:]]]
    ids = text(5)
    with jax.disable_jit():
        whole = model(ids).logits
        first = model(ids[:, :6], past_key_values=KVCache.of_shapes(shapes, jnp.float32))
        second = model(ids[:, 6:], past_key_values=first.past_key_values)
    assert np.allclose(np.concatenate((first.logits, second.logits), 1), whole, atol=1e-5)


@each
def test_what_makes_no_sense_is_refused(case):
    ids = text()
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        case.shared()
    with pytest.raises(ValueError, match="attention_mask is 10 long, and there are 9 keys"):
        case.shared(ids, attention_mask=np.ones((BATCH, 10), int))
    with pytest.raises(OptionError, match="attention_mask"):
        case.shared(ids, attention_maks=np.ones_like(ids))


def test_attention_to_an_encoder():
    """GPT-2's blocks, as torch's with the same weights, through a cache of the decoder's own tokens."""
    case = next(case for case in CAUSAL if case.model_type == "gpt2")
    torch_model = case.torch.build(add_cross_attention=True, reorder_and_upcast_attn=True)
    rng = np.random.default_rng(0)
    mask = np.array([[1] * 5, [1, 1, 1, 0, 0]])
    given = {
        "encoder_hidden_states": rng.normal(size=(BATCH, 5, 24)).astype(np.float32),
        "encoder_attention_mask": mask,
    }
    ids = text()
    expected = case.run_torch(torch_model, {"input_ids": ids, **given}, output_attentions=True)
    weights = {name: value.numpy() for name, value in torch_model.state_dict().items()}
    model = case.cls.from_pretrained(None, config=torch_model.config, state_dict=weights)
    with jax.disable_jit():
        whole = model(ids, output_attentions=True, **given)
        first = model(ids[:, :4], past_key_values=empty_cache(case), **given)
        second = model(ids[:, 4:], past_key_values=first.past_key_values, **given)
    for name in ("attentions", "cross_attentions"):
        assert all(np.abs(a - expected[f"{name}.{i}"]).max() <= 2e-5 for i, a in enumerate(whole[name]))
    for logits in (whole.logits, np.concatenate((first.logits, second.logits), 1)):
        assert np.abs(logits - expected["logits"]).max() <= 2e-5
    with pytest.raises(ValueError, match="need a model with add_cross_attention=True"), jax.disable_jit():
        case.shared(ids, **given)
    assert torch.is_tensor(torch_model.lm_head.weight)
