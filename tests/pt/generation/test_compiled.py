"""compile=True: the same text, one graph for calls of like shapes, caches that are used again."""

from __future__ import annotations

import logging

import pytest
import torch
from small import BATCH, ONE, PADDED, generate, model_of
from torch._dynamo.testing import CompileCounterWithBackend

from pretrained.pt.generation import compiled

WAYS = {
    "one": (ONE, {}),
    "batch": (BATCH, {}),
    "padded": (PADDED, {}),
    "beams": (PADDED, {"num_beams": 2}),
    "drawn": (ONE, {"do_sample": True, "top_k": 1, "num_return_sequences": 2}),
    "processed": (BATCH, {"repetition_penalty": 1.5, "return_dict_in_generate": True, "output_scores": True}),
}


@pytest.fixture
def counter(monkeypatch):
    """Graphs are traced as ever and then run as they are, which takes a fraction of compiling them."""
    found = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiled, "_backend_for", lambda model: found)
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


def ids(found):
    return found if isinstance(found, torch.Tensor) else found.sequences


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_same_text(counter, family, way):
    prompt, settings = WAYS[way]
    model = model_of(family)
    expected = ids(generate(model, prompt, **settings))
    for _ in range(2):  # the second time with the cache of the first, unless that went to the caller
        assert torch.equal(ids(generate(model, prompt, compile=True, **settings)), expected)
    assert counter.frame_count == 1


def test_encoder_and_decoder(counter):
    model = model_of("t5")
    assert torch.equal(generate(model, BATCH, compile=True), generate(model, BATCH))


def test_calls_share_a_graph_and_a_cache(counter, caplog):
    model = model_of("llama")
    with caplog.at_level(logging.INFO):
        first = generate(model, ONE, compile=True)
    assert "compiled a step of LlamaForCausalLM in" in caplog.text
    step = compiled.compiled_step(model)
    (cache,) = step._spare.values()
    assert cache.max_length == 128 and step.first_call_seconds > 0
    longer = generate(model, ONE, compile=True, max_new_tokens=20)
    assert torch.equal(longer, generate(model, ONE, max_new_tokens=20)) and torch.equal(longer[:, :16], first)
    assert counter.frame_count == 1 and list(step._spare.values()) == [cache]
    held = generate(model, ONE, compile=True, return_dict_in_generate=True).past_key_values
    assert held is cache and not step._spare, "what is returned is the caller's"


def test_products_of_one_row_are_sums():
    x, weight, bias = torch.randn(1, 5), torch.randn(5, 7), torch.randn(7)
    torch.testing.assert_close(compiled._product_of_rows(x, weight), x @ weight)
    torch.testing.assert_close(compiled._sum_and_product(bias, x, weight), torch.addmm(bias, x, weight))
    assert compiled._product_of_rows(torch.randn(2, 5), weight) is NotImplemented
    assert compiled._sum_and_product(bias, x, weight, alpha=2) is NotImplemented


@pytest.mark.clients
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_really_compiled(dtype):
    model = model_of("llama").to(getattr(torch, dtype))
    expected = generate(model, ONE, max_new_tokens=6)
    found = generate(model, ONE, compile=True, max_new_tokens=6)
    assert torch.equal(found, expected) or dtype == "bfloat16"
    assert found.shape == expected.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("way", WAYS)
def test_graphs_of_a_gpu(way):
    prompt, settings = WAYS[way]
    prompt = {name: value.to("cuda") for name, value in prompt.items()}
    model = model_of("llama").to("cuda")
    expected = ids(generate(model, prompt, **settings))
    for _ in range(3):
        assert torch.equal(ids(generate(model, prompt, compile=True, **settings)), expected)
