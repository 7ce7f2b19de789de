"""Writes llama_rope/: one tiny Llama, and its logits under every way to stretch rotary positions.

Run once with transformers 5.23.0: `python make_llama_rope.py`. The weights are larger than usual, so that attention
is far from even and a wrong frequency shows.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent / "llama_rope"
LONGEST, TRAINED = 32, 16  # max_position_embeddings, and the length before stretching
BASE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": LONGEST,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}
SHORT = [1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 1.8, 2.0]
LONG = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0]
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0, "original_max_position_embeddings": TRAINED}
CASES: dict[str, dict] = {
    "default": {"rope_theta": 10000.0},
    "theta": {"rope_theta": 500.0},
    "default-5x": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "linear": {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.5}},
    "linear-5x": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 300.0}},
    "dynamic": {"rope_theta": 10000.0, "rope_scaling": {"type": "dynamic", "factor": 2.3}},
    "dynamic-5x": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.3, "rope_theta": 300.0}},
    "llama3": {"rope_theta": 100.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "llama3-5x": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 100.0, **LLAMA3}},
    "yarn": {
        "rope_theta": 100.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": TRAINED},
    },
    "yarn-mscale": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 100.0,
            "factor": 2.0,
            "original_max_position_embeddings": TRAINED,
            "beta_fast": 4,
            "beta_slow": 0.5,
            "mscale": 1.2,
            "mscale_all_dim": 0.7,
            "truncate": False,
        }
    },
    "yarn-factor": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 100.0,
            "factor": 2.0,
            "original_max_position_embeddings": TRAINED,
            "attention_factor": 0.8,
        }
    },
    "longrope": {
        "rope_theta": 100.0,
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": SHORT,
            "long_factor": LONG,
            "original_max_position_embeddings": TRAINED,
        },
    },
    "longrope-factor": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 100.0,
            "short_factor": SHORT,
            "long_factor": LONG,
            "factor": 3.0,
            "original_max_position_embeddings": TRAINED,
        }
    },
    "longrope-attention": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 100.0,
            "short_factor": SHORT,
            "long_factor": LONG,
            "attention_factor": 1.3,
            "original_max_position_embeddings": TRAINED,
        }
    },
    "proportional": {
        "rope_parameters": {
            "rope_type": "proportional",
            "rope_theta": 100.0,
            "factor": 1.5,
            "partial_rotary_factor": 0.5,
        }
    },
}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**BASE))
    weights = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, HERE / "model.safetensors", metadata={"format": "pt"})
    config = {k: v for k, v in BASE.items() if k != "attn_implementation"}
    text = json.dumps({"base": config, "cases": CASES}, indent=2, sort_keys=True)
    (HERE / "cases.json").write_text(text + "\n")
    # Within the trained length, beyond it, and beyond the longest.
    inputs = {name: torch.randint(1, 61, (2, n)) for name, n in (("short", 12), ("long", 28), ("beyond", 45))}
    expected: dict[str, np.ndarray] = {}
    for case, settings in CASES.items():
        # A model each time: the reference's dynamic type remembers the longest call.
        for name, input_ids in inputs.items():
            model = LlamaForCausalLM(LlamaConfig(**BASE, **json.loads(json.dumps(settings)))).eval()
            model.load_state_dict(weights)
            with torch.no_grad():
                # Every fourth place is enough to see, and keeps the file small.
                expected[f"{case}/{name}"] = model(input_ids, use_cache=False).logits[:, 3::4].numpy()
            if name == "short":
                rotary = model.model.rotary_emb
                expected[f"{case}/inv_freq"] = rotary.inv_freq.numpy()
                expected[f"{case}/attention_factor"] = np.float32(rotary.attention_scaling)
    np.savez_compressed(HERE / "inputs.npz", **{k: v.numpy() for k, v in inputs.items()})
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
