"""Llama, Mistral and Qwen in TensorFlow: every head and every kind of rotary positions against torch, every format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from tf_cases import check_case, check_reference, check_round_trip, find_tf
from tiny import REFERENCE

from pretrained import TFLlamaForCausalLM
from pretrained.models.llama.configuration_llama import LlamaConfig

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
DESCRIBED = {family: json.loads((REFERENCE / f"{family}_heads/cases.json").read_text()) for family in FAMILIES}
CASES = [
    (family, name)
    for family in FAMILIES
    for name, case in sorted(DESCRIBED[family]["cases"].items())
    if "num_items_in_batch" not in case["inputs"]  # torch's alone
]
ROPE = json.loads((REFERENCE / "llama_rope/cases.json").read_text())
FOLDERS = sorted(path.name for path in (REFERENCE / "llama").iterdir() if path.is_dir())


@pytest.mark.parametrize(("family", "case"), CASES)
def test_heads(family: str, case: str) -> None:
    check_case(family, case)


@pytest.mark.parametrize("case", sorted(ROPE["cases"]))
def test_rope(case: str) -> None:
    """Every way to stretch the frequencies, at three lengths, each also where the length is not known beforehand."""
    folder = REFERENCE / "llama_rope"
    config = LlamaConfig.from_dict(ROPE["base"] | ROPE["cases"][case])
    model = TFLlamaForCausalLM.from_pretrained(None, config=config, state_dict=load_file(folder / "model.safetensors"))
    traced = tf.function(lambda x: model(x).logits, input_signature=[tf.TensorSpec((None, None), tf.int64)])
    expected, inputs = np.load(folder / "expected.npz"), np.load(folder / "inputs.npz")
    for name in inputs:
        calls = (model.__call__, traced) if "dynamic" in case or "longrope" in case else (model.__call__,)
        for call in calls:
            output = call(inputs[name])
            found = np.asarray(output if call is traced else output.logits)[:, 3::4]
            np.testing.assert_allclose(found, expected[f"{case}/{name}"], atol=5e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_format(folder: str) -> None:
    check_reference("llama", "LlamaModel", folder)
    if folder != "torch-base-only":
        check_reference("llama", "LlamaForCausalLM", folder)


@pytest.mark.parametrize(("model_type", "name"), [("llama", "LlamaForCausalLM"), ("mistral", "MistralForCausalLM")])
def test_round_trip(model_type: str, name: str, tmp_path: Path) -> None:
    for safe in (True, False):
        check_round_trip(find_tf(model_type, name), model_type, tmp_path / str(safe), safe=safe)
