"""Each kind of cache inside generate and held by the caller."""

from __future__ import annotations

import pytest
import torch
from small import BATCH, ONE, PADDED, TINY, generate, model_of

from pretrained import (
    ConfigError,
    DynamicCache,
    EncoderDecoderCache,
    InvalidOptionError,
    KVCache,
    OffloadedCache,
    OptionError,
    QuantizedCache,
    QuantizedKVCache,
    SlidingWindowCache,
    StaticCache,
)
from pretrained.auto import registry
from pretrained.pt.kv_cache_kinds import SlidingKVCache
from pretrained.pt.kv_cache_names import windows_of, windows_of_model

WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "returns": {"do_sample": True, "num_return_sequences": 2, "top_k": 1},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["static", "offloaded", "sliding_window", "dynamic"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bert"])
def test_kinds_give_the_same_text(family, kind, way):
    model = model_of(family)
    expected = generate(model, PADDED if family != "t5" else BATCH, **WAYS[way])
    found = generate(model, PADDED if family != "t5" else BATCH, cache_implementation=kind, **WAYS[way])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("way", WAYS)
def test_windows_slide(way):
    model = model_of("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    expected = generate(model, PADDED, **WAYS[way])
    assert not torch.equal(expected, generate(model_of("qwen2"), PADDED, **WAYS[way]))
    assert torch.equal(generate(model, PADDED, cache_implementation="sliding_window", **WAYS[way]), expected)
    cache = SlidingWindowCache(model.config)
    held = generate(model, ONE, past_key_values=cache, max_new_tokens=20)
    assert torch.equal(held, generate(model, ONE, max_new_tokens=20))
    assert [pair[0].shape[2] for pair in cache] == [25, 3, 3] and cache.get_seq_length() == 25
    cache.crop(25)
    with pytest.raises(InvalidOptionError, match="cannot go back to 24 from 25"):
        cache.crop(-1)


def test_windows_of_configs_are_those_of_models():
    for family, config in ((name, make()) for name, make in TINY.items()):
        if "AutoModelForCausalLM" not in registry._family(family).pt or family in ("bert", "roberta", "xlm-roberta"):
            continue
        changes = {"sliding_window": 5} if "sliding_window" in vars(config) else {}
        changes |= {"use_sliding_window": True, "max_window_layers": 1} if "use_sliding_window" in vars(config) else {}
        config = TINY[family](**changes)
        model = registry.model_class_for("AutoModelForCausalLM", config)(config)
        assert windows_of(config) == windows_of_model(model), family


def test_a_sliding_layer_shows_what_the_window_does():
    cache, everything = SlidingKVCache([4]), torch.randn(1, 1, 40, 2)
    place = 0
    for new in (6, 1, 1, 3, 1, 1, 1, 5, 1, 1, 1, 1):
        part = everything[:, :, place : place + new]
        before = min(3, place)
        seen, _ = cache.update(0, part, part)
        assert torch.equal(seen, everything[:, :, place - before : place + new])
        assert cache.key_length(1, 4) == 1 + min(3, place + new)
        place += new
    assert cache.get_seq_length() == place


@pytest.mark.parametrize("nbits", [2, 4, 8])
def test_quantized_caches_are_near(nbits):
    torch.manual_seed(0)
    cache, full = QuantizedKVCache(nbits, group_size=8, residual_length=4), KVCache()
    for new in (7, 1, 1, 1, 6, 1):
        part = torch.randn(2, 3, new, 16)
        seen, _ = cache.update(0, part, part * 2)
        expected, _ = full.update(0, part, part * 2)
        assert seen.shape == expected.shape
        assert (seen - expected).abs().max() < 5.0 / (2**nbits - 1)
    assert cache.get_seq_length() == 17
    cache.crop(9)
    assert cache[0][0].shape == (2, 3, 9, 16) and cache.get_seq_length() == 9
    cache.reorder(torch.tensor([1, 1]))
    assert torch.equal(cache[0][1][0], cache[0][1][1])
    held = sum(part.numel() for parts in cache._layers[0].old for packed in parts for part in packed[:1])
    assert held == 2 * (2 * 3 * 9 * 16) * nbits // 8


def test_quantized_caches_generate():
    model = model_of("llama", head_dim=8, hidden_size=48)
    found = generate(model, BATCH, cache_implementation="quantized", cache_config={"nbits": 8, "residual_length": 3})
    assert (found == generate(model, BATCH)).float().mean() > 0.7
    assert generate(model, BATCH, cache_implementation="quantized", num_beams=2).shape == (3, 16)
    assert generate(model, BATCH, past_key_values=QuantizedCache("quanto", nbits=8)).shape == (3, 16)


@pytest.mark.parametrize(
    ("settings", "error", "complaint"),
    [
        ({"cache_implementation": "quantized", "cache_config": {"nbit": 4}}, OptionError, "no 'nbit'"),
        ({"cache_implementation": "quantized", "cache_config": {"nbits": 3}}, InvalidOptionError, "2, 4 or 8"),
        ({"cache_implementation": "quantized", "cache_config": {"nbits": "4"}}, InvalidOptionError, "an integer"),
        ({"cache_implementation": "quantized", "cache_config": {"q_group_size": 4}}, InvalidOptionError, "not divide"),
        ({"cache_implementation": "statik"}, ConfigError, "must be one of dynamic"),
    ],
)
def test_impossible_caches(settings, error, complaint):
    with pytest.raises(error, match=complaint):
        generate(model_of("llama"), ONE, **settings)


def test_a_cache_is_the_callers_to_go_on_with():
    model = model_of("llama")
    whole = generate(model, ONE, max_new_tokens=12)
    for cache in (DynamicCache(), StaticCache(model.config, max_cache_len=40), OffloadedCache()):
        first = generate(model, ONE, past_key_values=cache, max_new_tokens=5)
        assert cache.get_seq_length() == 10
        assert torch.equal(model.generate(first, past_key_values=cache, max_new_tokens=7), whole)


def test_only_the_new_ids_beside_a_past():
    model = model_of("llama")
    whole = generate(model, ONE, max_new_tokens=4)
    with torch.no_grad():
        cache = model(ONE["input_ids"][:, :2], use_cache=True).past_key_values
    rest = ONE["input_ids"][:, 2:]
    mask = torch.ones_like(ONE["input_ids"])
    found = model.generate(rest, attention_mask=mask, past_key_values=cache, max_new_tokens=4)
    assert torch.equal(found, whole[:, 2:])


def test_a_past_that_holds_the_whole_prompt():
    model = model_of("llama")
    with torch.no_grad():
        cache = model(ONE["input_ids"], use_cache=True).past_key_values
    with pytest.raises(InvalidOptionError, match="holds 6 tokens, and the prompt has 6"):
        generate(model, ONE, past_key_values=cache)


def test_legacy_tuples_go_in_and_come_out():
    model = model_of("llama")
    with torch.no_grad():
        past = model(ONE["input_ids"][:, :3], use_cache=True).past_key_values.to_legacy()
    found = generate(model, ONE, past_key_values=past, return_dict_in_generate=True)
    assert torch.equal(found.sequences, generate(model, ONE))
    assert isinstance(found.past_key_values, tuple)


def test_other_peoples_order_of_arguments():
    key, value = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    for cache in (DynamicCache(), OffloadedCache(), QuantizedCache(nbits=8, q_group_size=4)):
        assert cache.update(key, value, 0)[0].shape == (1, 2, 3, 4)
        assert cache.update(key, value, 0, {"cache_position": torch.arange(3, 6)})[1].shape == (1, 2, 6, 4)
    static = StaticCache(model_of("llama").config, max_cache_len=9)
    static.update(key, value, 0, {"cache_position": torch.arange(3)})
    assert torch.equal(static[0][1], value) and static.max_cache_len == static.get_max_cache_shape() == 9


def test_two_caches_in_one():
    model = model_of("t5")
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    found = generate(model, BATCH, past_key_values=cache)
    assert torch.equal(found, generate(model, BATCH))
    assert cache.self_attention_cache.get_seq_length() == 10 and cache.cross_attention_cache.get_seq_length() == 6


def test_room_is_made_once():
    model = model_of("llama")
    found = generate(model, ONE, return_dict_in_generate=True, max_new_tokens=20)
    assert {layer.keys.shape[2] for layer in found.past_key_values._layers} == {26}


def test_beams_copy_what_is_in_use():
    cache = KVCache()
    cache.reserve(50)
    for _ in range(3):
        cache.update(0, torch.randn(2, 1, 2, 4), torch.randn(2, 1, 2, 4))
    before, buffer = cache[0][0].clone(), cache._layers[0].keys
    cache.reorder(torch.tensor([1, 1]))
    assert torch.equal(cache[0][0], before[[1, 1]]) and cache._layers[0].keys is buffer
    cache.batch_select_indices(torch.tensor([0]))
    assert cache[0][0].shape == (1, 1, 6, 4)
    cache.batch_repeat_interleave(3)
    assert cache[0][0].shape == (3, 1, 6, 4) and cache._layers[0].keys.shape[2] == 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_layers_wait_on_the_cpu():
    model = model_of("llama").to("cuda")
    cache = OffloadedCache()
    ids = ONE["input_ids"].to("cuda")
    found = model.generate(ids, past_key_values=cache, max_new_tokens=10)
    assert torch.equal(found, model.generate(ids, max_new_tokens=10))
    assert cache._layers[0].keys.device.type == "cpu"
