"""Linear layers of few rows in bfloat16: the same numbers, and the layers as they were afterwards."""

from __future__ import annotations

import pytest
import torch
from small import ONE, generate, model_of
from torch import nn

from pretrained.pt.generation.few_rows import few_row_products


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 64), (64,), (2, 1, 64), (1, 3, 64), (17, 64), (0, 64)])
def test_products_are_the_same(bias, shape):
    torch.manual_seed(0)
    layer = nn.Linear(64, 96, bias=bias).to(torch.bfloat16)
    x = torch.randn(shape, dtype=torch.bfloat16)
    expected = layer(x)
    with few_row_products(layer, None):
        assert isinstance(layer, nn.Linear) and type(layer) is not nn.Linear
        found = layer(x)
    assert type(layer) is nn.Linear
    torch.testing.assert_close(found, expected, atol=0, rtol=2**-7)  # one rounding apart at most


def test_a_layer_set_back_meanwhile():
    layer = nn.Linear(64, 96).to(torch.bfloat16)
    with few_row_products(layer):
        forward = layer.forward  # as a call of another thread has it
    assert type(layer) is nn.Linear
    for num_rows in (1, 2, 17):
        assert forward(torch.ones(num_rows, 64, dtype=torch.bfloat16)).shape == (num_rows, 96)
    with few_row_products(layer), pytest.raises(RuntimeError, match="cannot be multiplied"):
        layer(torch.ones(1, 128, dtype=torch.bfloat16))  # as many numbers as two rows


def test_other_types_stay():
    single, scaled = nn.Linear(8, 8), nn.Linear(8, 8).to(torch.bfloat16)
    with few_row_products(single), torch.autocast("cpu", torch.bfloat16), few_row_products(scaled):
        assert type(single) is nn.Linear
        assert scaled(torch.ones(1, 8)).dtype == torch.bfloat16  # autocast sees to an input of another type


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_generation_in_bfloat16(family):
    model = model_of(family).to(torch.bfloat16)
    seen = []
    layer = model.model.layers[0].mlp.down_proj
    layer.register_forward_hook(lambda module, inputs, output: seen.append((type(module), tuple(output.shape))))
    found = generate(model, ONE)
    assert type(layer) is nn.Linear
    assert seen[0][1][1] == ONE["input_ids"].shape[1] and all(shape[1] == 1 for _, shape in seen[1:])
    assert all(kind is not nn.Linear for kind, _ in seen)
    text = ONE["input_ids"]
    while text.shape[1] < found.shape[1]:
        text = torch.cat((text, found[:, text.shape[1], None]), 1)
        logits = model(text[:, :-1]).logits[0, -1]
        assert logits[text[0, -1]] >= logits.max() - 0.1  # the whole text anew: other sums


def test_layers_are_as_before_after_an_error():
    model = model_of("llama").to(torch.bfloat16)
    with pytest.raises(RuntimeError, match="enough"):
        generate(model, ONE, logits_processor=[_Fails()])
    assert type(model.lm_head) is nn.Linear


class _Fails:
    def __call__(self, input_ids, scores):
        raise RuntimeError("enough")
