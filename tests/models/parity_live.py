"""Compares BERT and Llama with a live transformers 5.23.0: random larger configs, random weights, every head.

    python tests/models/parity_live.py --peer PYTHON [--rounds 10] [--seed 0]

PYTHON is the interpreter of an environment that has transformers. Each round writes a config, weights and inputs to a
temporary folder, lets the peer compute, and prints the largest absolute difference by class and attention.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

PEER = """
import json, sys, torch, transformers
from safetensors.torch import load_file, save_file
folder = sys.argv[1]
spec = json.load(open(folder + "/spec.json"))
results = {}
for case in spec["cases"]:
    name = case["class"]
    config = getattr(transformers, spec["config_class"])(**case["config"])
    config._attn_implementation = case["attention"]
    model = getattr(transformers, name)(config).eval()
    weights = load_file(f"{folder}/{name}.safetensors")
    left = model.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys, left
    assert all("predictions.decoder" in key or "lm_head" in key for key in left.missing_keys), left
    model.tie_weights()
    inputs = load_file(f"{folder}/{name}.inputs.safetensors")
    with torch.no_grad():
        output = model(**inputs, **case["more"])
    for key, value in output.items():
        if torch.is_tensor(value):
            results[f"{case['id']}/{key}"] = value.clone().contiguous()
        elif key in ("hidden_states", "attentions", "cross_attentions"):
            results |= {f"{case['id']}/{key}.{i}": v.clone().contiguous() for i, v in enumerate(value)}
