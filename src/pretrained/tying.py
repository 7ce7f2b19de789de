"""Names of one array: what a checkpoint may call a parameter that a model holds once and uses in several places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["aliases_of", "ties_of"]


def ties_of(model: Any) -> Mapping[str, str]:
    """Name that the model has no parameter for → name of the parameter that stands in for it."""

    cls, by_name = type(model), model.structure.by_name
    declared = dict(cls._always_tied_keys)
    if model.config.tie_word_embeddings:
        declared |= cls._tied_weights_keys
    return {name: source for name, source in declared.items() if name not in by_name and source in by_name}


def aliases_of(model: Any) -> dict[str, tuple[str, ...]]:
    """Parameter → its other names."""
    found: dict[str, tuple[str, ...]] = {}
    for name, source in ties_of(model).items():
        found[source] = (*found.get(source, ()), name)
    return found
