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


def compare_with_reference(family: str, name: str, folder: str, attention: str) -> None:
    """Loads one of the reference's checkpoints and compares what it computes; half precision loads as it is."""
    place = REFERENCE / family / folder
    more = {"variant": "bf16"} if "variant" in folder else {}
    model = find_class(family, name).from_pretrained(place, attn_implementation=attention, **more)
    half = {"torch-bin-fp16": torch.float16}.get(folder, torch.bfloat16 if "bf16" in folder else torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {half}
    assert not any(parameter.is_meta for parameter in model.parameters())
    with torch.no_grad():
        output = model.float()(**load_arrays(REFERENCE / family / "inputs.npz"))
    expected = load_arrays(REFERENCE / family / "expected.npz")
    keys = [key for key in expected if key.startswith(f"torch/{name}/")]
    assert keys
    for key in keys:
        # Weights of 8 bits' precision give results of about as many.
        limit = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}[half]
        torch.testing.assert_close(output[key.split("/")[2]], expected[key], atol=limit, rtol=0)


def round_trip(family: str, name: str, folder: str, target: Any) -> None:
    """Loads a checkpoint into a class, saves and loads it again: the same names, the same bits, the same config."""
    cls, more = find_class(family, name), {"variant": "bf16"} if "variant" in folder else {}
    torch.manual_seed(0)
    model = cls.from_pretrained(REFERENCE / family / folder, **more)
    model.save_pretrained(target, max_shard_size="40kB")
    again, report = cls.from_pretrained(target, output_loading_info=True, strict=True)
    assert report["missing_keys"] == report["unexpected_keys"] == []
    first, second = model.state_dict(), again.state_dict()
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value.dtype == second[key].dtype, key
        assert torch.equal(value, second[key]), key
    assert model.config.to_dict() == again.config.to_dict()
    assert not again.training
