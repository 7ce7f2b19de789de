"""A model's tensors as its checkpoint has them: under the names they were read with, laid out as its rules say."""

from __future__ import annotations

from typing import Any

from ..checkpoint.rules import apply_ops
from ..saving import layout_ops
from .offload import Resting

__all__ = ["layout_at_rest"]


def layout_at_rest(model: Any, name: str, key: str, tensor: Any) -> Any:
    """The tensor `name` of the model as it lies under `key` in a file."""
    if not (ops := layout_ops(name, key, type(model)._rules)):
        return tensor
    whole = tensor.load() if isinstance(tensor, Resting) else tensor
    return apply_ops(ops, whole).contiguous()
