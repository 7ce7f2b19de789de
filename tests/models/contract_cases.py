"""Every class of every family of the registry, tiny, with inputs and labels it takes; for test_contract.py."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from tiny import TINY
from torch import Tensor, nn

from pretrained import PreTrainedModel
from pretrained.auto import registry

__all__ = ["CASES", "Case", "compare", "labels_for"]

# Class names, or their ends → config fields without which the class is not itself.
SETTINGS = {
    "BertLMHeadModel": {"is_decoder": True},
    "RobertaForCausalLM": {"is_decoder": True},
}
NUM_CHOICES = 2
# Families with experts: where they are at rest, and which parts make up each of the model's two tensors.
EXPERTS_AT_REST = {
    "mixtral": ("block_sparse_moe", {"gate_up_proj": ["w1", "w3"], "down_proj": ["w2"]}),
    "qwen3_moe": ("mlp", {"gate_up_proj": ["gate_proj", "up_proj"], "down_proj": ["down_proj"]}),
}


class Case:
    """One class of one family."""

    def __init__(self, model_type: str, cls: Any, base: Any) -> None:
        self.model_type = model_type
        self.cls = cls
        self.base = base
        self.parameters = inspect.signature(cls.forward).parameters

    def __str__(self) -> str:
        return f"{self.model_type}-{self.cls.__name__}"

    def config(self, **changes: Any) -> Any:
        settings = next((found for end, found in SETTINGS.items() if self.cls.__name__.endswith(end)), {})
        return TINY[self.model_type](**{**settings, **changes})

    def build(self, **changes: Any) -> Any:
        """A model whose weights are all drawn, so that no bias is zero and no scale one; in eval mode."""
        torch.manual_seed(3)
        model = self.cls(self.config(**changes))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return model.eval()

    @functools.cached_property
    def shared(self) -> Any:
        """A model for tests that change nothing."""
        return self.build()

    def copy(self) -> Any:
        return copy.deepcopy(self.shared)

    @functools.cached_property
    def inputs(self) -> dict[str, Tensor]:
        """`dummy_inputs` with values that differ, none of them padding, and the lengths of each row to be masked."""
        torch.manual_seed(5)
        made = {}
        for name, value in self.shared.dummy_inputs.items():
            made[name] = torch.ones_like(value) if name.endswith("mask") else values_like(value, self.shared.config)
        if "input_ids" in made and self.model_type == "t5":  # some heads look for the end of the text
            made["input_ids"][..., -1] = self.shared.config.eos_token_id
        return made

    @property
    def layers(self) -> int:
        return self.shared.config.num_hidden_layers

    def at_rest(self, name: str) -> list[str]:
        """What a parameter is called in a file; the experts of a layer are stored one by one."""
        if self.model_type not in EXPERTS_AT_REST:
            return [name]
        block, pieces = EXPERTS_AT_REST[self.model_type]
        head, dot, stack = name.rpartition(".mlp.experts.")
        if not dot:
            return [name.replace(".mlp.gate.", f".{block}.gate.")]
        count = self.shared.config.num_experts
        return [f"{head}.{block}.experts.{item}.{piece}.weight" for item in range(count) for piece in pieces[stack]]

    def run(self, model: Any, **more: Any) -> Any:
        with torch.no_grad():
            return model(**self.inputs, **more)


def values_like(value: Tensor, config: Any) -> Tensor:
    if value.is_floating_point():
        return torch.randn_like(value)
    return torch.randint(5, config.vocab_size, value.shape)


def cases() -> Iterator[Case]:
    for model_type in sorted(registry.FOLDERS):
        if model_type not in TINY:
            continue  # test_every_family_is_here says so
        family = registry._family(model_type)
        base = registry._import(model_type, family.pt["AutoModel"])
        found = [registry._import(model_type, place) for place in (*family.pt.values(), *family.names)]
        for cls in dict.fromkeys(found):
            if issubclass(cls, PreTrainedModel) and not cls.__name__.endswith("PreTrainedModel"):
                yield Case(model_type, cls, base)


CASES = list(cases())


def labels_for(case: Case) -> dict[str, Tensor]:
    """What makes the class compute a loss; empty if it has none."""
    name, wanted = case.cls.__name__, case.parameters
    output = case.run(case.shared)
    torch.manual_seed(6)
    if "start_positions" in wanted:
        return {f"{end}_positions": torch.randint(0, 5, output.start_logits.shape[:1]) for end in ("start", "end")}
    if "sampled_negative_indices" in wanted:
        batch, frames = output.projected_states.shape[:2]
        negatives = torch.randint(0, batch * frames, (batch, frames, 3))
        return {"mask_time_indices": torch.rand(batch, frames) < 0.6, "sampled_negative_indices": negatives}
    if "bool_masked_pos" in wanted and "reconstruction" in output:
        patches = case.shared.base_model.embeddings.patch_embeddings.num_patches
        return {"bool_masked_pos": torch.rand(len(output.reconstruction), patches) < 0.5}
    made = {}
    if "labels" in wanted:
        made["labels"] = _labels(name, output["logits" if "logits" in output else "prediction_logits"], case)
    if "next_sentence_label" in wanted:
        made["next_sentence_label"] = torch.randint(0, 2, output.seq_relationship_logits.shape[:1])
    if "mc_labels" in wanted:
        made["mc_labels"] = torch.randint(0, NUM_CHOICES, output.mc_logits.shape[:1])
    return made


def _labels(name: str, logits: Tensor, case: Case) -> Tensor:
    if name.endswith("ForCTC"):
        return torch.randint(1, logits.shape[-1], (len(logits), 2))
    if name.endswith("ForAudioFrameClassification"):
        return nn.functional.one_hot(torch.randint(0, logits.shape[-1], logits.shape[:-1]), logits.shape[-1])
    last = case.shared.config.num_labels if name.endswith("ForXVector") else logits.shape[-1]
    return torch.randint(0, last, logits.shape[:-1])


def compare(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], mask: Any = None, atol: float = 2e-5
) -> None:
    """Every array is as expected; of those with an axis for tokens, what the mask shows."""
    assert set(found) == set(expected)
    seen = None if mask is None else np.asarray(mask).reshape(-1, mask.shape[-1]).astype(bool)
    for name, value in expected.items():
        one, other = np.asarray(found[name], np.float32), np.asarray(value, np.float32)
        assert one.shape == other.shape and np.isfinite(one).all(), name
        if seen is not None:
            one, other = _seen(one, seen), _seen(other, seen)
        worst = np.abs(one - other).max() if one.size else 0.0
        assert worst <= atol, f"{name} is off by {worst}"


def _seen(value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if value.ndim == 4 and value.shape[0] == mask.shape[0] and value.shape[2] == mask.shape[1]:
        return value.transpose(0, 2, 1, 3)[mask]  # weights of attention, by query
    flat = value.reshape(-1, *value.shape[2:]) if value.ndim > 3 else value
    return flat[mask] if flat.shape[:2] == mask.shape else value
