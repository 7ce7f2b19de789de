"""torch models from what Flax wrote: the numbers of the reference, in one dtype and another, mapped and copied."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import pretrained
from pretrained.checkpoint.formats.safetensors import read_header

FORMS = ["flax-msgpack", "flax-msgpack-sharded", "flax-safetensors"]
CLASSES = [
    *(("bert", "BertModel"), ("bert", "BertForPreTraining"), ("bert", "BertForMaskedLM")),
    *(("llama", "LlamaModel"), ("llama", "LlamaForCausalLM")),
]


def run(model: torch.nn.Module, folder: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Outputs for the inputs of the family, and which places count."""
    inputs = {name: torch.from_numpy(value) for name, value in np.load(folder / "inputs.npz").items()}
    with torch.no_grad():
        return model(**inputs), inputs["attention_mask"].bool()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("family", "name"), CLASSES)
def test_outputs_are_those_of_the_reference(reference: Path, family: str, name: str, form: str) -> None:
    folder = reference / family
    model, info = getattr(pretrained, name).from_pretrained(
        folder / form, output_loading_info=True, attn_implementation="eager"
    )
    assert not info.missing_keys and not info.mismatched_keys and not info.conflicts
    output, seen = run(model, folder)
    expected = np.load(folder / "expected.npz")
    keys = [key for key in expected if key.startswith((f"torch/{name}/", f"flax/{name}/"))]
    assert {key.split("/")[0] for key in keys} == {"torch", "flax"}
    for key in keys:
        found, wanted = output[key.split("/")[2]], torch.from_numpy(expected[key])
        if family == "llama":  # what stands at places that are masked out is not defined
            found, wanted = found[seen], wanted[seen]
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("keywords", [{}, {"mmap": False}, {"dtype": "bfloat16"}, {"dtype": "float64", "mmap": False}])
def test_every_way_of_reading_gives_the_same_weights(
    reference: Path, family: str, form: str, keywords: dict[str, object]
) -> None:
    model = pretrained.AutoModel.from_pretrained(reference / family / form, **keywords)
    expected = pretrained.AutoModel.from_pretrained(reference / family / "torch-safetensors", **keywords)
    ours, theirs = model.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].is_contiguous() for name in theirs)


@pytest.mark.parametrize("form", FORMS)
def test_saved_again_it_is_torchs(reference: Path, form: str, tmp_path: Path) -> None:
    model = pretrained.LlamaForCausalLM.from_pretrained(reference / "llama" / form)
    model.save_pretrained(tmp_path)
    again, info = pretrained.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True, strict=True)
    assert info.is_clean
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    theirs = read_header(reference / "llama" / "torch-safetensors" / "model.safetensors")
    ours = read_header(tmp_path / "model.safetensors")
    assert set(ours.entries) == set(theirs.entries)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
