"""A model's tensors as its checkpoint has them: under the names they were read with, laid out as its rules say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkpoint.fusions import Fusion, Stack, find_fusion
from ..checkpoint.rules import apply_ops
from ..saving import layout_ops
from .offload import Resting

__all__ = ["layout_at_rest", "split_stacks"]


def split_stacks(model: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors by name, with the parts of each stack in place of it: views, under the names the rules give them."""
    fusions = [rule for rule in type(model)._rules if isinstance(rule, Fusion)]
    found: dict[str, Any] = {}
    for name, tensor in state.items():
        fusion = find_fusion(fusions, name)
        shape = None if fusion is None else tensor.shape
        stack = None if fusion is None or shape is None else Stack.of(tuple(shape), len(fusion.pieces))
        if fusion is None or stack is None:
            found[name] = tensor
            continue
        parts = tensor.split(stack) if isinstance(tensor, Resting) else stack.split(tensor)
        found |= zip(fusion.names(name, stack.items) or (), parts, strict=True)
    return found


def layout_at_rest(model: Any, name: str, key: str, tensor: Any) -> Any:
    """The tensor `name` of the model as it lies under `key` in a file."""
    if not (ops := layout_ops(name, key, type(model)._rules)):
        return tensor
    whole = tensor.load() if isinstance(tensor, Resting) else tensor
    return apply_ops(ops, whole).contiguous()
