from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pretrained.pt.kv_cache import EncoderDecoderKVCache, KVCache, StaticKVCache, as_cache, like_given, next_positions


def pair(length: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, 3, length, 4, generator=source) for _ in range(2))  # type: ignore[return-value]


def filled(length: int = 5, layers: int = 2) -> KVCache:
    return KVCache(pair(length, seed=i) for i in range(layers))


def test_growth_equals_concatenation() -> None:
    cache, kept = KVCache(), []
    for step in range(200):
        kept.append(pair(1 if step else 7, seed=step))
        key, value = cache.update(0, *kept[-1])
        assert key.shape[2] == cache.get_seq_length() == step + 7
    assert torch.equal(key, torch.cat([k for k, _ in kept], 2))
    assert torch.equal(value, torch.cat([v for _, v in kept], 2))


def test_growth_copies_a_linear_number_of_tokens() -> None:
    cache, moved, place = KVCache(), 0, None
    for _ in range(3000):
        key, _ = cache.update(0, *pair(1, 1))
        if key.data_ptr() != place:
            moved, place = moved + key.shape[2], key.data_ptr()
    assert moved < 4 * 3000


def test_the_first_tokens_are_not_copied_and_never_written_to() -> None:
    key, value = pair(3)
    before = key.clone()
    cache = KVCache()
    assert cache.update(0, key, value)[0] is key
    cache.update(0, *pair(2, seed=5))
    cache.crop(1)
    cache.update(0, *pair(2, seed=6))
    assert torch.equal(key, before)


def test_views_stay_right_while_it_grows() -> None:
    cache = filled()
    cache.update(0, *pair(1, seed=3))
    early = cache[0][0]
    content = early.clone()
    for step in range(100):
        cache.update(0, *pair(1, seed=step))
    assert torch.equal(early, content)


def test_layers_come_in_order() -> None:
    cache = KVCache()
    assert cache.get_seq_length() == cache.get_seq_length(3) == 0
    with pytest.raises(IndexError, match="layer 1 of a cache that has 0 layers"):
        cache.update(1, *pair(1))


@pytest.mark.parametrize(("length", "left"), [(3, 3), (9, 5), (0, 0), (-2, 3), (-9, 0)])
def test_crop(length: int, left: int) -> None:
    for cache in (filled(), EncoderDecoderKVCache(filled(), filled(7))):
        whole = cache[1][0].clone()
        cache.crop(length)
        assert cache.get_seq_length() == left
        assert torch.equal(cache[1][0], whole[:, :, :left])


def test_rows() -> None:
    cache, order = filled(), torch.tensor([1, 1, 0])
    whole = [key.clone() for key, _ in cache]
    cache.reorder(order)
    assert torch.equal(cache[1][0], whole[1][order])
    cache.batch_repeat_interleave(2)
    assert torch.equal(cache[0][0], whole[0][order].repeat_interleave(2, 0))
    cache.batch_select_indices(torch.tensor([0, 5]))
    assert torch.equal(cache[0][0], whole[0][[1, 0]])
    grown = cache.update(0, *pair(1))[0]
    assert grown.shape == (2, 3, 6, 4)


def test_reordering_keeps_the_spare_room() -> None:
    cache = filled()
    cache.update(0, *pair(1))
    cache.reorder(torch.tensor([1, 0]))
    place = cache[0][0].data_ptr()
    assert cache.update(0, *pair(1))[0].data_ptr() == place


def test_legacy() -> None:
    cache = filled()
    legacy = cache.to_legacy()
    assert isinstance(legacy, tuple)
    assert len(legacy) == len(cache) == 2
    again = KVCache.from_legacy(legacy)
    assert torch.equal(again[1][1], cache[1][1])
    assert len(KVCache.from_legacy(None)) == 0
    crossed = EncoderDecoderKVCache(filled(), filled(7))
    assert [len(entry) for entry in crossed.to_legacy()] == [4, 4]
    again_crossed = EncoderDecoderKVCache.from_legacy(crossed.to_legacy())
    assert torch.equal(again_crossed[1][3], crossed.cross_attention[1][1])
    assert [len(entry) for entry in EncoderDecoderKVCache(filled())] == [2, 2]


def test_as_cache() -> None:
    cache = filled()
    assert as_cache(cache) is cache
    assert isinstance(as_cache(None), KVCache)
    assert as_cache(cache.to_legacy()).get_seq_length() == 5
    crossed = as_cache(cache, crossed=True)
    assert crossed.self_attention is cache
    assert as_cache(crossed, crossed=True) is crossed
    assert isinstance(as_cache((), crossed=True), EncoderDecoderKVCache)
    assert isinstance(like_given(cache, ()), tuple)
    assert like_given(cache, None) is cache
    assert next_positions(cache, 2, torch.device("cpu")).tolist() == [5, 6]
    assert next_positions(None, 2, torch.device("cpu")).tolist() == [0, 1]


def test_copies() -> None:
    cache = filled()
    cache.update(0, *pair(1))
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        other.update(1, *pair(1))
        assert other.get_seq_length(1) == 6
        assert torch.equal(other[0][0], cache[0][0])
    assert cache.get_seq_length(1) == 5


def test_pytree() -> None:
    for cache in (filled(), EncoderDecoderKVCache(filled(), filled(7))):
        leaves, spec = pytree.tree_flatten(cache)
        again = pytree.tree_unflatten([leaf + 1 for leaf in leaves], spec)
        assert type(again) is type(cache)
        assert torch.equal(again[1][0], cache[1][0] + 1)


def test_gradients_are_not_overwritten() -> None:
    key, value = (x.requires_grad_() for x in pair(2))
    cache = KVCache()
    cache.update(0, key, value)
    first, _ = cache.update(0, key[:, :, :1] * 2, value[:, :, :1])
    squared = first.square().sum()  # its backward pass needs `first` as it is now
    cache.update(0, key[:, :, :1] * 3, value[:, :, :1])
    squared.backward()
    assert key.grad is not None
    torch.testing.assert_close(key.grad[:, :, 1], 2 * key[:, :, 1])


def test_inference_mode_and_back() -> None:
    cache = KVCache()
    with torch.inference_mode():
        for _ in range(3):
            cache.update(0, *pair(1))
    with torch.no_grad():
        key, _ = cache.update(0, *pair(1))
    assert key.shape[2] == 4
    with torch.inference_mode():
        assert cache.update(0, *pair(1))[0].shape[2] == 5


def test_preallocated() -> None:
    cache, grown = StaticKVCache(2, 2, 3, 8, 4), KVCache()
    for step, length in enumerate((4, 1, 2)):
        for layer in range(2):
            new = pair(length, seed=10 * step + layer)
            key, _ = cache.update(layer, *new)
            assert key.shape == (2, 3, 8, 4)
            grown.update(layer, *new)
    assert cache.get_seq_length() == 7
    for ours, theirs in zip(cache, grown, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    cache.update(0, *pair(1, seed=77), positions=torch.tensor([2]))
    assert torch.equal(cache[0][0][:, :, 2:], pair(1, seed=77)[0])
    cache.crop(-1)
    assert cache.get_seq_length(1) == 6
    cache.crop(2)
    assert cache.get_seq_length(1) == 2
    cache.reorder(torch.tensor([1, 0]))
    assert torch.equal(cache[1][0][0], grown[1][0][1, :, :2])
    with pytest.raises(IndexError, match="9 tokens do not fit a cache for 8"):
        cache.update(1, *pair(7))
    cache.reset()
    assert cache.get_seq_length() == 0
