"""Writes wav2vec2_heads/: what every Wav2Vec2 head makes of tiny recordings, with losses.

Run once with transformers 5.23.0: `python make_wav2vec2_heads.py`. Each case names a class, changes to the config and
inputs; a value `"@name"` is an array of inputs.npz. Weights follow from their names (tests/models/drawn_weights.py).

Releases before 5 normalise the last of the hidden states where the blocks normalise first; the models that mix all
layers were trained so. `tie_last_hidden_states` makes 5.23 do the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from drawn_weights import draw

HERE = Path(__file__).parent / "wav2vec2_heads"
BASE = {
    "vocab_size": 17,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 30,
    "conv_dim": [10, 12, 14],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_codevectors_per_group": 5,
    "codevector_dim": 16,
    "proj_codevector_dim": 12,
    "classifier_proj_size": 11,
    "tdnn_dim": [10, 11, 12],
    "tdnn_kernel": [3, 2, 1],
    "tdnn_dilation": [1, 2, 1],
    "xvector_output_dim": 9,
}
SOUND = {"input_values": "@sound"}
PADDED = {"input_values": "@sound", "attention_mask": "@attention_mask"}
EVERYTHING = {"output_attentions": True, "output_hidden_states": True}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
MIXED = {"use_weighted_layer_sum": True, "num_labels": 3}
ADAPTER = {"add_adapter": True, "output_hidden_size": 16, "num_adapter_layers": 2}
CTC, SEQUENCE, FRAMES = "Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification", "Wav2Vec2ForAudioFrameClassification"
CASES: dict[str, dict] = {
    "model": {"class": "Wav2Vec2Model", "inputs": {**SOUND, **EVERYTHING}},
    "model-padded": {"class": "Wav2Vec2Model", "inputs": {**PADDED, **EVERYTHING}},
    "model-layer-norm": {
        "class": "Wav2Vec2Model",
        "config": {"feat_extract_norm": "layer", "feat_extract_activation": "gelu_new", "hidden_act": "relu"},
        "inputs": PADDED,
    },
    "model-conv-bias": {"class": "Wav2Vec2Model", "config": {"conv_bias": True}, "inputs": PADDED},
    "model-stable": {"class": "Wav2Vec2Model", "config": STABLE, "inputs": {**PADDED, **EVERYTHING}},
    "model-odd-positions": {
        "class": "Wav2Vec2Model",
        "config": {"num_conv_pos_embeddings": 7, "num_conv_pos_embedding_groups": 3},
        "inputs": SOUND,
    },
    "model-adapter": {"class": "Wav2Vec2Model", "config": ADAPTER, "inputs": PADDED},
    "model-adapter-same-size": {
        "class": "Wav2Vec2Model",
        "config": {"add_adapter": True, "num_adapter_layers": 1, "adapter_kernel_size": 2, "adapter_stride": 3},
        "inputs": SOUND,
    },
    "model-language": {
        "class": "Wav2Vec2Model",
        "config": {**STABLE, "adapter_attn_dim": 6},
        "inputs": {**PADDED, "output_hidden_states": True},
    },
    "model-masked": {"class": "Wav2Vec2Model", "inputs": {**PADDED, "mask_time_indices": "@masked"}},
    "model-no-augment": {
        "class": "Wav2Vec2Model",
        "config": {"apply_spec_augment": False},
        "inputs": {**PADDED, "mask_time_indices": "@masked"},
    },
    "model-no-mask-vector": {"class": "Wav2Vec2Model", "config": {"mask_time_prob": 0.0}, "inputs": SOUND},
    "ctc": {"class": CTC, "inputs": {**PADDED, "labels": "@text", **EVERYTHING}},
    "ctc-unpadded": {"class": CTC, "inputs": {**SOUND, "labels": "@text"}},
    "ctc-stable-mean": {
        "class": CTC,
        "config": {**STABLE, "ctc_loss_reduction": "mean"},
        "inputs": {**PADDED, "labels": "@text"},
    },
    "ctc-too-long": {
        "class": CTC,
        "config": {"ctc_zero_infinity": True},
        "inputs": {**PADDED, "labels": "@long_text"},
    },
    "ctc-blank": {"class": CTC, "config": {"pad_token_id": 16}, "inputs": {**SOUND, "labels": "@text"}},
    "ctc-adapter": {"class": CTC, "config": ADAPTER, "inputs": {**PADDED, "labels": "@short_text"}},
    "sequence": {"class": SEQUENCE, "config": {"num_labels": 3}, "inputs": {**SOUND, "labels": "@classes"}},
    "sequence-padded": {"class": SEQUENCE, "config": {"num_labels": 3}, "inputs": {**PADDED, "labels": "@classes"}},
    "sequence-mixed": {"class": SEQUENCE, "config": MIXED, "inputs": {**PADDED, "labels": "@classes"}},
    "sequence-mixed-stable": {
        "class": SEQUENCE,
        "config": {**MIXED, **STABLE},
        "inputs": {**PADDED, "labels": "@classes", **EVERYTHING},
    },
    "frames": {"class": FRAMES, "config": {"num_labels": 3}, "inputs": {**PADDED, "labels": "@frame_classes"}},
    "frames-mixed": {"class": FRAMES, "config": {**MIXED, **STABLE}, "inputs": {**SOUND, "labels": "@frame_classes"}},
    "speaker": {"class": "Wav2Vec2ForXVector", "config": {"num_labels": 3}, "inputs": {**SOUND, "labels": "@classes"}},
    "speaker-padded": {
        "class": "Wav2Vec2ForXVector",
        "config": MIXED,
        "inputs": {**PADDED, "labels": "@classes", **EVERYTHING},
    },
    "pretraining": {
        "class": "Wav2Vec2ForPreTraining",
        "inputs": {**PADDED, "mask_time_indices": "@masked", "sampled_negative_indices": "@negatives", **EVERYTHING},
    },
    "pretraining-stable": {
        "class": "Wav2Vec2ForPreTraining",
        "config": {**STABLE, "contrastive_logits_temperature": 0.3, "diversity_loss_weight": 0.7},
        "inputs": {**SOUND, "mask_time_indices": "@masked", "sampled_negative_indices": "@negatives"},
    },
    "pretraining-unmasked": {"class": "Wav2Vec2ForPreTraining", "inputs": SOUND},
}
FRAME_COUNT = 19  # of 400 samples


def make_inputs() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 400, dtype=torch.int64)
    mask[1, 250:] = 0
    masked = torch.rand(2, FRAME_COUNT) < 0.4
    masked[1, 11:] = False
    negatives = torch.randint(0, FRAME_COUNT, (2, FRAME_COUNT, 6)) + FRAME_COUNT * torch.arange(2)[:, None, None]
    return {
        "sound": torch.randn(2, 400) * mask,
        "attention_mask": mask,
        "masked": masked,
        "negatives": negatives,
        "text": torch.tensor([[3, 5, 5, 9, 2], [7, 1, 12, -100, -100]]),
        "short_text": torch.tensor([[3, 5], [7, -100]]),
        "long_text": torch.randint(1, 16, (2, 15)),
        "classes": torch.tensor([2, 0]),
        "frame_classes": torch.nn.functional.one_hot(torch.randint(0, 3, (2, FRAME_COUNT)), 3),
    }


def flatten(name: str, value: object) -> dict[str, np.ndarray]:
    if isinstance(value, torch.Tensor):
        return {name: value.detach().numpy()}
    return {f"{name}.{i}": item.detach().numpy() for i, item in enumerate(value)}


def main() -> None:
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(0)
    inputs = make_inputs()
    expected: dict[str, np.ndarray] = {}
    for case, spec in CASES.items():
        config = transformers.Wav2Vec2Config(**(BASE | spec.get("config", {})), attn_implementation="eager")
        config.tie_last_hidden_states = True
        model = getattr(transformers, spec["class"])(config).eval()
        given = {k: inputs[v[1:]].clone() if isinstance(v, str) else v for k, v in spec["inputs"].items()}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(draw(name, parameter.shape)))
            output = model(**given)
        for name, value in output.items():
            expected |= flatten(f"{case}/{name}", value)
    (HERE / "cases.json").write_text(json.dumps({"base": BASE, "cases": CASES}, indent=2, sort_keys=True) + "\n")
    np.savez_compressed(HERE / "inputs.npz", **{k: v.numpy() for k, v in inputs.items()})
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
