"""A text that comes token by token gives what it gives at once, in TensorFlow; and decoders that change in size."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_cases import filled, find_tf
from tiny import TINY

from pretrained.errors import ConfigError, InvalidOptionError
from pretrained.tf.kv_cache import KVCache, empty_cache

CAUSAL = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
WINDOWS = {
    "mistral": {"sliding_window": 4},
    "qwen3": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
}
GROUPED = ("llama", "mistral", "qwen3")
each = pytest.mark.parametrize("family", CAUSAL)
BATCH, LENGTH, ROOM = 2, 9, 12


@functools.cache
def shared(family: str) -> Any:
    """A model for tests that change nothing."""
    return build(family)


def build(family: str, **changes: Any) -> Any:
    return filled(find_tf(family, CAUSAL[family]), TINY[family](**WINDOWS.get(family, {}) | changes))


def text(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 60, (BATCH, LENGTH))


def room_for(model: Any) -> KVCache:
    return empty_cache(model.config, (BATCH, ROOM), "float32")


@pytest.mark.parametrize("jit_compile", [False, True])
@each
def test_token_by_token(family: str, jit_compile: bool) -> None:
    """Behind a prompt that is padded on the left; the mask is as long as the cache, so each step is one program."""
    model, ids, mask = shared(family), text(), np.ones((BATCH, LENGTH), int)
    mask[0, :3] = 0
    places = np.maximum(np.cumsum(mask, -1) - 1, 0)
    expected = model(ids, attention_mask=mask, position_ids=places).logits
    room = np.concatenate((mask, np.ones((BATCH, ROOM - LENGTH), int)), 1)
    traced = []

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(new: tf.Tensor, where: tf.Tensor, cache: KVCache) -> Any:
        traced.append(1)
        output = model.module(new, attention_mask=tf.constant(room), position_ids=where, past_key_values=cache)
        return output.logits, output.past_key_values

    cache, pieces = room_for(model), []
    for start, stop in ((0, 4), *((i, i + 1) for i in range(4, LENGTH))):
        logits, cache = step(tf.constant(ids[:, start:stop]), tf.constant(places[:, start:stop]), cache)
        assert isinstance(cache, KVCache) and int(cache.length) == stop and cache.max_length == ROOM
        pieces.append(logits)
    found = np.concatenate(pieces, 1)
    assert len(traced) == 2
    assert np.abs(found - expected)[mask.astype(bool)].max() <= 2e-5


@each
def test_places_follow_the_past(family: str) -> None:
    """Nobody says where tokens are, nor which are padding; and lengths need not be known when a call is traced."""
    model, ids = shared(family), text(2)
    first = model(ids[:, :4], past_key_values=room_for(model))
    second = model(ids[:, 4:], past_key_values=first.past_key_values)
    found, expected = np.concatenate((first.logits, second.logits), 1), model(ids).logits
    assert np.abs(found - expected).max() <= 2e-5
    spec = tf.TensorSpec((None, None), tf.int32)
    traced = tf.function(lambda x, mask: model(x, mask).logits, input_signature=[spec, spec])
    for length in (LENGTH, 5):
        found = traced(ids[:, :length].astype(np.int32), np.ones((BATCH, length), np.int32))
        assert np.abs(found - expected[:, :length]).max() <= 2e-5


@each
def test_logits_of_some_places(family: str) -> None:
    model, ids = shared(family), text(4)
    whole = model(ids).logits.numpy()
    assert np.allclose(model(ids, logits_to_keep=2).logits, whole[:, -2:], atol=1e-6)
    assert np.allclose(model(ids, logits_to_keep=tf.constant([1, 4])).logits, whole[:, [1, 4]], atol=1e-6)


def test_attention_to_an_encoder() -> None:
    """GPT-2's blocks through a cache of the decoder's own tokens."""
    model, ids = build("gpt2", add_cross_attention=True, reorder_and_upcast_attn=True), text()
    states = np.random.default_rng(0).normal(size=(BATCH, 5, 24)).astype(np.float32)
    given = {"encoder_hidden_states": states, "encoder_attention_mask": np.array([[1] * 5, [1, 1, 1, 0, 0]])}
    whole = model(ids, output_attentions=True, **given)
    assert [weights.shape[-1] for weights in whole.cross_attentions] == [5] * model.config.n_layer
    first = model(ids[:, :4], past_key_values=room_for(model), **given)
    second = model(ids[:, 4:], past_key_values=first.past_key_values, **given)
    assert np.allclose(np.concatenate((first.logits, second.logits), 1), whole.logits, atol=2e-5)
    with pytest.raises(ValueError, match="need a model with add_cross_attention=True"):
        shared("gpt2")(ids, **given)


@each
def test_gradients_reach_every_parameter(family: str) -> None:
    """And are the same where blocks are computed again on the way back."""
    found = []
    for again in (False, True):
        model = filled(find_tf(family, CAUSAL[family]), TINY[family](), gradient_checkpointing=again)
        with tf.GradientTape() as tape:
            loss = model(text(), labels=text(), training=True).loss
        found.append(tape.gradient(loss, [variable.value for variable in model.trainable_variables]))
    for plain, again in zip(*found, strict=True):
        plain, again = tf.convert_to_tensor(plain), tf.convert_to_tensor(again)
        assert np.abs(plain).max() > 0
        np.testing.assert_allclose(again, plain, atol=1e-6)


@each
def test_pruned_heads_gave_nothing(family: str, tmp_path: Path) -> None:
    """Without two heads, or a group of three, a model computes what it did where what follows them was 0."""
    model, ids, gone = build(family), text(5), [0, 1, 2] if family in GROUPED else [0, 2]
    block = model.transformer.h[0].attn if family == "gpt2" else model.model.layers[0].self_attn
    last, size = block.c_proj if family == "gpt2" else block.o_proj, block.head_dim
    rows = [head * size + i for head in gone for i in range(size)]
    axis = 0 if family == "gpt2" else 1
    zeroed = last.weight.numpy().copy()
    zeroed[(slice(None),) * axis + (rows,)] = 0
    last.weight.assign(zeroed)
    expected = model(ids).logits
    model.prune_heads({0: gone})
    assert np.allclose(model(ids).logits, expected, atol=1e-5)
    cache = room_for(model)
    assert cache.layers[0][0].shape[1] < cache.layers[1][0].shape[1]
    first = model(ids[:, :6], past_key_values=cache)
    second = model(ids[:, 6:], past_key_values=first.past_key_values)
    assert np.allclose(np.concatenate((first.logits, second.logits), 1), expected, atol=1e-5)
    model.save_pretrained(tmp_path, durable=False)
    assert np.allclose(type(model).from_pretrained(tmp_path)(ids).logits, expected, atol=1e-5)


@pytest.mark.parametrize("family", GROUPED)
def test_heads_of_a_group_go_together(family: str) -> None:
    model = build(family)
    with pytest.raises(InvalidOptionError, match=r"every 3 heads share their keys .* heads \[2\] of layer 0 would be"):
        model.prune_heads({0: [0, 1]})
    assert not model.config.pruned_heads
    with pytest.raises(ConfigError, match="key heads must divide the query heads: num_attention_heads=6"):
        build(family, num_key_value_heads=4)


@pytest.mark.parametrize("is_tied", [True, False])
@each
def test_tokens_come_and_go(family: str, is_tied: bool) -> None:
    model, ids = build(family, tie_word_embeddings=is_tied), text(6)
    before, old = model(ids).logits, model.config.vocab_size
    for size in (old + 5, old - 1):
        model.resize_token_embeddings(size)
        after = model(ids).logits
        assert after.shape[-1] == model.config.vocab_size == size
        kept = min(old, size)
        assert np.allclose(after[..., :kept], before[..., :kept], atol=1e-5)
    assert (model.get_output_embeddings() is model.get_input_embeddings()) == is_tied
