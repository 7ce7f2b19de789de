from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pretrained.errors import ConfigError
from pretrained.flax import attention, masks
from pretrained.flax.kv_cache import KVCache, Writing, extended, num_keys, reordered
from pretrained.flax.rope import Rotary, rotate
from pretrained.pt import attention as torch_attention
from pretrained.pt import masks as torch_masks
from pretrained.pt.rope import RotaryEmbedding
from pretrained.pt.rope import rotate as torch_rotate

RNG = np.random.default_rng(0)


def arrays(heads: int = 4, groups: int = 4, queries: int = 5, keys: int = 5) -> tuple[np.ndarray, ...]:
    shapes = ((2, queries, heads, 6), (2, keys, groups, 6), (2, keys, groups, 6))
    return tuple(RNG.normal(size=shape).astype(np.float32) for shape in shapes)


def torchs(*found: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(array).transpose(1, 2) for array in found]


@pytest.mark.parametrize("name", sorted(attention.ATTENTION))
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("with_bias", [False, True])
def test_all_ways_are_torchs_eager(name: str, groups: int, with_bias: bool) -> None:
    query, key, value = arrays(groups=groups)
    padding = np.array([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    keep = masks.causal(jnp.asarray(padding), 5, 5)
    bias = RNG.normal(size=(1, 4, 5, 5)).astype(np.float32) if with_bias else None
    out, weights = attention.attend(name, query, key, value, keep, scale=0.3, bias=bias)
    assert weights is None
    mask, _ = torch_masks.causal(
        torch.tensor(padding), query_length=5, key_length=5, dtype=torch.float32, device=torch.device("cpu")
    )
    mask = mask if bias is None else torch_masks.add_bias(mask, torch.tensor(bias))
    wanted, _ = torch_attention.eager(*torchs(query, key, value), mask, scale=0.3)
    seen = padding.astype(bool)
    np.testing.assert_allclose(np.asarray(out)[seen], wanted.transpose(1, 2).numpy()[seen], atol=1e-5)


def test_weights_and_head_mask() -> None:
    query, key, value = arrays()
    switched = jnp.asarray([1.0, 0.0, 1.0, 0.5])
    out, weights = attention.attend(
        "sdpa", query, key, value, scale=0.3, need_weights=True, head_mask=switched[None, :, None, None]
    )
    wanted, wanted_weights = torch_attention.eager(
        *torchs(query, key, value), scale=0.3, head_mask=torch.tensor(np.asarray(switched))[None, :, None, None]
    )
    np.testing.assert_allclose(weights, wanted_weights, atol=1e-5)
    np.testing.assert_allclose(out, wanted.transpose(1, 2), atol=1e-5)


def test_a_layer_whose_heads_are_all_gone() -> None:
    query, key, value = (array[:, :, :0] for array in arrays())
    out, weights = attention.attend(None, query, key, value, scale=1.0, need_weights=True)
    assert out.shape == (2, 5, 0, 6)
    assert weights.shape == (2, 0, 5, 5)


def test_dropout_of_weights() -> None:
    query, key, value = arrays()
    _, weights = attention.attend(
        None, query, key, value, scale=0.3, rate=0.5, rng=jax.random.key(0), need_weights=True
    )
    assert 0.3 < float((weights == 0).mean()) < 0.7


def test_distances_are_torchs() -> None:
    query, key, _ = arrays(keys=8)
    table = torch.nn.Embedding(2 * 10 - 1, 6)
    for by_key in (False, True):
        if by_key:
            query, key, _ = arrays()
        start = key.shape[1] - query.shape[1]
        found = attention.distance_bias(
            query, key, jnp.asarray(table.weight.detach().numpy()), by_key=by_key, start=start
        )
        wanted = torch_attention.distance_bias(*torchs(query, key), table, by_key=by_key).detach()
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_names() -> None:
    query, key, value = arrays()
    with pytest.raises(ConfigError, match="attn_implementation='flash' is not known"):
        attention.attend("flash", query, key, value, scale=1.0)
    with pytest.raises(ValueError, match="'eager' is registered already"):
        attention.register("eager", attention.eager)
    attention.register("mine", attention.eager)
    try:
        out, _ = attention.attend("mine", query, key, value, scale=1.0)
        np.testing.assert_array_equal(out, attention.attend("eager", query, key, value, scale=1.0)[0])
    finally:
        del attention.ATTENTION["mine"]


def test_masks_of_other_shapes() -> None:
    three = jnp.ones((2, 5, 5))
    assert masks.bidirectional(None) is None
    assert masks.bidirectional(jnp.ones((2, 5))).shape == (2, 1, 1, 5)
    assert masks.bidirectional(three).shape == masks.causal(three, 5, 5).shape == (2, 1, 5, 5)
    assert masks.bidirectional(jnp.ones((2, 4, 5, 5))).shape == (2, 4, 5, 5)
    with pytest.raises(ValueError, match="2, 3 or 4 axes"):
        masks.bidirectional(jnp.ones(3))
    with pytest.raises(ValueError, match="9 long, and there are 5 keys"):
        masks.causal(jnp.ones((1, 9)), 5, 5)
    with pytest.raises(ValueError, match=r"head_mask must be \(heads,\) or \(3, heads\)"):
        masks.split_head_mask(jnp.ones((2, 4)), 3)
    assert masks.split_head_mask(None, 2) == [None, None]
    assert [m.shape for m in masks.split_head_mask(jnp.ones(4), 2)] == [(1, 4, 1, 1)] * 2


def test_a_window_and_a_start() -> None:
    keep = np.asarray(masks.causal(None, 2, 6, start=3, window=2))[0, 0]
    assert keep.astype(int).tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0]]
    short = np.asarray(masks.causal(jnp.asarray([[0, 1, 1]]), 1, 6, start=4))[0, 0]
    assert short.astype(int).tolist() == [[0, 1, 1, 1, 1, 0]]  # what the mask does not reach may be looked at


