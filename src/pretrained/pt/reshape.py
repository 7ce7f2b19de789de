"""Layers that gain or lose rows or columns."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .slots import Slot

__all__ = ["keep", "put_everywhere", "replacement", "set_sizes", "with_parameters"]

# Attributes in which layers repeat a size of their weight, and the axis it is the size of.
_AXES = {"num_embeddings": 0, "out_features": 0, "in_features": 1, "nx": 0, "nf": 1}


def set_sizes(layer: nn.Module, weight: Tensor) -> None:
    """Brings what a layer says of its sizes in line with its weight; a padding row that is gone is no longer one."""
    for name, axis in _AXES.items():
        if name in layer.__dict__:
            layer.__dict__[name] = weight.shape[axis]
    padding = layer.__dict__.get("padding_idx")
    if padding is not None and padding >= weight.shape[0]:
        layer.__dict__["padding_idx"] = None


def replacement(old: Tensor, value: Tensor) -> nn.Parameter:
    """`value` as a parameter with the settings of `old` and whatever a class had noted on it; `old` is let go."""
    new = nn.Parameter(value, requires_grad=old.requires_grad)
    new.__dict__.update(old.__dict__)
    return new


def put_everywhere(model: nn.Module, old: Tensor, new: nn.Parameter) -> list[Slot]:
    """Puts `new` wherever in `model` the parameter `old` is, so that what is tied stays tied; returns the places."""
    places = [
        Slot(module, key, False)
        for module in model.modules()
        for key, parameter in module._parameters.items()
        if parameter is old
    ]
    for slot in places:
        slot.put(new)
    return places


def with_parameters(layer: nn.Module, parameters: Mapping[str, nn.Parameter | None]) -> Any:
    """A layer like `layer`, without its hooks, that has other parameters; nothing of `layer` changes."""
    new = copy.copy(layer)
    for name, value in layer.__dict__.items():
        if name.startswith("_") and isinstance(value, (dict, set)):
            # Containers of a module are its own; hooks belong to the layer that was hooked.
            new.__dict__[name] = type(value)() if name.endswith(("_hooks", "_hooks_with_kwargs")) else copy.copy(value)
    new.__dict__["_parameters"] = dict(parameters)
    if (weight := parameters.get("weight")) is not None:
        set_sizes(new, weight)
    return new


@torch.no_grad()
def keep(layer: nn.Module, index: Tensor, dim: int, output: int) -> None:
    """Leaves of a layer what `index` names along axis `dim` of its weight, in place.

    Args:
        layer: one with a 2-D weight and perhaps a bias.
        index: `(kept,)` places along the axis.
        dim: 0 or 1.
        output: the axis of the weight along which its bias lies.
    """
    for name in ("weight", "bias") if dim == output else ("weight",):
        if (old := layer._parameters.get(name)) is not None:
            axis = dim if name == "weight" else 0
            setattr(layer, name, replacement(old, old.index_select(axis, index.to(old.device))))
    set_sizes(layer, layer.get_parameter("weight"))
