"""Whether the parts of a stack that were found are all there is of it, and no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._types import Shape
from .fusions import Fusion, Part, Stack
from .tensors import Container, Entry, num_bytes

if TYPE_CHECKING:
    from .plan_load import Step
    from .rules import Op

__all__ = ["FoundPart", "Unfit", "in_order", "joined"]


class FoundPart(NamedTuple):
    """A tensor at rest that is part of a stack: its name, itself, what changes its layout, which part.

    `is_renamed` says that its name came through rules alone.
    """

    key: str
    entry: Entry
    ops: tuple[Op, ...]
    part: Part
    is_renamed: bool = True


class Unfit(NamedTuple):
    """Why parts make no stack: in words, the shape they would make, and one of them."""

    reason: str
    found: Shape
    entry: Entry


def in_order(
    found: Sequence[FoundPart], shapes: Iterable[Shape | None], whole: Shape, fusion: Fusion
) -> list[FoundPart] | Unfit:
    """The parts of a stack of the shape `whole`, each once, in the order in which they lie; or what is wrong with them.

    Args:
        found: at least one, in any order.
        shapes: theirs, after their changes of layout; None where these do not go.
        fusion: what made them parts of this.
    """
    first = found[0]
    items = max(each.part.item for each in found) + 1
    stack = Stack.of(whole, len(fusion.pieces))
    if stack is None:
        return Unfit("", (items, *first.entry.shape), first.entry)
    there = {each.part: each for each in found}
    places = [Part(item, piece, stack.pieces) for item in range(stack.items) for piece in range(stack.pieces)]
    extra = [each.key for each in found if each.part.item >= stack.items]
    lacking = [place for place in places if place not in there]
    if extra or lacking:
        names = [_sibling(fusion, first.key, place) for place in lacking]
        seen = (len({each.part.item for each in found}), *whole[1:])
        return Unfit(_said(names, extra, stack.items), seen, first.entry)
    for each, shape in zip(found, shapes, strict=True):
        if shape != stack.part_shape(whole):
            return Unfit("", stack.shape(shape) if shape else (items, *each.entry.shape), each.entry)
    return [there[place] for place in places]


def _sibling(fusion: Fusion, key: str, part: Part) -> str:
    """What the file would call another part; its place where a rule before the fusion renamed what is there."""
    return fusion.sibling(key, part) if fusion.place(key) is not None else f"item {part.item}, piece {part.piece}"


def _said(lacking: Sequence[str], extra: Sequence[str], items: int) -> str:
    lines = []
    if lacking:
        lines.append(f"the checkpoint lacks {_listed(lacking)}")
    if extra:
        lines.append(f"the checkpoint has {_listed(extra)} too; the model has {items}, numbered from 0")
    return "; ".join(lines)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def joined(steps: Sequence[Step], containers: Mapping[Path, Container]) -> list[Step]:
    """The steps, where the parts of a stack lie in the file one after the other as they do in it as one.

    Such a stack can be mapped. Files that have checksums for each tensor are left as they are.
    """
    result: list[Step] = []
    start = 0
    while start < len(steps):
        stop = start + 1
        if steps[start].whole is not None:
            while stop < len(steps) and steps[stop].param == steps[start].param:
                stop += 1
        group = steps[start:stop]
        whole = _as_one(group, containers.get(group[0].entry.file)) if group[0].whole is not None else None
        result += group if whole is None else [whole]
        start = stop
    return result


def _as_one(parts: Sequence[Step], container: Any) -> Step | None:
    first, whole = parts[0], parts[0].whole
    assert whole is not None
    if first.entry.offset < 0 or getattr(container, "require_intact", None) is not None:
        return None
    place = first.entry.offset
    for step in parts:
        entry = step.entry
        if step.ops or (entry.file, entry.dtype, entry.offset) != (first.entry.file, first.entry.dtype, place):
            return None
        place += entry.nbytes
    nbytes = num_bytes(whole, first.entry.dtype)
    if place - first.entry.offset != nbytes:
        return None
    entry = first.entry._replace(shape=whole, nbytes=nbytes)
    return first._replace(entry=entry, shape=whole, start=0, whole=None)
