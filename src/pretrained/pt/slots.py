"""The places of a module tree where tensors sit, by name, tied names together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..checkpoint.plan_load import ParamSpec

__all__ = ["Slot", "bytes_of", "collect_slots", "dtype_name", "parameter_like", "specs_of", "torch_dtype"]

_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
        "complex64", "complex128", "float8_e5m2", "float8_e4m3fn", "uint16", "uint32", "uint64", "float8_e8m0fnu",
    )
    if name in vars(torch)
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype of that name."""
    return _DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The plain name of a torch dtype."""
    return _NAMES.get(dtype) or str(dtype).removeprefix("torch.")


def watches_attributes(module: nn.Module) -> bool:
    """Whether the class does something when an attribute is set; recurrent layers keep lists of their weights."""
    return type(module).__setattr__ is not nn.Module.__setattr__


class Slot(NamedTuple):
    """One place: `module._parameters[key]` or `module._buffers[key]`."""

    module: nn.Module
    key: str
    is_buffer: bool

    @property
    def tensor(self) -> torch.Tensor:
        """What is in the place now."""
        return (self.module._buffers if self.is_buffer else self.module._parameters)[self.key]  # type: ignore[return-value]

    def put(self, tensor: torch.Tensor) -> None:
        """Replaces it."""
        if watches_attributes(self.module):
            setattr(self.module, self.key, tensor)
        elif self.is_buffer:
            self.module._buffers[self.key] = tensor
        else:
            self.module._parameters[self.key] = tensor  # type: ignore[assignment]


def collect_slots(model: nn.Module) -> dict[str, list[tuple[str, Slot]]]:
    """Parameters and persistent buffers: first name → every (name, slot) that holds the same tensor."""
    by_id: dict[int, list[tuple[str, Slot]]] = {}
    for prefix, module in _walk(model):
        for key, parameter in module._parameters.items():
            if parameter is not None:
                by_id.setdefault(id(parameter), []).append((prefix + key, Slot(module, key, False)))
        if module._buffers:
            skipped = module._non_persistent_buffers_set
            for key, buffer in module._buffers.items():
                if buffer is not None and key not in skipped:
                    by_id.setdefault(id(buffer), []).append((prefix + key, Slot(module, key, True)))
    return {group[0][0]: group for group in by_id.values()}


def _walk(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """Every module with its name and a dot, depth first; one that is shared comes under each of its names."""
    stack: list[tuple[str, nn.Module]] = [("", model)]
    while stack:
        prefix, module = stack.pop()
        yield prefix, module
        children = [(f"{prefix}{name}.", child) for name, child in module._modules.items() if child is not None]
        stack.extend(reversed(children))


def specs_of(groups: dict[str, list[tuple[str, Slot]]], tied: Iterable[str] = ()) -> list[ParamSpec]:
    """What a load needs to know of each group; names in `tied` step back behind the name they are tied to."""
    secondary = set(tied)
    specs = []
    for group in groups.values():
        names = [name for name, _ in group]
        if secondary and len(names) > 1:
            names.sort(key=secondary.__contains__)
        tensor = group[0][1].tensor
        specs.append(ParamSpec(names[0], tuple(tensor.shape), dtype_name(tensor.dtype), tuple(names[1:])))
    return specs


def parameter_like(old: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`value` as a parameter that requires a gradient if `old` did, with whatever a class had noted on it."""
    requires_grad = old.requires_grad and value.dtype.is_floating_point
    if type(old) is nn.Parameter:
        new = torch.Tensor._make_subclass(nn.Parameter, value, requires_grad)
    else:
        kind: Any = type(old)
        new = kind(value, requires_grad=requires_grad)
    if old.__dict__:
        new.__dict__.update(old.__dict__)
    return new


def bytes_of(array: Any) -> memoryview:
    """The elements as a flat buffer; a view of the array's memory where that is contiguous and on the CPU."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    flat: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return flat
