"""The cases of tests/reference/*_heads whose weights are drawn by name."""

from __future__ import annotations

import json
from typing import Any

import torch
from drawn_weights import draw
from tiny import REFERENCE, find_class, load_arrays

from pretrained.auto.registry import config_class_for


def fill(model: torch.nn.Module) -> None:
    """Gives every parameter the values that its name stands for."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(draw(name, parameter.shape)))


def run_drawn(family: str, case: str, attention: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """Output of one case, and what was expected of it."""
    folder = REFERENCE / f"{family}_heads"
    described = json.loads((folder / "cases.json").read_text())
    spec, inputs = described["cases"][case], load_arrays(folder / "inputs.npz")
    values = described["base"] | spec.get("config", {})
    config = config_class_for({"model_type": family}).from_dict(values, attn_implementation=attention)
    model = find_class(family, spec["class"])(config, **spec.get("arguments", {})).eval()
    fill(model)
    given = {k: inputs[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items()}
    with torch.no_grad():
        output = model(**given)
    everything = load_arrays(folder / "expected.npz")
    return output, {name.split("/")[1]: value for name, value in everything.items() if name.startswith(f"{case}/")}
