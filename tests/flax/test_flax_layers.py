from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from pretrained.errors import ConfigError
from pretrained.flax import layers
from pretrained.flax.kinds import ONES, ZEROS, Normal, TruncatedNormal, Uniform
from pretrained.pt import layers as torch_layers

X = np.linspace(-4, 4, 41, dtype=np.float32)


def filled(module: nnx.Module, seed: int = 0) -> nnx.Module:
    """The module with random values in place of descriptions, and the values by path."""
    rng = np.random.default_rng(seed)
    state = nnx.state(module)
    nnx.update(module, jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), state))
    return module


def as_torch(array: object) -> torch.Tensor:
    return torch.tensor(np.asarray(array))


@pytest.mark.parametrize("name", sorted(layers.ACTIVATIONS))
def test_activations_are_torchs(name: str) -> None:
    with np.errstate(all="ignore"):
        found = np.asarray(layers.activation(name)(jnp.asarray(X)))
    wanted = torch_layers.ACTIVATIONS[name](torch.tensor(X)).numpy()
    np.testing.assert_allclose(found, wanted, atol=3e-6)


def test_every_activation_without_weights_is_there() -> None:
    assert set(layers.ACTIVATIONS) == set(torch_layers.ACTIVATIONS)


def test_unknown_activation_says_the_nearest() -> None:
    with pytest.raises(ConfigError, match="hidden_act='gelo' is not known"):
        layers.activation("gelo")
    assert layers.activation(jnp.sin) is jnp.sin


def test_linear_is_torchs() -> None:
    layer = filled(layers.Linear(5, 3))
    x = np.random.default_rng(1).normal(size=(2, 4, 5)).astype(np.float32)
    wanted = torch.nn.functional.linear(torch.tensor(x), as_torch(layer.weight[...]), as_torch(layer.bias[...]))
    np.testing.assert_allclose(layer(x), wanted, atol=1e-5)


def test_conv1d_is_torchs() -> None:
    layer = filled(layers.Conv1D(3, 5, init=ONES))
    x = np.random.default_rng(1).normal(size=(2, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(layer(x), x @ np.asarray(layer.weight[...]) + np.asarray(layer.bias[...]), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_norms_are_torchs(dtype: str) -> None:
    x = np.random.default_rng(1).normal(size=(2, 4, 6)).astype(np.float32)
    layer = filled(layers.LayerNorm(6, 1e-5))
    found = layer(jnp.asarray(x, dtype))
    assert found.dtype == dtype
    given = torch.tensor(x).to(getattr(torch, dtype)).float()
    wanted = torch.nn.functional.layer_norm(given, (6,), as_torch(layer.weight[...]), as_torch(layer.bias[...]), 1e-5)
    np.testing.assert_allclose(found.astype("float32"), wanted, atol=1e-5 if dtype == "float32" else 3e-2)
    norm, other = filled(layers.RMSNorm(6, 1e-6)), torch_layers.RMSNorm(6, 1e-6)
    other.weight.data = as_torch(norm.weight[...])
    np.testing.assert_allclose(norm(x), other(torch.tensor(x)).detach(), atol=1e-5)


@pytest.mark.parametrize("axes", [1, 2])
def test_convolutions_are_torchs(axes: int) -> None:
    kernel, stride, padding = (3, 2)[:axes], (2, 1)[:axes], (1, 0)[:axes]
    layer = filled(layers.Conv((4, 6), kernel, stride, padding, groups=2))
    x = np.random.default_rng(1).normal(size=(2, 4, *(7, 5)[:axes])).astype(np.float32)
    function = torch.nn.functional.conv1d if axes == 1 else torch.nn.functional.conv2d
    weight, bias = as_torch(layer.weight[...]), as_torch(layer.bias[...])
    wanted = function(torch.tensor(x), weight, bias, stride, padding, groups=2)
    found = layer(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(np.moveaxis(np.asarray(found), -1, 1), wanted, atol=1e-5)


def test_embedding_looks_up_and_attends() -> None:
    table = filled(layers.Embedding(7, 3, dtype=jnp.bfloat16))
    assert table(jnp.asarray([[1, 6]])).dtype == jnp.bfloat16
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(table.attend(x), x @ np.asarray(table.weight[...]).T, atol=1e-6)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    x = jnp.ones(20_000)
    dropped = layers.dropout(x, 0.25, jax.random.key(0))
    assert abs(float((dropped == 0).mean()) - 0.25) < 0.02
    assert abs(float(dropped.mean()) - 1) < 0.02
    assert layers.dropout(x, 0.25, None) is x
    assert layers.dropout(x, 0.0, jax.random.key(0)) is x
    assert (layers.dropout(x, 0.25, jax.random.key(0), 1) != dropped).any()
    assert layers.folded(None, 1) is None


def test_pieces_are_the_whole() -> None:
    x = jnp.arange(14.0).reshape(1, 7, 2)
    for size in (0, 2, 3, 9):
        np.testing.assert_array_equal(layers.chunked(lambda x: x * 2, size, x), x * 2)


@pytest.mark.parametrize("init", [Normal(0.5), Normal(0.5, padding=3), TruncatedNormal(0.5), Uniform(0.5), ZEROS, ONES])
def test_draws_have_their_distribution(init: object) -> None:
    drawn = np.asarray(init.draw(jax.random.key(0), (200, 50), "float32"))
    if isinstance(init, (Normal, TruncatedNormal)):
        assert abs(drawn.mean()) < 0.02
        assert abs(drawn.std() - 0.5) < 0.02
        assert (drawn[3] == 0).all() == (getattr(init, "padding", None) == 3)
    elif isinstance(init, Uniform):
        assert -0.5 <= drawn.min() < -0.45 and 0.45 < drawn.max() <= 0.5
    else:
        assert (drawn == init.value).all()
