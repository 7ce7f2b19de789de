"""The tables between class indices and class names, as a config file has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ConfigError

__all__ = ["MAX_LISTED", "checked_heads", "checked_label2id", "index_to_name", "numbered"]

MAX_LISTED = 1_000_000  # labels without names of their own; more are written as a count


def numbered(count: int) -> dict[int, str]:
    """The table of a model whose classes have no names: LABEL_0, LABEL_1, …"""
    return {i: f"LABEL_{i}" for i in range(count)}


def index_to_name(table: Any) -> dict[int, str]:
    """An `id2label` with integers for the strings that JSON has for keys.

    Raises:
        ConfigError: no object, a key that is no integer, or a name that is no plain value.
    """
    checked = _checked(table, "id2label")
    for name in checked.values():
        if isinstance(name, (dict, list)):
            raise ConfigError(
                f"config key 'id2label' has a {type(name).__name__} for a name: {name!r:.80}", key="id2label"
            )
    return {_integer(index, "id2label"): name for index, name in checked.items()}


def checked_label2id(table: Any) -> dict[str, int]:
    """A `label2id` as it was given.

    Raises:
        ConfigError: no object.
    """
    return _checked(table, "label2id")


def checked_heads(table: Any) -> dict[int, list[int]]:
    """A `pruned_heads`: layer → heads that are gone.

    Raises:
        ConfigError: no object of lists, or something in it is no integer.
    """
    pruned: dict[int, list[int]] = {}
    for layer, heads in _checked(table or {}, "pruned_heads").items():
        if not isinstance(heads, (list, tuple, set)):
            raise ConfigError(f"config key 'pruned_heads' must hold lists, found {heads!r:.80}", key="pruned_heads")
        pruned[_integer(layer, "pruned_heads")] = [_integer(head, "pruned_heads") for head in heads]
    return pruned


def _checked(table: Any, key: str) -> dict[Any, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"config key {key!r} must be an object, found {type(table).__name__}", key=key)
    return dict(table)


def _integer(value: Any, key: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"config key {key!r} must have integers, found {value!r:.80}", key=key) from None
