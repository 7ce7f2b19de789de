"""What holds for every class with a head: a save and a load change nothing, and base and head read each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pretrained import AutoConfig


def first_output(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs, return_dict=True).to_tuple()[0]


def assert_round_trip(model: Any, inputs: dict[str, torch.Tensor], folder: Path) -> None:
    """Saves and loads `model`: the same class, names, weights, ties and outputs."""
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["architectures"] == [type(model).__name__]
    assert type(AutoConfig.from_pretrained(folder)) is type(model.config)
    written = load_file(folder / "model.safetensors")
    assert set(written) == set(dict(model.named_parameters()))
    attention = model.config._attn_implementation
    again, report = type(model).from_pretrained(folder, attn_implementation=attention, output_loading_info=True)
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
    pairs = zip(model.named_parameters(), again.named_parameters(), strict=True)
    for (name, one), (other_name, other) in pairs:
        assert name == other_name
        assert torch.equal(one, other), name
        assert one.requires_grad == other.requires_grad, name
    assert again.config.to_dict() == model.config.to_dict()
    assert torch.equal(first_output(again, inputs), first_output(model, inputs))


def assert_base_and_head(base_class: type, head: Any, folder: Path) -> None:
    """The head's checkpoint fills the base model, and the base model's the head's body."""
    head.save_pretrained(folder / "head")
    base, report = base_class.from_pretrained(folder / "head", output_loading_info=True)  # type: ignore[attr-defined]
    assert all("pooler" in name for name in report["missing_keys"])
    body = dict(head.base_model.named_parameters())
    assert body
    for name, value in base.named_parameters():
        if "pooler" not in name:
            assert torch.equal(value, body[name]), name
    base.save_pretrained(folder / "base")
    again, report = type(head).from_pretrained(folder / "base", output_loading_info=True)
    prefix = head.base_model_prefix + "."
    assert report["missing_keys"]
    assert not [name for name in report["missing_keys"] if name.startswith(prefix)]
    for name, value in again.base_model.named_parameters():
        assert torch.equal(value, body[name]), name
