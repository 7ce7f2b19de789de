"""Fusions: several tensors at rest that are one in the model, as the experts of a layer are.

A stack is a tensor of items along its first axis; along its second each item has its pieces, one after the other. So
every piece is one run of the stack's elements: it is read straight into its place, and saved from there as a view.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from .._types import Shape
from .tensors import count_elements

__all__ = ["Fusion", "Part", "Stack", "find_fusion"]


class Part(NamedTuple):
    """Which part of a stack a tensor is: piece `piece` out of `pieces` of item `item`."""

    item: int
    piece: int = 0
    pieces: int = 1


@dataclass(frozen=True)
class Stack:
    """`items` items of `pieces` equal pieces each, as one tensor."""

    items: int
    pieces: int = 1

    @classmethod
    def of(cls, shape: Shape, pieces: int) -> Stack | None:
        """The stack that a tensor of this shape is; None if it can be none."""
        fits = len(shape) > 1 and shape[1] % pieces == 0
        return cls(shape[0], pieces) if fits else None

    def __len__(self) -> int:
        return self.items * self.pieces

    def shape(self, part: Shape) -> Shape:
        """The shape of the stack of parts of this shape. Raises ValueError for parts without an axis."""
        if not part:
            raise ValueError("parts of a stack have an axis at least")
        return (self.items, self.pieces * part[0], *part[1:])

    def part_shape(self, whole: Shape) -> Shape:
        """The shape of the parts of a stack of this shape. Raises ValueError if it is no such stack."""
        if len(whole) < 2 or whole[0] != self.items or whole[1] % self.pieces:
            raise ValueError(f"{list(whole)} is no stack of {self.items} items of {self.pieces} pieces")
        return (whole[1] // self.pieces, *whole[2:])

    def start(self, part: Part, whole: Shape) -> int:
        """The first element of a part, counted in the order of the stack's elements."""
        return (part.item * self.pieces + part.piece) * count_elements(self.part_shape(whole))

    def split(self, array: Any) -> list[Any]:
        """Views of the parts, in the order in which they lie; written to, they fill the stack."""
        rows = self.part_shape(tuple(array.shape))[0]
        return [item[start * rows : (start + 1) * rows] for item in array for start in range(self.pieces)]


@dataclass(frozen=True)
class Fusion:
    """Names that match `pattern` are parts of what `replacement` is in the model.

    `pattern` has a group `item` for the number of the item and, where there are several `pieces`, a group `piece` for
    its name. `back` is (pattern of the model's name, what stands there at rest, with {item} and {piece}).
    """

    pattern: str
    replacement: str
    back: tuple[str, str]
    pieces: tuple[str, ...] = ("",)

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    @cached_property
    def _back(self) -> re.Pattern[str]:
        return re.compile(self.back[0])

    def place(self, name: str) -> tuple[str, Part] | None:
        """(the model's name, which part of it) of the tensor called `name` at rest; None if it is no part."""
        match = self._compiled.search(name)
        if match is None:
            return None
        piece = self.pieces.index(match["piece"]) if len(self.pieces) > 1 else 0
        part = Part(int(match["item"]), piece, len(self.pieces))
        return name[: match.start()] + match.expand(self.replacement) + name[match.end() :], part

    def sibling(self, name: str, part: Part) -> str:
        """What another part of the stack is called that `name` is a part of."""
        match = self._compiled.search(name)
        assert match is not None
        texts = {"item": str(part.item), "piece": self.pieces[part.piece]}
        for group in sorted(self._compiled.groupindex, key=match.start, reverse=True):
            name = name[: match.start(group)] + texts[group] + name[match.end(group) :]
        return name

    def names(self, name: str, items: int) -> list[str] | None:
        """What the parts of the model's `name` are called at rest, in the order in which they lie; the way back.

        None if the fusion does not speak of it.
        """
        match = self._back.search(name)
        if match is None:
            return None
        head, tail = name[: match.start()], name[match.end() :]
        return [
            head + self.back[1].format(item=item, piece=piece) + tail for item in range(items) for piece in self.pieces
        ]


def find_fusion(rules: Iterable[Any], name: str) -> Fusion | None:
    """The fusion that makes the model's `name`."""
    return next((rule for rule in rules if isinstance(rule, Fusion) and rule.names(name, 0) is not None), None)