save_file(results, folder + "/results.safetensors")
"""


def draw_bert(rng: random.Random) -> dict[str, Any]:
    head, heads = rng.choice([8, 16, 24, 32]), rng.choice([2, 4, 6])
    return {
        "vocab_size": rng.randint(100, 2000),
        "hidden_size": head * heads,
        "num_attention_heads": heads,
        "num_hidden_layers": rng.randint(1, 6),
        "intermediate_size": rng.randint(50, 700),
        "hidden_act": rng.choice(["gelu", "gelu_new", "relu", "silu", "gelu_fast", "quick_gelu"]),
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
        "num_labels": rng.randint(2, 9),
    }


def draw_llama(rng: random.Random) -> dict[str, Any]:
    groups = rng.choice([1, 2, 3])
    rope: dict[str, Any] = rng.choice(
        [
            {"rope_type": "default"},
            {"rope_type": "linear", "factor": 3.0},
            {"rope_type": "dynamic", "factor": 2.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ]
    )
    tied = rng.random() < 0.5
    return {
        "vocab_size": rng.randint(100, 2000),
        "hidden_size": 24 * rng.randint(2, 15),
        "num_attention_heads": groups * rng.choice([1, 2, 4]),
        "num_key_value_heads": groups,
        "head_dim": rng.choice([8, 16, 24, 64]),
        "num_hidden_layers": rng.randint(1, 6),
        "intermediate_size": rng.randint(50, 700),
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
        "num_labels": rng.randint(2, 9),
        "pad_token_id": 0,
        "attention_bias": rng.random() < 0.5,
        "mlp_bias": rng.random() < 0.5,
        "tie_word_embeddings": tied,
        "rope_parameters": rope | {"rope_theta": rng.choice([100.0, 10000.0, 500000.0])},
    }


def draw_inputs(name: str, config: dict[str, Any], rng: random.Random) -> dict[str, torch.Tensor]:
    batch, seq, vocab = rng.randint(1, 4), rng.randint(3, 100), config["vocab_size"]
    shape = (batch, 3, seq) if name.endswith("MultipleChoice") else (batch, seq)
    mask = torch.ones(shape, dtype=torch.int64)
    if batch > 1:
        mask[-1, ..., seq - seq // 3 :] = 0
    ids = torch.randint(1, vocab, shape)
    inputs = {"input_ids": ids * mask if name.startswith("Llama") else ids, "attention_mask": mask}
    classes = config["num_labels"]
    if name.startswith("Bert"):
        inputs["token_type_ids"] = torch.randint(0, 2, shape)
    if name.endswith(("ForCausalLM", "MaskedLM", "PreTraining", "LMHeadModel")):
        inputs["labels"] = torch.where(mask == 1, ids, -100)
    elif name.endswith("TokenClassification"):
        inputs["labels"] = torch.randint(0, classes, shape)
    elif name.endswith(("SequenceClassification", "NextSentencePrediction", "MultipleChoice")):
        inputs["labels"] = torch.randint(0, 2, (batch,))
    elif name.endswith("QuestionAnswering"):
        inputs |= {f"{end}_positions": torch.randint(0, seq, (batch,)) for end in ("start", "end")}
    if name.endswith("PreTraining"):
        inputs["next_sentence_label"] = torch.randint(0, 2, (batch,))
    if name == "BertLMHeadModel":
        inputs["encoder_hidden_states"] = torch.randn(batch, 7, config["hidden_size"])
        inputs["encoder_attention_mask"] = (torch.rand(batch, 7) < 0.8).long().index_fill(1, torch.tensor([0]), 1)
    return inputs


def extra_config(name: str) -> dict[str, Any]:
    if name == "BertForQuestionAnswering":
        return {"num_labels": 2}
    return {"is_decoder": True, "add_cross_attention": True} if name == "BertLMHeadModel" else {}


def compare(
    family: str, rng: random.Random, peer: str, worst: dict[tuple[str, str, str], float], spoil: float = 0.0
) -> None:
    """Adds one random config of a family to `worst`. `spoil` changes our weights after the peer has its copy."""
    from tiny import find_class

    from pretrained.models.bert.configuration_bert import BertConfig
    from pretrained.models.bert.family import FAMILY as BERT
    from pretrained.models.llama.configuration_llama import LlamaConfig
    from pretrained.models.llama.family import FAMILY as LLAMA

    declared, config_class = (BERT, BertConfig) if family == "bert" else (LLAMA, LlamaConfig)
    config = draw_bert(rng) if family == "bert" else draw_llama(rng)
    cases, ours = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted({place.split(":")[1] for place in declared.pt.values()}):
            fields = config | extra_config(name)
            inputs = draw_inputs(name, fields, rng)
            model = find_class(family, name)(config_class(**json.loads(json.dumps(fields)))).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
            weights = dict(model.named_parameters())
            save_file({k: v.detach().contiguous() for k, v in weights.items()}, f"{folder}/{name}.safetensors")
            save_file(inputs, f"{folder}/{name}.inputs.safetensors")
            with torch.no_grad():
                next(p for n, p in model.named_parameters() if n.endswith(("query.weight", "q_proj.weight"))).add_(
                    spoil
                )
            for attention in ("eager", "sdpa"):
                model.config._attn_implementation = attention
                more = {"output_hidden_states": True} | ({"output_attentions": True} if attention == "eager" else {})
                case = {"class": name, "config": fields, "attention": attention, "more": more}
                cases.append(case | {"id": f"{name}/{attention}"})
                with torch.no_grad():
                    ours[f"{name}/{attention}"] = (model(**inputs, **more), inputs["attention_mask"].bool())
        spec = {"config_class": config_class.__name__, "cases": cases}
        Path(folder, "spec.json").write_text(json.dumps(spec))
        done = subprocess.run([peer, "-c", PEER, folder], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        for key, theirs in load_file(f"{folder}/results.safetensors").items():
            name, attention, field = key.split("/")
            output, seen = ours[f"{name}/{attention}"]
            field, _, index = field.partition(".")
            value = output[field][int(index)] if index else output[field]
            assert value.shape == theirs.shape, (key, value.shape, theirs.shape)
            if family == "llama" and value.shape[:2] == seen.shape:
                value, theirs = value[seen], theirs[seen]
            # max() drops a NaN without a word, and two NaNs would pass for agreement.
            assert torch.isfinite(value).all(), f"{key}: ours is not finite"
            assert torch.isfinite(theirs).all(), f"{key}: theirs is not finite"
            gap = (value - theirs).abs().max().item()
            worst[name, attention, field] = max(worst[name, attention, field], gap)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spoil", type=float, default=0.0, help="added to one query weight: differences must show")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    rng = random.Random(arguments.seed)
    torch.manual_seed(arguments.seed)
    worst: dict[tuple[str, str, str], float] = defaultdict(float)
    for _ in range(arguments.rounds):
        for family in ("bert", "llama"):
            compare(family, rng, arguments.peer, worst, arguments.spoil)
    for (name, attention, field), gap in sorted(worst.items()):
        print(f"{name:32} {attention:6} {field:26} {gap:.1e}")


if __name__ == "__main__":
    main()
