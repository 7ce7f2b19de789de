"""Writes vit_heads/: what every ViT head makes of tiny images, with losses.

Run once with transformers 5.23.0: `python make_vit_heads.py`. Each case names a class, changes to the config,
arguments of the constructor and inputs; a value `"@name"` is an array of inputs.npz. Weights follow from the names
they have on disk (tests/models/drawn_weights.py).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from drawn_weights import draw

HERE = Path(__file__).parent / "vit_heads"
BASE = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 30,
    "image_size": 12,
    "patch_size": 4,
    "encoder_stride": 4,
}
IMAGES = {"pixel_values": "@images"}
EVERYTHING = {"output_attentions": True, "output_hidden_states": True}
CLASSIFIER = "ViTForImageClassification"
FILLER = "ViTForMaskedImageModeling"
CASES: dict[str, dict] = {
    "model": {"class": "ViTModel", "inputs": {**IMAGES, **EVERYTHING}},
    "model-no-pooler": {"class": "ViTModel", "arguments": {"add_pooling_layer": False}, "inputs": IMAGES},
    "model-masked": {
        "class": "ViTModel",
        "arguments": {"use_mask_token": True},
        "inputs": {**IMAGES, "bool_masked_pos": "@masked"},
    },
    "model-larger": {
        "class": "ViTModel",
        "inputs": {"pixel_values": "@larger", "interpolate_pos_encoding": True, **EVERYTHING},
    },
    "model-smaller": {"class": "ViTModel", "inputs": {"pixel_values": "@smaller", "interpolate_pos_encoding": True}},
    "model-same-size": {"class": "ViTModel", "inputs": {**IMAGES, "interpolate_pos_encoding": True}},
    "model-no-bias": {
        "class": "ViTModel",
        "config": {"qkv_bias": False, "pooler_output_size": 10, "pooler_act": "relu", "hidden_act": "quick_gelu"},
        "inputs": IMAGES,
    },
    "model-gray": {"class": "ViTModel", "config": {"num_channels": 1}, "inputs": {"pixel_values": "@gray"}},
    "model-pairs": {
        "class": "ViTModel",
        "config": {"image_size": [8, 12], "patch_size": [4, 3], "hidden_act": "gelu_new"},
        "inputs": {"pixel_values": "@oblong"},
    },
    "single-label": {"class": CLASSIFIER, "config": {"num_labels": 3}, "inputs": {**IMAGES, "labels": "@classes"}},
    "multi-label": {"class": CLASSIFIER, "config": {"num_labels": 3}, "inputs": {**IMAGES, "labels": "@many"}},
    "regression": {"class": CLASSIFIER, "config": {"num_labels": 1}, "inputs": {**IMAGES, "labels": "@numbers"}},
    "classifier-larger": {
        "class": CLASSIFIER,
        "config": {"num_labels": 3},
        "inputs": {"pixel_values": "@larger", "interpolate_pos_encoding": True, **EVERYTHING},
    },
    "filler": {"class": FILLER, "inputs": {**IMAGES, "bool_masked_pos": "@masked", **EVERYTHING}},
    "filler-unmasked": {"class": FILLER, "config": {"encoder_stride": 2}, "inputs": IMAGES},
}


def make_inputs() -> dict[str, torch.Tensor]:
    return {
        "images": torch.randn(2, 3, 12, 12),
        "larger": torch.randn(2, 3, 21, 16),
        "smaller": torch.randn(1, 3, 8, 8),
        "gray": torch.randn(2, 1, 12, 12),
        "oblong": torch.randn(2, 3, 8, 12),
        "masked": torch.rand(2, 9) < 0.4,
        "classes": torch.tensor([2, 0]),
        "many": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
        "numbers": torch.tensor([0.3, -1.2]),
    }


def flatten(name: str, value: object) -> dict[str, np.ndarray]:
    if isinstance(value, torch.Tensor):
        return {name: value.detach().numpy()}
    return {f"{name}.{i}": item.detach().numpy() for i, item in enumerate(value)}


def filled(spec: dict) -> transformers.PreTrainedModel:
    """The model with drawn weights, by way of a checkpoint: in memory its parameters have other names."""
    config = transformers.ViTConfig(**(BASE | spec.get("config", {})), attn_implementation="eager")
    cls, arguments = getattr(transformers, spec["class"]), spec.get("arguments", {})
    with tempfile.TemporaryDirectory() as folder:
        cls(config, **arguments).save_pretrained(folder)
        path = f"{folder}/model.safetensors"
        weights = {name: torch.from_numpy(draw(name, value.shape)) for name, value in load_file(path).items()}
        save_file(weights, path, metadata={"format": "pt"})
        model, found = cls.from_pretrained(folder, attn_implementation="eager", output_loading_info=True, **arguments)
    assert not any(found.values()), found
    return model.eval()


def main() -> None:
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(0)
    inputs = make_inputs()
    expected: dict[str, np.ndarray] = {}
    for case, spec in CASES.items():
        given = {k: inputs[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items()}
        with torch.no_grad():
            output = filled(spec)(**given)
        for name, value in output.items():
            expected |= flatten(f"{case}/{name}", value)
    (HERE / "cases.json").write_text(json.dumps({"base": BASE, "cases": CASES}, indent=2, sort_keys=True) + "\n")
    np.savez_compressed(HERE / "inputs.npz", **{k: v.numpy() for k, v in inputs.items()})
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
