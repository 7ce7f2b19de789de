"""Every JAX class of every family of the registry, tiny, beside the torch class of the same head."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import contract_cases
import jax
import numpy as np
from contract_cases import compare

from pretrained import FlaxPreTrainedModel
from pretrained.auto import registry

__all__ = ["CASES", "FlaxCase", "arrays_of", "compare", "flax_families"]

# Torch's name of a head, where it is not the JAX class's without "Flax".
TORCH_NAMES = {"FlaxBertForCausalLM": "BertLMHeadModel"}


class FlaxCase:
    """One class: its weights are those of torch's class, drawn so that no bias is zero and no scale one."""

    def __init__(self, model_type: str, cls: Any) -> None:
        self.model_type, self.cls = model_type, cls
        name = TORCH_NAMES.get(cls.__name__, cls.__name__.removeprefix("Flax"))
        self.torch = next(case for case in contract_cases.CASES if case.cls.__name__ == name)

    def __str__(self) -> str:
        return f"{self.model_type}-{self.cls.__name__}"

    @property
    def is_base(self) -> bool:
        return self.torch.cls is self.torch.base

    @property
    def caches(self) -> bool:
        """Whether the class is a decoder alone that predicts tokens."""
        name = self.cls.__name__
        return name.endswith(("ForCausalLM", "LMHeadModel"))

    @functools.cached_property
    def folder(self) -> Path:
        """What torch's class saved."""
        folder = Path(tempfile.mkdtemp(prefix="flax-case-"))
        self.torch.shared.save_pretrained(folder, durable=False)
        return folder

    def load(self, folder: Path | None = None, **options: Any) -> Any:
        """The model, which must have found everything and nothing else."""
        model, report = self.cls.from_pretrained(
            folder or self.folder, output_loading_info=True, **{"attn_implementation": "eager"} | options
        )
        assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]), report.render()
        return model

    @functools.cached_property
    def shared(self) -> Any:
        """A model for tests that change nothing."""
        return self.load()

    @functools.cached_property
    def inputs(self) -> dict[str, Any]:
        """Those of torch's case, with a mask that hides the end of one row and the beginning of another."""
        made = {name: value.numpy() for name, value in self.torch.inputs.items()}
        ids = made.get("input_ids")
        if ids is not None and "attention_mask" in self.torch.parameters:
            mask = np.ones_like(ids)
            mask[0, ..., -2:] = 0
            mask[1, ..., :2] = 0
            made["attention_mask"] = mask
        return made

    def run_torch(self, model: Any, inputs: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The output of a torch model, as arrays."""
        import torch

        given = {name: torch.from_numpy(value) for name, value in (inputs or self.inputs).items()}
        with torch.no_grad():
            return arrays_of(model(**given, **more))


def cases() -> Iterator[FlaxCase]:
    for model_type in flax_families():
        family = registry._family(model_type)
        own = [place for place in family.names if "_flax_" in place]
        for cls in dict.fromkeys(registry._import(model_type, place) for place in (*family.flax.values(), *own)):
            if issubclass(cls, FlaxPreTrainedModel) and not cls.__name__.endswith("PreTrainedModel"):
                yield FlaxCase(model_type, cls)


def flax_families() -> list[str]:
    """The model types that have JAX classes."""
    return [model_type for model_type in sorted(registry.FOLDERS) if registry._family(model_type).flax]


CASES = list(cases())


def arrays_of(output: Any) -> dict[str, np.ndarray]:
    """Every array of an output, of torch or JAX, those in tuples by index; caches are left out."""
    found = {}
    for name, value in output.items():
        if isinstance(value, tuple):
            found |= {f"{name}.{index}": np.asarray(part) for index, part in enumerate(value) if _is_array(part)}
        elif _is_array(value):
            found[name] = np.asarray(value)
    return found


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array) or type(value).__name__ == "Tensor"
