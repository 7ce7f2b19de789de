"""Every reference checkpoint, whoever wrote it, gives in JAX the outputs that torch gave; and ours have Flax's tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict
from flax_cases import CASES as CLASSES
from flax_cases import flax_families
from test_every_format import CASES, is_decoder_only, tolerance
from tiny import REFERENCE

FAMILIES = sorted(set(flax_families()) & {family for family, _ in CASES})


def find_class(family: str, name: str) -> Any:
    """The JAX class of torch's class `name`, or None if there is none."""
    return next((case.cls for case in CLASSES if case.model_type == family and case.torch.cls.__name__ == name), None)


def load(cls: Any, family: str, name: str) -> Any:
    folder: Path = REFERENCE / family / name
    variant = "bf16" if "variant" in name else None
    model, report = cls.from_pretrained(folder, variant=variant, dtype="float32", output_loading_info=True)
    written = json.loads((folder / "config.json").read_text())["architectures"]
    if written == [cls.__name__.removeprefix("Flax")]:
        # Flax's Wav2Vec2 always has the vector that stands for masked frames.
        left = {"wav2vec2.masked_spec_embed"} if (family, name[:4]) == ("wav2vec2", "flax") else set()
        assert not report["missing_keys"] and set(report["unexpected_keys"]) == left, report.render()
    assert not report["mismatched_keys"] and not report["conflicts"]
    return model


@pytest.mark.parametrize(("family", "folder"), [case for case in CASES if case[0] in FAMILIES])
def test_outputs(family: str, folder: str) -> None:
    inputs = dict(np.load(REFERENCE / family / "inputs.npz"))
    arrays = np.load(REFERENCE / family / "expected.npz")
    expected = {key: arrays[key] for key in arrays if key.startswith("torch/")}
    checked = 0
    for name in sorted({key.split("/")[1] for key in expected}):
        cls = find_class(family, name)
        is_base = name.endswith("Model") and "LMHead" not in name
        if cls is None or (folder == "torch-base-only" and not is_base):
            continue  # its head would be a new one
        accepted = {key: value for key, value in inputs.items() if not (name == "T5EncoderModel" and "decoder" in key)}
        output = load(cls, family, folder)(**accepted)
        seen = inputs["attention_mask"].astype(bool) if is_decoder_only(family) else slice(None)
        for key in (key for key in expected if key.split("/")[1] == name):
            found, wanted = np.asarray(output[key.split("/")[2]]), expected[key]
            assert found.shape == wanted.shape
            worst = np.abs(found[seen] - wanted[seen]).max()
            assert worst <= tolerance(folder), f"{key}: {worst}"
            checked += 1
    assert checked


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tree_is_that_of_flax(family: str, tmp_path: Path) -> None:
    """Name for name and bit for bit what transformers' Flax class wrote of the same weights."""
    written = REFERENCE / family / "flax-msgpack"
    (name,) = json.loads((written / "config.json").read_text())["architectures"]
    model = find_class(family, name).from_pretrained(REFERENCE / family / "torch-safetensors")
    model.save_pretrained(tmp_path, safe_serialization=False, durable=False)
    found, expected = (
        flatten_dict(msgpack_restore((folder / "flax_model.msgpack").read_bytes()), sep="/")
        for folder in (tmp_path, written)
    )
    # Flax's Wav2Vec2 always has the vector that stands for masked frames.
    expected = {name: value for name, value in expected.items() if name != "wav2vec2/masked_spec_embed"}
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and np.array_equal(found[name], value), name


def test_families_are_found() -> None:
    assert {"bert", "gpt2", "llama"} <= set(FAMILIES)
    assert not jax.config.read("jax_enable_x64")
