"""Compares generate with a live transformers 5.23.0, token by token, for every family that generates.

    python tests/models/generation_live.py --peer PYTHON [--old PYTHON] [--family llama] [--case beam]

PYTHON is the interpreter of an environment that has transformers; with `--old`, one that has 4.46, the modes that left
it later are compared too. Sampled modes are given the same seed. Prints a line for each family, and each difference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from generation_cases import CASES, OLD_CASES, draw_weights, run, skipped
from safetensors.torch import load_file
from tiny import TINY

import pretrained
from pretrained.auto import registry

OLD_FAMILIES = ("bert", "gpt2", "llama", "t5")  # whose tiny configs 4.46 reads as 5.23 does

PEER = """
import json, sys, torch, transformers
folder, place, old = sys.argv[1], sys.argv[2], sys.argv[3] == "old"
sys.path.insert(0, place)
from generation_cases import run
from safetensors.torch import save_file
transformers.logging.set_verbosity_error()
for job in json.load(open(folder + "/jobs.json")):
    cls = getattr(transformers, job["class"])
    plain = {"attn_implementation": "eager"} | ({} if old else {"experts_implementation": "eager"})
    load = lambda part: cls.from_pretrained(f"{folder}/{job['family']}/{part}", **plain).eval()
    model, assistant = load("model"), load("assistant")
    found = {}
    for name in job["cases"]:
        try:
            found |= {f"{name}/{k}": v.contiguous() for k, v in run(transformers, model, assistant, name, old).items()}
        except Exception as error:
            print(job["family"], name, "peer:", type(error).__name__, str(error)[:200], file=sys.stderr)
    save_file(found, f"{folder}/{job['family']}/found.safetensors")
"""


Jobs = list[dict[str, Any]]
Models = dict[str, tuple[Any, Any]]
Found = dict[str, dict[str, dict[str, torch.Tensor]]]


def generating() -> dict[str, type]:
    """Each family's class that generates; one of those that share their code."""
    found = {}
    for family in TINY:
        if family == "xlm-roberta":  # RoBERTa's modules under other names
            continue
        for head in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM"):
            if head in registry._family(family).pt:
                found[family] = registry.model_class_for(head, TINY[family]())
    return found


def build(family: str, cls: Any) -> tuple[Any, Any]:
    """A model, and one that drafts for it: of the same weights nearly, so that some of its drafts are right."""
    changes = {"is_decoder": True, "max_position_embeddings": 40} if family in ("bert", "roberta") else {}
    model, assistant = (cls(TINY[family](**changes)).eval() for _ in range(2))
    draw_weights(model, 1)
    draw_weights(assistant, 2)
    with torch.no_grad():
        for own, other in zip(assistant.parameters(), model.parameters(), strict=True):
            own.copy_(torch.lerp(other, own, 0.1))
    start = {"decoder_start_token_id": 0} if model.config.is_encoder_decoder else {}
    for part in (model, assistant):
        part.generation_config = pretrained.GenerationConfig(**start)
    return model, assistant


def save_models(family: str, cls: Any, folder: Path) -> tuple[Any, Any]:
    """The same, saved for a peer."""
    model, assistant = build(family, cls)
    model.save_pretrained(folder / "model", durable=False)
    assistant.save_pretrained(folder / "assistant", durable=False)
    return model, assistant


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    found = []
    for key, value in theirs.items():
        mine = ours[key]
        if mine.shape != value.shape:
            found.append(f"{key}: {tuple(mine.shape)} and {tuple(value.shape)}")
        elif not value.is_floating_point():
            if not torch.equal(mine, value):
                found.append(f"{key}: {(mine != value).sum().item()} tokens of {value.numel()} differ")
        elif not torch.allclose(mine, value, atol=2e-4, rtol=1e-4):
            found.append(f"{key}: {(mine - value).abs().max().item():.1e}")
    return found


def of_peer(peer: str, kind: str, families: list[str] | None, names: list[str]) -> tuple[Jobs, Models, Found]:
    """What a peer was asked for, our models, and what it found: family → case → field."""
    with tempfile.TemporaryDirectory() as place:
        folder, jobs, models = Path(place), [], {}
        for family, cls in generating().items():
            if (families and family not in families) or (kind == "old" and family not in OLD_FAMILIES):
                continue
            models[family] = save_models(family, cls, folder / family)
            is_crossed = models[family][0].config.is_encoder_decoder
            own = [name for name in names if not skipped(name, is_crossed)]
            jobs.append({"family": family, "class": cls.__name__, "cases": own})
        (folder / "jobs.json").write_text(json.dumps(jobs))
        if subprocess.run([peer, "-c", PEER, place, str(Path(__file__).parent), kind]).returncode:
            raise SystemExit(f"{peer} failed")
        found: Found = {}
        for job in jobs:
            for key, value in load_file(folder / job["family"] / "found.safetensors").items():
                name, _, field = key.partition("/")
                found.setdefault(job["family"], {}).setdefault(name, {})[field] = value
    return jobs, models, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--old")
    parser.add_argument("--family", action="append")
    parser.add_argument("--case", action="append")
    asked = parser.parse_args()
    failed = 0
    for peer, cases, kind in ((asked.peer, CASES, "new"), (asked.old, OLD_CASES, "old")):
        if peer is None:
            continue
        names = [name for name in cases if not asked.case or name in asked.case]
        jobs, models, found = of_peer(peer, kind, asked.family, names)
        for job in jobs:
            theirs, wrong = found.get(job["family"], {}), {}
            for name, expected in theirs.items():
                ours = run(pretrained, *models[job["family"]], name, kind == "old")
                if complaints := differences(ours, expected):
                    wrong[name] = complaints
            print(f"{job['family']:14} {len(theirs) - len(wrong)} of {len(job['cases'])} cases equal")
            for name, complaints in wrong.items():
                print(f"    {name}: {'; '.join(complaints)}")
            failed += len(job["cases"]) - len(theirs) + len(wrong)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