def test_a_cache_is_written_behind_what_it_holds() -> None:
    cache = KVCache.of_shapes([(2, 6, 4, 3), (2, 6, 2, 3)], jnp.float32)
    assert cache.max_length == num_keys(Writing(cache), 1) == 6
    assert num_keys(None, 4) == 4
    for step in range(2):
        writing = Writing(cache)
        for layer, groups in enumerate((4, 2)):
            new = jnp.full((2, 2, groups, 3), step + 1.0)
            keys, values = extended(writing, layer, new, new * 2)
        cache = writing.after(2)
    assert int(cache.length) == 4
    assert np.asarray(keys)[0, :, 0, 0].tolist() == [1, 1, 2, 2, 0, 0]
    assert np.asarray(values)[0, :, 0, 0].tolist() == [2, 2, 4, 4, 0, 0]
    marked = KVCache(tuple((k.at[1].set(9), v) for k, v in cache.layers), cache.length)
    swapped = reordered(marked, jnp.asarray([1, 1]))
    assert (np.asarray(swapped.layers[0][0]) == 9).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16},
        {
            "rope_type": "longrope",
            "original_max_position_embeddings": 16,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0, 3.0, 4.0, 5.0],
        },
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 3.0,
            "original_max_position_embeddings": 16,
        },
        {"rope_type": "default", "partial_rotary_factor": 0.5},
    ],
    ids=lambda s: f"{s['rope_type']}-{len(s)}",
)
def test_rotation_is_torchs(settings: dict) -> None:
    settings = {"rope_theta": 100.0, **settings}
    for length in (6, 40):  # within the trained length and beyond it
        positions = np.arange(length)[None]
        x = RNG.normal(size=(1, length, 2, 8)).astype(np.float32)
        ours, theirs = Rotary(settings, 8, 32), RotaryEmbedding(settings, 8, 32)
        found = rotate(x, *ours(jnp.asarray(positions), jnp.float32))
        cos, sin = theirs(torch.tensor(positions), torch.float32)
        wanted = torch_rotate(torch.tensor(x).transpose(1, 2), cos, sin).transpose(1, 2)
        np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert Rotary(settings, 8, 32) == Rotary(settings, 8, 32) != Rotary(settings, 8, 33)
    assert len({Rotary(settings, 8, 32), Rotary(settings, 8, 32)}) == 1
