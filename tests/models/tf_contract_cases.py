"""Every TensorFlow class of every family of the registry, tiny, beside the torch class of the same head."""

from __future__ import annotations

import functools
import inspect
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import contract_cases
import numpy as np
import tensorflow as tf
import torch

from pretrained import TFPreTrainedModel
from pretrained.auto import registry

__all__ = ["CASES", "TFCase", "arrays_of", "tf_families"]


class TFCase:
    """One class: its weights are those of torch's class, drawn so that no bias is zero and no scale one."""

    def __init__(self, model_type: str, cls: Any) -> None:
        self.model_type, self.cls = model_type, cls
        name = cls.__name__.removeprefix("TF")
        self.torch = next(case for case in contract_cases.CASES if case.cls.__name__ == name)
        self.parameters = inspect.signature(cls.module_class.call).parameters

    def __str__(self) -> str:
        return f"{self.model_type}-{self.cls.__name__}"

    @property
    def is_base(self) -> bool:
        return self.torch.cls is self.torch.base

    @functools.cached_property
    def folder(self) -> Path:
        """What torch's class saved."""
        folder = Path(tempfile.mkdtemp(prefix="tf-case-"))
        self.torch.shared.save_pretrained(folder, durable=False)
        return folder

    def load(self, folder: Path | None = None, **options: Any) -> Any:
        """The model, which must have found everything and nothing else."""
        given = {"attn_implementation": "eager"} | options
        model, report = self.cls.from_pretrained(folder or self.folder, output_loading_info=True, **given)
        assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]), report.render()
        return model

    @functools.cached_property
    def shared(self) -> Any:
        """A model for tests that change nothing."""
        return self.load()

    def fresh(self, **arguments: Any) -> Any:
        """A model with initial values."""
        return self.cls(self.torch.config(), **arguments)

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

    @functools.cached_property
    def labels(self) -> dict[str, Any]:
        """What makes the class compute a loss; empty if it has none."""
        return {name: value.numpy() for name, value in contract_cases.labels_for(self.torch).items()}

    def run(self, model: Any, inputs: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The output of a model of TensorFlow, as arrays."""
        return arrays_of(model(**(inputs or self.inputs), **more))

    def run_torch(self, model: Any, inputs: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The output of a torch model, as arrays."""
        given = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in more.items()}
        given |= {name: torch.from_numpy(value) for name, value in (inputs or self.inputs).items()}
        with torch.no_grad():
            return arrays_of(model(**given))


def cases() -> Iterator[TFCase]:
    for model_type in tf_families():
        family = registry._family(model_type)
        own = [place for place in family.names if "_tf_" in place]
        for cls in dict.fromkeys(registry._import(model_type, place) for place in (*family.tf.values(), *own)):
            if issubclass(cls, TFPreTrainedModel) and not cls.__name__.endswith("PreTrainedModel"):
                yield TFCase(model_type, cls)


def tf_families() -> list[str]:
    """The model types that have TensorFlow classes."""
    return [model_type for model_type in sorted(registry.FOLDERS) if registry._family(model_type).tf]


CASES = list(cases())


def arrays_of(output: Any) -> dict[str, np.ndarray]:
    """Every array of an output, of torch or TensorFlow, those in tuples by index; caches are left out."""
    found = {}
    for name, value in output.items():
        if isinstance(value, tuple):
            found |= {f"{name}.{index}": _array(part) for index, part in enumerate(value) if _is_array(part)}
        elif _is_array(value):
            found[name] = _array(value)
    return found


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or bool(tf.is_tensor(value))


def _array(value: Any) -> np.ndarray:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value.numpy()
