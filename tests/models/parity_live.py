"""Compares every class of every family with a live transformers 5.23.0: random larger configs, random weights.

    python tests/models/parity_live.py --peer PYTHON [--rounds 3] [--seed 0] [--family bert] [--all]

PYTHON is the interpreter of an environment that has transformers. Each round saves models to a temporary folder, lets
the peer load them and compute, and at the end prints, for each class, the largest difference of an output, relative to
`1 + |value|`, and that of the gradients' norm, relative to it. `--all` prints every output.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

PEER = """
import json, sys, torch, transformers
from safetensors.torch import load_file, save_file
folder = sys.argv[1]
results = {}
for case in json.load(open(folder + "/spec.json")):
    cls, place = getattr(transformers, case["class"]), f"{folder}/{case['id']}"
    model, report = cls.from_pretrained(place, attn_implementation=case["attention"], output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], (place, report)
    # As documented since 4.x, and unlike 5.x by default: the last of the states is normalised.
    model.config.tie_last_hidden_states = True if case["class"].startswith("Wav2Vec2") else None
    if getattr(model.config, "sinusoidal_pos_embds", False):  # 5.x trains this table, 4.x and its paper do not
        model.base_model.embeddings.position_embeddings.requires_grad_(False)
    inputs = load_file(place + "/inputs.safetensors")
    output = model.eval()(**inputs, **case["more"])
    for key, value in output.items():
        if torch.is_tensor(value):
            results[f"{case['id']}/{key}"] = value.detach().clone().contiguous()
        elif isinstance(value, tuple) and all(torch.is_tensor(part) for part in value):
            for index, part in enumerate(value):
                results[f"{case['id']}/{key}.{index}"] = part.detach().clone().contiguous()
    if output.get("loss") is not None:
        output.loss.backward()
        squares = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
        results[f"{case['id']}/gradients"] = sum(squares).sqrt().reshape(1)
save_file(results, folder + "/results.safetensors")
"""

Worst = dict[tuple[str, str, str], float]


def gradient_norm(model: Any) -> Tensor:
    squares = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
    return torch.stack(squares).sum().sqrt().reshape(1)


def compute(case: Any, attention: str, folder: Path, spoil: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Saves a model and its inputs; what the peer is to do, and what we get."""
    from contract_cases import labels_for

    model = case.shared
    model.config._attn_implementation = attention
    inputs = case.inputs | labels_for(case)
    mask, labels = inputs.get("attention_mask"), inputs.get("labels")
    if mask is not None and labels is not None and labels.shape == mask.shape:
        inputs["labels"] = labels.masked_fill(mask == 0, -100)
    model.save_pretrained(folder, durable=False)
    save_file({name: value.contiguous() for name, value in inputs.items()}, folder / "inputs.safetensors")
    more = {"output_hidden_states": True} | ({"output_attentions": True} if attention == "eager" else {})
    with torch.no_grad():
        first = next(p for n, p in model.named_parameters() if p.ndim > 1 and ".0." in n and "rel" not in n)
        first.add_(spoil * torch.randn_like(first))
    output = model(**inputs, **more)
    ours = dict(output)
    if output.get("loss") is not None:
        output.loss.backward()
        ours["gradients"] = gradient_norm(model)
    return {"class": case.cls.__name__, "attention": attention, "more": more, "id": folder.name}, ours


def compare(key: str, ours: Any, theirs: Tensor, mask: Tensor | None) -> float:
    """The largest difference of one output, relative to `1 + |value|`; in tokens that a 2-D `mask` has as padding none.

    Padding whose window has nothing but padding attends to nothing, and what that gives is nobody's business.
    """
    field, _, index = key.partition(".")
    value = (ours[field][int(index)] if index else ours[field]).detach()
    if field == "hidden_states" and "mc_logits" in ours:  # of these the peer gives the last alone an axis for choices
        value = value.reshape(theirs.shape)
    assert value.shape == theirs.shape, (key, value.shape, theirs.shape)
    if field == "router_logits" and mask is not None:  # (batch * seq, experts)
        value, theirs = value.unflatten(0, mask.shape), theirs.unflatten(0, mask.shape)
    if mask is not None and mask.ndim == 2 and value.shape[:2] == mask.shape:
        value, theirs = value[mask.bool()], theirs[mask.bool()]
    # max() drops a NaN without a word, and two NaNs would pass for agreement.
    assert torch.isfinite(value).all(), f"{key}: ours is not finite"
    assert torch.isfinite(theirs).all(), f"{key}: theirs is not finite"
    scale = theirs.abs() if field == "gradients" else 1 + theirs.abs()
    return ((value - theirs).abs() / scale).max().item()


def round_of(cases: list[Any], choose: Callable[[], str], peer: str, worst: Worst, spoil: float) -> None:
    """One config of each class: adds to `worst`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = {}
        for index, case in enumerate(cases):
            attention = choose() if case.cls._supports_sdpa else "eager"
            done[str(index)] = compute(case, attention, folder / str(index), spoil)
        (folder / "spec.json").write_text(json.dumps([spec for spec, _ in done.values()]))
        ran = subprocess.run([peer, "-c", PEER, name], capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(ran.stderr[-3000:])
        for place, theirs in load_file(folder / "results.safetensors").items():
            index, _, key = place.partition("/")
            spec, ours = done[index]
            mask = cases[int(index)].inputs.get("attention_mask")
            label = (spec["class"], spec["attention"], key.partition(".")[0])
            try:
                worst[label] = max(worst[label], compare(key, ours, theirs, mask))
            except AssertionError as error:
                raise SystemExit(f"{spec['class']} {spec['attention']}: {error}\n{cases[int(index)].fields}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", action="append", help="model_type; may be given several times; all by default")
    parser.add_argument("--all", action="store_true", help="every output rather than the worst of each class")
    parser.add_argument("--spoil", type=float, default=0.0, help="noise on one weight: differences must show")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    from contract_cases import CASES
    from parity_draws import DRAWS, DrawnCase

    rng = random.Random(arguments.seed)
    torch.manual_seed(arguments.seed)
    worst: Worst = defaultdict(float)
    for _ in range(arguments.rounds):
        cases = []
        for model_type in arguments.family or sorted({case.model_type for case in CASES}):
            fields = DRAWS[model_type](rng)
            cases += [DrawnCase(case, fields, rng) for case in CASES if case.model_type == model_type]
        round_of(cases, lambda: rng.choice(["eager", "sdpa"]), arguments.peer, worst, arguments.spoil)
    if arguments.all:
        for (name, attention, field), gap in sorted(worst.items()):
            print(f"{name:38} {attention:6} {field:30} {gap:.1e}")
        return
    for name in sorted({label[0] for label in worst}):
        gaps = sorted((gap, field) for (found, _, field), gap in worst.items() if found == name)
        gap, field = [pair for pair in gaps if pair[1] != "gradients"][-1]
        gradients = [f"gradients {gap:.1e}" for gap, field in gaps if field == "gradients"][-1:]
        print(f"{name:38} {gap:.1e} {field:30} {''.join(gradients)}")


if __name__ == "__main__":
    main()
