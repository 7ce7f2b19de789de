"""What the make_*_heads.py scripts share: cases of one family computed by transformers 5.23.0 and written to a folder.

A folder holds cases.json, inputs.npz, expected.npz and model.safetensors. Each case names a class, changes to the
config and inputs; a value `"@name"` is an array of inputs.npz. Weights of the base model are stored under its own
names, those of heads under `case|name`; of tied names only the one that is kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file


def text_labels(mask: torch.Tensor, vocab: int, tags: int) -> dict[str, torch.Tensor]:
    """Labels of every kind for 3 texts, of which `mask` says where they have tokens."""
    token_labels = torch.randint(0, vocab, mask.shape)
    token_labels[torch.rand(mask.shape) < 0.6] = -100
    tag_labels = torch.randint(0, tags, mask.shape)
    tag_labels[mask == 0] = -100
    return {
        "token_labels": token_labels,
        "tag_labels": tag_labels,
        "class_labels": torch.tensor([2, 0, 1]),
        "multi_labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
        "numbers": torch.tensor([0.3, -1.2, 2.0]),
        "starts": torch.tensor([1, 12, 0]),
        "ends": torch.tensor([4, 3, 40]),
    }


def classification_cases(prefix: str, text: dict[str, Any]) -> dict[str, dict]:
    """Cases of the heads that nearly all families have."""
    single = f"{prefix}ForSequenceClassification"
    return {
        "single-label": {
            "class": single,
            "config": {"num_labels": 3},
            "inputs": {**text, "labels": "@class_labels"},
        },
        "multi-label": {
            "class": single,
            "config": {"num_labels": 3},
            "inputs": {**text, "labels": "@multi_labels"},
        },
        "regression": {"class": single, "config": {"num_labels": 1}, "inputs": {**text, "labels": "@numbers"}},
        "token": {
            "class": f"{prefix}ForTokenClassification",
            "config": {"num_labels": 5},
            "inputs": {**text, "labels": "@tag_labels"},
        },
        "answer": {
            "class": f"{prefix}ForQuestionAnswering",
            "inputs": {**text, "start_positions": "@starts", "end_positions": "@ends"},
        },
    }


def choice_inputs(vocab: int, pad: int) -> dict[str, torch.Tensor]:
    """Two questions of four choices, one of them shorter."""
    ids = torch.randint(2, vocab, (2, 4, 6))
    mask = torch.ones(2, 4, 6, dtype=torch.int64)
    mask[0, 1, 4:] = 0
    return {
        "choice_ids": torch.where(mask == 1, ids, pad),
        "choice_mask": mask,
        "choice_labels": torch.tensor([3, 0]),
    }


def _draw(name: str, like: torch.Tensor) -> torch.Tensor:
    # Norms near one, everything else near zero, and nothing so even that a mistake would not show.
    scale = name.endswith("weight") and like.dim() == 1
    return torch.randn_like(like) * 0.2 + scale


def _build(case: str, spec: dict, config_class: type, base: dict, weights: dict[str, torch.Tensor]) -> Any:
    config = config_class(**base | json.loads(json.dumps(spec.get("config", {}))), attn_implementation="eager")
    model = getattr(transformers, spec["class"])(config).eval()
    own, prefix = model.state_dict(), f"{model.base_model_prefix}."
    tied = dict(getattr(model, "_tied_weights_keys", None) or {}) if config.tie_word_embeddings else {}
    in_head = getattr(model, model.base_model_prefix, None) is not None
    for name in own:
        if name in tied:
            continue
        is_base = name.startswith(prefix) or not in_head
        key = name.removeprefix(prefix) if is_base else f"{case}|{name}"
        own[name] = weights.setdefault(key, _draw(name, own[name]))
    for target, source in tied.items():
        own[target] = own[source]
    model.load_state_dict(own)
    model.tie_weights()
    return model


def _flatten(name: str, value: object) -> dict[str, np.ndarray]:
    if isinstance(value, torch.Tensor):
        return {name: value.detach().numpy()}
    return {f"{name}.{i}": item.detach().numpy() for i, item in enumerate(value)}  # type: ignore[arg-type]


def write(
    folder: Path, config_class: type, base: dict, cases: dict[str, dict], inputs: dict[str, torch.Tensor]
) -> None:
    """Computes every case and writes the four files."""
    assert transformers.__version__ == "5.23.0", transformers.__version__
    folder.mkdir(exist_ok=True)
    weights: dict[str, torch.Tensor] = {}
    expected: dict[str, np.ndarray] = {}
    for case, spec in cases.items():
        model = _build(case, spec, config_class, base, weights)
        given = {k: inputs[v[1:]] if isinstance(v, str) else v for k, v in spec["inputs"].items()}
        with torch.no_grad():
            output = model(**given)
        for name, value in output.items():
            if name != "past_key_values":
                expected |= _flatten(f"{case}/{name}", value)
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "cases.json").write_text(json.dumps({"base": base, "cases": cases}, indent=2, sort_keys=True) + "\n")
    np.savez_compressed(folder / "inputs.npz", **{k: v.numpy() for k, v in inputs.items()})
    np.savez_compressed(folder / "expected.npz", **expected)
