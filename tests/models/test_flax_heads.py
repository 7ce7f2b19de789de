"""The cases of tests/reference/*_heads in JAX: outputs that the reference's torch classes gave of the same weights."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
import pytest
from flax_cases import CASES as CLASSES
from safetensors.numpy import load_file
from tiny import REFERENCE

from pretrained import FlaxLlamaForCausalLM
from pretrained.flax import calls
from pretrained.models.llama.configuration_llama import LlamaConfig

FAMILIES = ("bert", "distilbert", "gpt2", "llama", "mistral", "qwen2", "qwen3", "roberta")
# What torch's classes take for a loss or a cache, and JAX classes do not take.
TORCH_ONLY = (
    *("labels", "next_sentence_label", "start_positions", "end_positions", "mc_labels", "num_items_in_batch"),
    "use_cache",
)
LOSSES = ("loss", "mc_loss")
DESCRIBED = {family: json.loads((REFERENCE / f"{family}_heads/cases.json").read_text()) for family in FAMILIES}
ROPE = json.loads((REFERENCE / "llama_rope/cases.json").read_text())
CASES = [(family, case) for family in FAMILIES for case in sorted(DESCRIBED[family]["cases"])]


def find_class(name: str) -> Any:
    return next(case.cls for case in CLASSES if case.torch.cls.__name__ == name)


def filled(model: Any, weights: dict[str, np.ndarray], case: str) -> dict[str, np.ndarray]:
    """Name → value of every parameter; files have names with and without the base's prefix, some of one case alone."""
    prefix = f"{model.base_model_prefix}."
    found = {}
    for place in model.structure.places:
        name = place.name
        names = (f"{case}|{name}", name, prefix + name, name.removeprefix(prefix))
        found[name] = weights[next(key for key in names if key in weights)]
    return found


@pytest.mark.parametrize(("family", "case"), CASES)
def test_heads(family: str, case: str) -> None:
    folder, described = REFERENCE / f"{family}_heads", DESCRIBED[family]
    spec, arrays = described["cases"][case], np.load(folder / "inputs.npz")
    cls = find_class(spec["class"])
    config = cls.config_class.from_dict(described["base"] | spec.get("config", {}), attn_implementation="eager")
    weights = filled(cls(config, _do_init=False), load_file(folder / "model.safetensors"), case)
    model = cls.from_pretrained(None, config=config, state_dict=weights)
    given = {k: arrays[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items() if k not in TORCH_ONLY}
    assert all(calls.takes(cls.module_class, name) for name in given)
    with jax.disable_jit():
        output = model(**given)
    everything, seen = np.load(folder / "expected.npz"), arrays["attention_mask"].astype(bool)
    is_causal = family not in ("bert", "roberta", "distilbert")
    expected = {key.split("/")[1]: everything[key] for key in everything if key.startswith(f"{case}/")}
    for name in expected.keys() - set(LOSSES):
        field, _, index = name.partition(".")
        found, value = np.asarray(output[field][int(index)] if index else output[field]), expected[name]
        assert found.shape == value.shape, name
        if is_causal and name.startswith("attentions"):  # queries that are padding are undefined
            found, value = found.swapaxes(1, 2), value.swapaxes(1, 2)
        if is_causal and value.shape[:2] == seen.shape:
            found, value = found[seen], value[seen]
        worst = np.abs(found - value).max()
        assert worst <= 2e-5, f"{name} is off by {worst}"


@pytest.mark.parametrize("case", sorted(ROPE["cases"]))
def test_rope(case: str) -> None:
    """Every way to stretch the frequencies, at three lengths."""
    folder = REFERENCE / "llama_rope"
    config = LlamaConfig.from_dict(ROPE["base"] | ROPE["cases"][case], attn_implementation="eager")
    model = FlaxLlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=load_file(folder / "model.safetensors")
    )
    expected, inputs = np.load(folder / "expected.npz"), np.load(folder / "inputs.npz")
    for name in inputs:
        with jax.disable_jit():
            found = np.asarray(model(inputs[name]).logits)[:, 3::4]
        worst = np.abs(found - expected[f"{case}/{name}"]).max()
        assert worst <= 5e-5, f"{name}: {worst}"
