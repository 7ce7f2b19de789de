"""A model's tensors as its checkpoint has them: under the names they were read with, laid out as its rules say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..checkpoint.fusions import Fusion, Stack, find_fusion
from ..checkpoint.rules import apply_ops, back_through_rules, through_rules
from .offload import Resting

__all__ = ["layout_at_rest", "names_at_rest", "split_stacks"]


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


def names_at_rest(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Name in the model → name to be written: the one that was read, unless two tensors would have it then.

    What was not read is called what the rules call it on the way back.
    """
    own = list(names)
    loaded: dict[str, str] = model._loaded_names
    found = {name: loaded.get(name) or back_through_rules(name, type(model)._rules) for name in own}
    return found if len(set(found.values())) == len(found) else {name: name for name in own}


def layout_at_rest(model: Any, name: str, key: str, tensor: Any) -> Any:
    """The tensor `name` of the model as it lies under `key` in a file, from where the rules of the class restore it."""
    renamed, ops, _ = through_rules(key, type(model)._rules)
    if not ops or renamed != name:
        return tensor
    whole = tensor.load() if isinstance(tensor, Resting) else tensor
    return apply_ops([op.inverse for op in reversed(ops)], whole).contiguous()
