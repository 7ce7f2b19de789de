"""accelerate: a loop as its documentation has it, and every way it saves and loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from small_training import KINDS, Rows, fresh, same, values_of
from torch.utils.data import DataLoader


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    """Settings that accelerate keeps for the whole program are gone afterwards."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def trained(kind: str) -> tuple[Accelerator, Any, Any]:
    """A model after three steps, with what prepared it."""
    accelerator = Accelerator(cpu=True)
    model = fresh(kind)
    before = values_of(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(Rows(kind), batch_size=4))
    losses = []
    for batch in loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert len(losses) == 3
    assert not same(before, values_of(model))
    return accelerator, model, optimizer


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_state_is_saved_and_loaded(kind: str, safe: bool, tmp_path: Path) -> None:
    accelerator, model, optimizer = trained(kind)
    values, moments = values_of(model), optimizer.state_dict()["state"][0]["exp_avg"].clone()
    accelerator.save_state(tmp_path, safe_serialization=safe)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
        optimizer.state_dict()["state"][0]["exp_avg"].zero_()
    accelerator.load_state(tmp_path)
    assert same(values_of(model), values)
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], moments)
    auto, config = KINDS[kind]
    again, report = auto.from_pretrained(tmp_path, config=config(), output_loading_info=True)
    assert same(values_of(again), values)
    assert report["missing_keys"] == report["unexpected_keys"] == []


@pytest.mark.parametrize("size", ["1GB", "10KB"], ids=["one-file", "shards"])
def test_save_model(kind: str, size: str, tmp_path: Path) -> None:
    accelerator, model, _ = trained(kind)
    accelerator.save_model(model, tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == "10KB")
    auto, config = KINDS[kind]
    again, report = auto.from_pretrained(tmp_path, config=config(), output_loading_info=True)
    assert same(values_of(again), values_of(model))
    assert report["missing_keys"] == report["unexpected_keys"] == []


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_save_pretrained_with_its_save_function(kind: str, safe: bool, tmp_path: Path) -> None:
    accelerator, model, _ = trained(kind)
    unwrapped = accelerator.unwrap_model(model)
    unwrapped.save_pretrained(
        tmp_path,
        is_main_process=accelerator.is_main_process,
        save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(model),
        safe_serialization=safe,
    )
    assert (tmp_path / ("model.safetensors" if safe else "pytorch_model.bin")).exists()
    assert same(values_of(KINDS[kind][0].from_pretrained(tmp_path)), values_of(model))


def test_mixed_precision(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model = accelerator.prepare(fresh("decoder"))
    ids = Rows("decoder").ids[:2]
    output = model(input_ids=ids, labels=ids)
    assert type(output).__name__ == "CausalLMOutputWithPast"
    assert output.logits.dtype == torch.float32  # accelerate casts what comes out, and so must find it
    accelerator.backward(output.loss)
    accelerator.unwrap_model(model, keep_fp32_wrapper=False).save_pretrained(tmp_path)
    assert same(values_of(KINDS["decoder"][0].from_pretrained(tmp_path)), values_of(accelerator.unwrap_model(model)))
