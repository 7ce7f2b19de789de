"""Linear layers of few rows: the same numbers, and the layers as they were afterwards."""

from __future__ import annotations

import platform
import threading
from pathlib import Path

import pytest
import torch
from small import ONE, generate, model_of
from torch import nn

from pretrained.pt.generation import few_rows
from pretrained.pt.generation.few_rows import few_row_products

KINDS = {torch.float32: few_rows._Float32Linear, torch.bfloat16: few_rows._Bfloat16Linear}
DTYPES = pytest.mark.parametrize("dtype", KINDS, ids=["float32", "bfloat16"])


@pytest.fixture(autouse=True)
def any_processor(monkeypatch):
    """As if the products of both types were slow here."""
    monkeypatch.setattr(few_rows, "_kinds", lambda: KINDS)


@DTYPES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 64), (1, 64), (64,), (2, 1, 64), (1, 3, 64), (5, 64), (8, 64), (17, 64), (0, 64)]
)
def test_products_are_the_same(bias, shape, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(64, 96, bias=bias).to(dtype)
    x = torch.randn(shape, dtype=dtype)
    expected = layer(x)
    with few_row_products(layer, None):
        assert isinstance(layer, nn.Linear) and type(layer) is KINDS[dtype]
        found = layer(x)
    assert type(layer) is nn.Linear
    assert found.is_contiguous()
    rounding = 2**-7 if dtype == torch.bfloat16 else 1e-5  # one apart at most
    torch.testing.assert_close(found, expected, atol=0 if dtype == torch.bfloat16 else 1e-6, rtol=rounding)


@DTYPES
def test_a_layer_set_back_meanwhile(dtype):
    layer = nn.Linear(64, 96).to(dtype)
    with few_row_products(layer):
        forward = layer.forward  # as a call of another thread has it
    assert type(layer) is nn.Linear
    for num_rows in (1, 2, 17):
        assert forward(torch.ones(num_rows, 64, dtype=dtype)).shape == (num_rows, 96)
    with few_row_products(layer), pytest.raises(RuntimeError, match="cannot be multiplied"):
        layer(torch.ones(1, 128, dtype=dtype))  # as many numbers as two rows


def test_other_types_stay():
    double, scaled = nn.Linear(8, 8).double(), nn.Linear(8, 8).to(torch.bfloat16)
    with few_row_products(double), torch.autocast("cpu", torch.bfloat16), few_row_products(scaled):
        assert type(double) is nn.Linear
        assert scaled(torch.ones(1, 8)).dtype == torch.bfloat16  # autocast sees to an input of another type


@DTYPES
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_generation(family, dtype):
    model = model_of(family).to(dtype)
    seen = []
    layer = model.model.layers[0].mlp.down_proj
    layer.register_forward_hook(lambda module, inputs, output: seen.append((type(module), tuple(output.shape))))
    found = generate(model, ONE)
    assert type(layer) is nn.Linear
    assert seen[0][1][1] == ONE["input_ids"].shape[1] and all(shape[1] == 1 for _, shape in seen[1:])
    assert all(kind is KINDS[dtype] for kind, _ in seen)
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


@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel"])
@pytest.mark.parametrize("has_instructions", [True, False])
def test_which_processors(monkeypatch, vendor, has_instructions):
    monkeypatch.undo()
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr(platform, "processor", lambda: f"x86 Family 25, {vendor}")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    expected = {torch.float32: few_rows._Float32Linear} if vendor == "AuthenticAMD" else {}
    expected[torch.bfloat16] = few_rows._Bfloat16RowLinear if has_instructions else few_rows._Bfloat16Linear
    assert few_rows._kinds.__wrapped__() == expected


@pytest.mark.parametrize("enabled", [True, False])
def test_one_row_past_onednn(monkeypatch, enabled):
    monkeypatch.setattr(few_rows, "_kinds", lambda: {torch.bfloat16: few_rows._Bfloat16RowLinear})
    monkeypatch.setattr(few_rows, "_is_alone", lambda: True)
    torch.manual_seed(0)
    layer = nn.Linear(640, 96).to(torch.bfloat16)
    seen = []
    real = torch.addmv
    monkeypatch.setattr(torch, "addmv", lambda *args: (seen.append(torch.backends.mkldnn.enabled), real(*args))[1])
    before = torch.backends.mkldnn.set_flags(enabled)[0]
    try:
        for num_rows in (1, 2):
            x = torch.randn(num_rows, 640).to(torch.bfloat16)
            expected = layer(x)
            with few_row_products(layer):
                torch.testing.assert_close(layer(x), expected, atol=1e-3, rtol=2**-7)
            assert torch.backends.mkldnn.enabled is enabled
        with few_row_products(layer), pytest.raises(RuntimeError):
            layer(torch.ones(1, 640, dtype=torch.bfloat16, device="meta"))
        assert torch.backends.mkldnn.enabled is enabled
    finally:
        torch.backends.mkldnn.set_flags(before)
    assert seen == [False, False]


def test_two_threads_in_one_row_leave_onednn_on(monkeypatch):
    layer, x = nn.Linear(8, 8, bias=False).to(torch.bfloat16), torch.ones(1, 8, dtype=torch.bfloat16)
    inside, left, real = threading.Event(), threading.Event(), torch.mv

    def slow(*args):
        if threading.current_thread() is first:  # the second comes while the first is in, and leaves after it
            inside.set()
        elif inside.wait(60):
            first_goes.set()
            left.wait(60)
        if threading.current_thread() is first:
            first_goes.wait(60)
        return real(*args)

    def run_first():
        few_rows._bfloat16_row(layer.weight, None, x)
        left.set()

    first_goes, first = threading.Event(), threading.Thread(target=run_first)
    monkeypatch.setattr(torch, "mv", slow)
    before = torch.backends.mkldnn.set_flags(True)[0]
    try:
        first.start()
        assert inside.wait(60)
        few_rows._bfloat16_row(layer.weight, None, x)
        first.join()
        assert torch.backends.mkldnn.enabled
    finally:
        torch.backends.mkldnn.set_flags(before)


def test_no_setting_of_the_process_is_touched_beside_other_threads(monkeypatch):
    monkeypatch.setattr(few_rows, "_kinds", lambda: {torch.bfloat16: few_rows._Bfloat16RowLinear})
    layer, end = nn.Linear(8, 8).to(torch.bfloat16), threading.Event()
    seen = []

    def look():
        with few_row_products(layer):
            seen.append(type(layer))

    inside = threading.Thread(target=look)  # as with a streamer: the main thread may compute, too
    inside.start()
    inside.join()
    other = threading.Thread(target=end.wait)
    other.start()
    look()
    end.set()
    other.join()
    assert seen == [nn.Linear, nn.Linear]


def test_daemons_are_no_others(monkeypatch):
    main, progress = threading.main_thread(), threading.Thread(daemon=True)
    monkeypatch.setattr(threading, "current_thread", lambda: main)
    monkeypatch.setattr(threading, "enumerate", lambda: [main, progress])
    assert few_rows._is_alone()
