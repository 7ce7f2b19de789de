"""A model's tensors as its checkpoint has them: under the names they were read with, laid out as its rules say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..checkpoint.rules import apply_ops, through_rules
from .offload import Resting

__all__ = ["layout_at_rest", "names_at_rest"]


def names_at_rest(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Name in the model → name to be written: the one that was read, unless two tensors would have it then."""
    own = list(names)
    loaded: dict[str, str] = model._loaded_names
    found = {name: loaded.get(name, name) for name in own}
    return found if len(set(found.values())) == len(found) else {name: name for name in own}


def layout_at_rest(model: Any, name: str, key: str, tensor: Any) -> Any:
    """The tensor `name` of the model as it lies under `key` in a file, from where the rules of the class restore it."""
    renamed, ops = through_rules(key, type(model)._rules)
    if not ops or renamed != name:
        return tensor
    whole = tensor.load() if isinstance(tensor, Resting) else tensor
    return apply_ops([op.inverse for op in reversed(ops)], whole).contiguous()
