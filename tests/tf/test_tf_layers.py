"""Layers, attention, masks and draws of TensorFlow, against torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

from pretrained.errors import ConfigError
from pretrained.pt import layers as torch_layers
from pretrained.tf import attention, layers, masks
from pretrained.tf.init import draw
from pretrained.tf.kinds import ONES, ZEROS, Normal, TruncatedNormal, Uniform
from pretrained.tf.kv_cache import KVCache, Writing, reordered
from pretrained.tf.structure import Structure

X = np.linspace(-4, 4, 41, dtype=np.float32)


def filled(module: Any, seed: int = 0) -> Any:
    """The module with random values in place of descriptions."""
    rng = np.random.default_rng(seed)
    structure = Structure(module)
    structure.fill({place.name: tf.constant(rng.normal(size=place.shape), tf.float32) for place in structure.places})
    return module


def random(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def as_torch(variable: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(variable))


@pytest.mark.parametrize("name", sorted(layers.ACTIVATIONS))
def test_activations_are_torchs(name: str) -> None:
    wanted = torch_layers.ACTIVATIONS[name](torch.tensor(X)).numpy()
    np.testing.assert_allclose(layers.activation(name)(tf.constant(X)), wanted, atol=3e-6)


def test_every_activation_without_weights_is_there() -> None:
    assert set(layers.ACTIVATIONS) == set(torch_layers.ACTIVATIONS)
    with pytest.raises(ConfigError, match="hidden_act='gelo' is not known"):
        layers.activation("gelo")
    assert layers.activation(tf.sin) is tf.sin


def test_linear_layers_are_torchs() -> None:
    layer, x = filled(layers.Linear(5, 3)), random(2, 4, 5)
    wanted = torch.nn.functional.linear(torch.tensor(x), as_torch(layer.weight), as_torch(layer.bias))
    np.testing.assert_allclose(layer(tf.constant(x)), wanted, atol=1e-5)
    layer = filled(layers.Conv1D(3, 5, init=ONES))
    np.testing.assert_allclose(layer(tf.constant(x)), x @ np.asarray(layer.weight) + np.asarray(layer.bias), atol=1e-5)
    assert layers.Linear(5, 3, bias=False).bias is None


def test_norms_are_torchs() -> None:
    x = random(2, 3, 8)
    layer = filled(layers.LayerNorm(8, 1e-6))
    wanted = torch.nn.functional.layer_norm(
        torch.tensor(x), (8,), as_torch(layer.weight), as_torch(layer.bias), eps=1e-6
    )
    np.testing.assert_allclose(layer(tf.constant(x)), wanted, atol=1e-5)
    assert layer(tf.cast(x, tf.float16)).dtype == tf.float16
    layer = filled(layers.RMSNorm(8, 1e-6))
    wanted = torch.nn.functional.rms_norm(torch.tensor(x), (8,), as_torch(layer.weight), eps=1e-6)
    np.testing.assert_allclose(layer(tf.constant(x)), wanted, atol=1e-5)


CONVOLUTIONS = [
    ((3,), (2,), (1,), None),
    ((3, 2), (1, 2), (0, 1), None),
    ((3, 2), (1, 1), (0, 1), (2, 1)),
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CONVOLUTIONS)
def test_convolutions_are_torchs(kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    layer = filled(layers.Conv((4, 6), kernel, stride, padding, dilation=dilation, groups=groups))
    x = random(2, *(9, 8)[: len(kernel)], 4)
    function = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)[len(kernel) - 1]
    wanted = function(
        torch.tensor(np.moveaxis(x, -1, 1)),
        as_torch(layer.weight),
        as_torch(layer.bias),
        stride,
        padding,
        dilation or 1,
        groups,
    )
    np.testing.assert_allclose(layer(tf.constant(x)), np.moveaxis(wanted.numpy(), 1, -1), atol=1e-4)


def test_an_embedding_gives_the_dtype_it_was_asked_for() -> None:
    layer = filled(layers.Embedding(7, 3, dtype="float16"))
    assert layer(tf.constant([[1, 2]])).dtype == tf.float16
    assert layer.attend(tf.ones((2, 3))).shape == (2, 7)


def test_dropout_follows_from_its_seed() -> None:
    x, seed = tf.ones((100, 100)), tf.constant([3, 4])
    assert layers.dropout(x, 0.5, None) is x
    dropped = np.asarray(layers.dropout(x, 0.25, seed))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)} and 0.2 < (dropped == 0).mean() < 0.3
    assert (dropped == np.asarray(layers.dropout(x, 0.25, seed))).all()
    assert (dropped != np.asarray(layers.dropout(x, 0.25, seed, place=1))).any()


def test_chunks_give_the_same() -> None:
    x = tf.constant(random(2, 7, 3))
    np.testing.assert_array_equal(layers.chunked(tf.square, 3, x), tf.square(x))


def test_draws_follow_from_seed_and_name() -> None:
    one = draw(Normal(0.5), 0, "a", (1000,), "float32")
    assert abs(float(tf.math.reduce_std(one)) - 0.5) < 0.05
    assert tf.reduce_all(one == draw(Normal(0.5), 0, "a", (1000,), "float32"))
    assert tf.reduce_any(one != draw(Normal(0.5), 0, "b", (1000,), "float32"))
    assert tf.reduce_any(one != draw(Normal(0.5), 1, "a", (1000,), "float32"))
    table = draw(Normal(0.5, padding=2), 0, "a", (4, 3), "float16")
    assert not tf.reduce_any(table[2] != 0) and tf.reduce_all(table[1] != 0)
    cut = draw(TruncatedNormal(0.5, 0.6), 0, "a", (1000,), "float32")
    assert float(tf.reduce_max(abs(cut))) <= 0.6 and float(tf.math.reduce_std(cut)) > 0.25
    even = draw(Uniform(1.0, 0.5), 0, "a", (1000,), "float32")
    assert float(tf.reduce_min(even)) >= 0.5 and float(tf.reduce_max(even)) <= 1.0
    assert tf.reduce_all(draw(ZEROS, 0, "a", (3,), "bfloat16") == 0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_is_torchs(groups: int) -> None:
    query, key, value = random(2, 5, 4, 6), random(2, 7, groups, 6, seed=2), random(2, 7, groups, 6, seed=3)
    keep = random(2, 1, 5, 7, seed=4) > -1
    turned = [torch.tensor(x).transpose(1, 2) for x in (query, key, value)]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *turned, attn_mask=torch.tensor(keep), scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    tensors = [tf.constant(x) for x in (query, key, value)]
    found, none = attention.attend("sdpa", *tensors, tf.constant(keep), scale=0.3)
    assert none is None
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    again, weights = attention.attend("eager", *tensors, tf.constant(keep), scale=0.3, need_weights=True)
    np.testing.assert_allclose(found, again, atol=1e-6)
    np.testing.assert_allclose(tf.reduce_sum(weights, -1), np.ones((2, 4, 5)), atol=1e-5)
    added, _ = attention.attend(None, *tensors, tf.where(keep, 0.0, -1e9), scale=0.3)
    np.testing.assert_allclose(found, added, atol=1e-5)


def test_attention_by_a_name_of_ones_own() -> None:
    attention.register("mine", lambda query, *others: query * 2)
    with pytest.raises(ValueError, match="'mine' is registered already"):
        attention.register("mine", attention.eager)
    x = tf.ones((1, 2, 3, 4))
    assert tf.reduce_all(attention.attend("mine", x, x, x, scale=1.0)[0] == 2)
    with pytest.raises(ConfigError, match="attn_implementation='min'"):
        attention.attend("min", x, x, x, scale=1.0)
    del attention.ATTENTION["mine"]


def test_masks() -> None:
    mask = tf.constant([[1, 1, 0]])
    assert masks.bidirectional(None) is None
    assert masks.bidirectional(mask).shape == (1, 1, 1, 3)
    assert masks.bidirectional(tf.ones((1, 2, 3))).shape == (1, 1, 2, 3)
    assert masks.bidirectional(tf.zeros((1, 1, 2, 3))).dtype == tf.float32
    with pytest.raises(ValueError, match="2, 3 or 4 axes"):
        masks.bidirectional(tf.ones(3))
    found = masks.causal(mask, 2, 4, start=1)
    np.testing.assert_array_equal(found[0, 0], [[1, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(masks.causal(None, 3, 3, window=2)[0, 0], [[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    with pytest.raises(ValueError, match="3 long, and there are 2 keys"):
        masks.causal(mask, 2, 2)
    assert [m.shape for m in masks.split_head_mask(tf.ones(4), 2)] == [(1, 4, 1, 1)] * 2
    with pytest.raises(ValueError, match="head_mask must be"):
        masks.split_head_mask(tf.ones((3, 4)), 2)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_cache_holds_what_was_written(compiled: bool) -> None:
    new = tf.constant(random(2, 3, 1, 4))

    def write(cache: KVCache) -> KVCache:
        writing = Writing(cache)
        writing.update(0, new, new)
        return writing.after(3)

    step = tf.function(write, jit_compile=True) if compiled else write
    cache = step(step(KVCache.of_shapes([(2, 1, 8, 4)], "float32")))
    assert int(cache.length) == 6
    np.testing.assert_array_equal(cache.layers[0][0][:, 0, :6], tf.concat((new, new), 1)[:, :, 0])
    np.testing.assert_array_equal(cache.layers[0][1][:, :, 6:], np.zeros((2, 1, 2, 4)))
    np.testing.assert_array_equal(reordered(cache, tf.constant([1, 1])).layers[0][0][0, 0, :3], new[1, :, 0])


def test_the_product_of_one_row_has_its_gradients_where_xla_compiles_it() -> None:
    layer = filled(layers.Linear(4, 3))
    x = tf.constant(random(1, 4))

    def gradients(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x)))
        return tape.gradient(loss, [x, layer.weight.value, layer.bias.value])

    for found, wanted in zip(tf.function(gradients, jit_compile=True)(x), gradients(x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
