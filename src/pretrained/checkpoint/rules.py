"""Rules: how names and layouts at rest become a model's, each with its inverse.

A family whose names on disk are the model's needs none. The layout ops work on anything with numpy's `transpose` and
`reshape`, and on shapes alone, so a plan can be checked before a byte is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from .._types import Shape
from .fusions import Fusion, Part
from .tensors import count_elements

__all__ = [
    "AnyRule",
    "Op",
    "Permute",
    "Reshape",
    "Rule",
    "Shift",
    "apply_ops",
    "back_through_rules",
    "legacy_names",
    "rules_from_mapping",
    "shape_after",
    "through_rules",
]


class Op(Protocol):
    """A change of layout that loses nothing."""

    @property
    def inverse(self) -> Op:
        """The op that undoes this one."""

    def shape(self, shape: Shape) -> Shape:
        """The shape this op makes of `shape`. Raises ValueError if it cannot."""

    def apply(self, array: Any) -> Any:
        """The array in its new layout; a view where there can be one."""


@dataclass(frozen=True)
class Permute:
    """Axes in another order, as numpy's transpose: axis i of the result is axis `axes[i]` of the source."""

    axes: tuple[int, ...]

    @property
    def inverse(self) -> Permute:
        """The op that undoes this one."""
        return Permute(tuple(sorted(range(len(self.axes)), key=self.axes.__getitem__)))

    def shape(self, shape: Shape) -> Shape:
        """`shape` with its axes reordered."""
        if len(shape) != len(self.axes):
            raise ValueError(f"cannot permute {len(shape)} axes by {self.axes}")
        return tuple(shape[axis] for axis in self.axes)

    def apply(self, array: Any) -> Any:
        """A transposed view. torch calls it permute; its transpose swaps two axes."""
        return getattr(array, "permute", array.transpose)(self.axes)


@dataclass(frozen=True)
class Reshape:
    """The same elements in the same order under another shape."""

    source: Shape
    target: Shape

    @property
    def inverse(self) -> Reshape:
        """The op that undoes this one."""
        return Reshape(self.target, self.source)

    def shape(self, shape: Shape) -> Shape:
        """The target shape."""
        if tuple(shape) != self.source or count_elements(self.source) != count_elements(self.target):
            raise ValueError(f"cannot reshape {shape} as {self.source} → {self.target}")
        return self.target

    def apply(self, array: Any) -> Any:
        """The reshaped array."""
        return array.reshape(self.target)


@dataclass(frozen=True)
class Shift:
    """Every element plus a constant: of what one format stores as a factor and a model as what it adds to one."""

    amount: float

    @property
    def inverse(self) -> Shift:
        """The op that undoes this one, but for what rounding lost."""
        return Shift(-self.amount)

    def shape(self, shape: Shape) -> Shape:
        """`shape`."""
        return shape

    def apply(self, array: Any) -> Any:
        """The shifted array, in its dtype."""
        return array + self.amount


def shape_after(ops: Iterable[Op], shape: Shape) -> Shape:
    """The shape that `ops`, in order, make of `shape`."""
    for op in ops:
        shape = op.shape(shape)
    return shape


def apply_ops(ops: Iterable[Op], array: Any) -> Any:
    """The array after `ops`, in order."""
    for op in ops:
        array = op.apply(array)
    return array


@dataclass(frozen=True)
class Rule:
    """Names that match `pattern` are at rest what `replacement` is in the model, laid out by `ops`.

    `pattern` and `replacement` are as in re.sub; `back`, if given, is the same for the way out. Where it is not, the
    names of the tensors that were read are remembered and written again.
    """

    pattern: str
    replacement: str
    ops: tuple[Op, ...] = ()
    back: tuple[str, str] | None = None

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def rename(self, name: str) -> str | None:
        """The model's name of the tensor called `name` at rest; None if the rule does not speak of it."""
        renamed, count = self._compiled.subn(self.replacement, name)
        return renamed if count else None

    @property
    def inverse(self) -> Rule:
        """The rule from model to file. Raises ValueError where there is none."""
        if self.back is None:
            raise ValueError(f"the rule {self.pattern!r} → {self.replacement!r} names no way back")
        inverse_ops = tuple(op.inverse for op in reversed(self.ops))
        return Rule(self.back[0], self.back[1], inverse_ops, (self.pattern, self.replacement))


AnyRule = Rule | Fusion


def through_rules(key: str, rules: Iterable[AnyRule]) -> tuple[str, tuple[Op, ...], Part | None]:
    """What becomes of a name at rest.

    Returns:
        (what is called `key` at rest after `rules`, in order; the changes of layout on the way; which part of it the
        tensor is, if it is not the whole)
    """
    name = key
    ops: tuple[Op, ...] = ()
    part = None
    for rule in rules:
        if isinstance(rule, Fusion):
            if (placed := rule.place(name)) is not None:
                name, part = placed
        elif (renamed := rule.rename(name)) is not None:
            name, ops = renamed, (*ops, *rule.ops)
    return name, ops, part


def back_through_rules(name: str, rules: Sequence[AnyRule]) -> str:
    """What the model's `name` is called at rest where nothing was read: by the ways back that rules name."""
    for rule in reversed(rules):
        if isinstance(rule, Rule) and rule.back is not None and (renamed := rule.inverse.rename(name)) is not None:
            name = renamed
    return name


def rules_from_mapping(key_mapping: Mapping[str, str] | None) -> tuple[Rule, ...]:
    """The user's `key_mapping` (regular expression → replacement) as rules."""
    return tuple(Rule(pattern, replacement) for pattern, replacement in (key_mapping or {}).items())


# Spellings of older releases: last parts of a name → what they are called now.
_LEGACY_ENDINGS: Sequence[tuple[str, str]] = (
    (".gamma", ".weight"),
    (".beta", ".bias"),
    (".weight_g", ".parametrizations.weight.original0"),
    (".weight_v", ".parametrizations.weight.original1"),
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
)


def legacy_names(name: str) -> list[str]:
    """What a tensor under an older spelling may be called now. Only tried when no parameter has the name itself."""
    return [name[: -len(old)] + new for old, new in _LEGACY_ENDINGS if name.endswith(old)]
