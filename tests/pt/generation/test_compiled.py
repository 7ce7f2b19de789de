"""compile=True: the same text, one graph for calls of like shapes, caches that are used again."""

from __future__ import annotations

import logging

import pytest
import torch
from small import BATCH, ONE, PADDED, generate, model_of
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental.proxy_tensor import make_fx

from pretrained import LlamaForCausalLM, TorchAoConfig
from pretrained.pt.generation import compiled, compiled_products

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


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_few_rows_are_sums(num_rows, dtype):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(num_rows, 5).to(dtype), torch.randn(5, 7).to(dtype), torch.randn(7).to(dtype)
    rounding = {"rtol": 2**-7 if dtype == torch.bfloat16 else 1e-5, "atol": 1e-6}
    exact = x.double() @ weight.double()
    found = compiled_products._product(x, weight)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, **rounding)
    found = compiled_products._sum_and_product(bias, x, weight)
    torch.testing.assert_close(found.double(), exact + bias.double(), **rounding)


@pytest.mark.parametrize("x", [torch.ones(9, 5), torch.ones(5, 5).bfloat16(), torch.ones(0, 5), torch.ones(1, 5).int()])
def test_other_products_stay(x):
    weight = torch.ones(5, 7, dtype=x.dtype)
    assert compiled_products._product(x, weight) is NotImplemented
    assert compiled_products._sum_and_product(weight[0], x, weight) is NotImplemented
    assert (
        compiled_products._sum_and_product(torch.ones(7), torch.ones(1, 5), torch.ones(5, 7), alpha=2) is NotImplemented
    )


def test_int8_is_widened_once():
    convert = torch.ops.prims.convert_element_type

    def widened(*weights):
        return [convert(convert(weight, torch.bfloat16), torch.float32) for weight in weights]

    weights = torch.arange(-128, 128, dtype=torch.int8), torch.randn(8), torch.arange(3)
    graph = make_fx(widened)(*weights)
    (change,) = compiled_products.OPTIONS.values()
    change(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    # float32 and int64 are rounded on the way, int8 is not.
    assert [node.args[0].op for node in graph.graph.nodes if node.args[1:] == (torch.float32,)] == [
        "placeholder",
        "call_function",
        "call_function",
    ]
    assert all(torch.equal(found, expected) for found, expected in zip(graph(*weights), widened(*weights), strict=True))


# Inductor, when it is imported.
inductor_warns = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


@pytest.mark.clients
@inductor_warns
@pytest.mark.parametrize(
    ("way", "dtype"), [("one", "float32"), ("one", "bfloat16"), ("batch", "float32"), ("beams", "bfloat16")]
)
def test_really_compiled(way, dtype):
    prompt, settings = WAYS[way]
    model = model_of("llama").to(getattr(torch, dtype))
    expected = generate(model, prompt, max_new_tokens=6, **settings)
    found = generate(model, prompt, compile=True, max_new_tokens=6, **settings)
    assert torch.equal(found, expected) or dtype == "bfloat16"
    assert found.shape == expected.shape


@pytest.mark.quant
@inductor_warns
def test_int8_is_really_compiled(tmp_path):
    pytest.importorskip("torchao")
    model_of("llama").save_pretrained(tmp_path)
    quantization_config = TorchAoConfig("int8_weight_only")
    model = LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=quantization_config, dtype="float32")
    assert torch.equal(generate(model, ONE, compile=True, max_new_tokens=6), generate(model, ONE, max_new_tokens=6))


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
