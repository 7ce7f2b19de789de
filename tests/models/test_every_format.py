"""Every reference checkpoint, whoever wrote it, gives the outputs that torch gave; no other framework is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import REFERENCE, find_class, load_arrays

FAMILIES = ("bert", "gpt2", "llama", "t5", "vit", "wav2vec2")
CASES = sorted(
    (family, folder.name)
    for family in FAMILIES
    for folder in (REFERENCE / family).glob("*")
    if (folder / "config.json").is_file()
)
# Sixteen bits hold eight (bfloat16) or eleven of a number's bits; the outputs are of the order of one.
TOLERANCE = {"bf16": 6e-2, "fp16": 6e-3}


def tolerance(folder: str) -> float:
    return next((value for ending, value in TOLERANCE.items() if folder.endswith(ending)), 2e-5)


def is_decoder_only(family: str) -> bool:
    return family in ("gpt2", "llama")


def load(cls: type, family: str, name: str) -> torch.nn.Module:
    folder: Path = REFERENCE / family / name
    variant = "bf16" if "variant" in name else None
    model, report = cls.from_pretrained(folder, variant=variant, dtype=torch.float32, output_loading_info=True)
    if json.loads((folder / "config.json").read_text())["architectures"] == [cls.__name__]:
        # Flax's Wav2Vec2 always has the vector that stands for masked frames.
        left = {"wav2vec2.masked_spec_embed"} if (family, name[:4]) == ("wav2vec2", "flax") else set()
        assert not report["missing_keys"] and set(report["unexpected_keys"]) == left, report.render()
    assert not report["mismatched_keys"] and not report["conflicts"]
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    return model


@pytest.mark.parametrize(("family", "folder"), CASES)
def test_outputs(family: str, folder: str) -> None:
    inputs = load_arrays(REFERENCE / family / "inputs.npz")
    expected = {
        key: value for key, value in load_arrays(REFERENCE / family / "expected.npz").items() if key[:6] == "torch/"
    }
    names = sorted({key.split("/")[1] for key in expected})
    checked = 0
    for name in names:
        is_base = name.endswith("Model") and "LMHead" not in name
        if folder == "torch-base-only" and not is_base:
            continue  # its head would be a new one
        model = load(find_class(family, name), family, folder)
        wanted = {key.split("/")[2]: value for key, value in expected.items() if key.split("/")[1] == name}
        accepted = {key: value for key, value in inputs.items() if not (name == "T5EncoderModel" and "decoder" in key)}
        with torch.no_grad():
            output = model(**accepted)
        seen = inputs["attention_mask"].bool() if is_decoder_only(family) else slice(None)
        for key, value in wanted.items():
            worst = (output[key][seen].float() - value[seen]).abs().max().item()
            assert output[key].shape == value.shape and worst <= tolerance(folder), f"{name}.{key}: {worst}"
            checked += 1
    assert checked


def test_all_are_there() -> None:
    kinds = {folder for _, folder in CASES}
    assert {"tf-h5", "tf-h5-sharded", "tf1-ckpt", "flax-msgpack", "flax-msgpack-sharded", "torch-bin-sharded"} <= kinds
    assert {family for family, _ in CASES} == set(FAMILIES)
