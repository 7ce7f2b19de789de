"""Which name of a model a tensor at rest goes by."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from .fusions import Part
from .rules import AnyRule, Op, legacy_names, through_rules

__all__ = ["BY_RULE", "Place", "place_of"]

BY_RULE = 1  # how far a name is from its own if rules alone changed it


class Place(NamedTuple):
    """The model's name of a tensor at rest, its changes of layout, how far that name is from its own, which part."""

    name: str
    ops: tuple[Op, ...] = ()
    how: int = 0
    part: Part | None = None


def place_of(key: str, wanted: Container[str], prefix: str, rules: Sequence[AnyRule]) -> Place:
    """Where what is called `key` at rest goes in a model that has the names `wanted`."""
    name, ops, part = through_rules(key, rules) if rules else (key, (), None)
    how = BY_RULE if name != key or ops else 0
    if name not in wanted:
        name, how = _other_spelling(name, wanted, prefix)
    return Place(name, ops, how, part)


def _other_spelling(name: str, wanted: Container[str], prefix: str) -> tuple[str, int]:
    """The spelling of `name` that the model knows, and how far from the original it is."""
    for how, candidate in enumerate(_candidates(name, prefix), start=2):
        if candidate in wanted:
            return candidate, how
    return name, 0


def _candidates(name: str, prefix: str) -> list[str]:
    spellings = [name, *legacy_names(name)]
    if prefix:
        head = prefix + "."
        for spelling in list(spellings):
            spellings.append(spelling[len(head) :] if spelling.startswith(head) else head + spelling)
    return spellings[1:]
