"""Boxes: the part of a tensor that somebody wants, a span along each axis, and where its elements lie in a file.

One process of several, or one rank of a group, says with a box what it needs of a parameter; what reads and writes
files makes runs of bytes of it. Everything here is arithmetic on integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

from .._types import Shape
from .rules import Op, Permute, Reshape
from .tensors import count_elements

__all__ = [
    "Box", "Piece", "Source", "around", "at_rest", "is_whole", "overlap", "permuted", "pieces", "shape_of", "slices_of",
    "strides_of", "whole",
]  # fmt: skip

Box = tuple[tuple[int, int], ...]  # (start, stop) along each axis


def whole(shape: Shape) -> Box:
    """The box that is all of a tensor."""
    return tuple((0, dim) for dim in shape)


def is_whole(box: Box, shape: Shape) -> bool:
    """Whether a box is all of a tensor."""
    return box == whole(shape)


def shape_of(box: Box) -> Shape:
    """The shape of a box."""
    return tuple(stop - start for start, stop in box)


def slices_of(box: Box, origin: Box | None = None) -> tuple[slice, ...]:
    """What cuts a box out of the tensor, or out of the box `origin` of it."""
    offsets = [0] * len(box) if origin is None else [start for start, _ in origin]
    return tuple(slice(start - first, stop - first) for (start, stop), first in zip(box, offsets, strict=True))


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds all of these; at least one."""
    return tuple((min(s for s, _ in spans), max(s for _, s in spans)) for spans in zip(*boxes, strict=True))


def overlap(box: Box, other: Box) -> Box | None:
    """What two boxes have in common; None if that is nothing."""
    found = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, other, strict=True))
    return None if any(start >= stop for start, stop in found) else found


def permuted(box: Box, op: Permute) -> Box:
    """The box after its tensor's axes were reordered."""
    return tuple(box[axis] for axis in op.axes)


class Source(NamedTuple):
    """Where a box of a parameter comes from.

    Attributes:
        shape: as which the elements at rest are looked at; a reshape only looks at them in another way.
        box: what of that is needed.
        ops: what makes it the parameter's.
        cut: the box to cut out after that, where the ops do not let it be found beforehand; None elsewhere.
    """

    shape: Shape
    box: Box
    ops: tuple[Op, ...]
    cut: Box | None = None


def at_rest(shape: Shape, ops: Sequence[Op], box: Box) -> Source:
    """What is needed of a tensor of this shape, so that after `ops` there is `box`."""
    rest = list(ops)
    while rest and isinstance(rest[0], Reshape):
        shape = rest.pop(0).shape(shape)
    wanted = box
    for op in reversed(rest):
        if not isinstance(op, Permute):
            return Source(shape, whole(shape), tuple(rest), box)
        wanted = permuted(wanted, op.inverse)
    return Source(shape, wanted, tuple(rest))


class Piece(NamedTuple):
    """A part of a box whose elements lie close together.

    Attributes:
        start: its first element, counted through the whole tensor in row-major order.
        span: elements from there to its last, those between that are not wanted included.
        size: how many are wanted.
        box: what is wanted there. In the order of the box that was asked for, its elements follow those of the pieces
            before it.
    """

    start: int
    span: int
    size: int
    box: Box

    @property
    def is_run(self) -> bool:
        """Whether all of the elements are wanted."""
        return self.span == self.size


def strides_of(shape: Shape) -> tuple[int, ...]:
    """Elements between neighbours along each axis."""
    strides, step = [], 1
    for dim in reversed(shape):
        strides.append(step)
        step *= dim
    return tuple(reversed(strides))


def pieces(shape: Shape, box: Box, *, gap: int, window: int) -> Iterator[Piece]:
    """The box in pieces, in order.

    Args:
        shape: of the whole tensor.
        box: what is wanted of it.
        gap: neighbours are one piece if at most so many elements between them are not wanted.
        window: elements that a piece spans at most; single elements aside.
    """
    counts, strides = shape_of(box), strides_of(shape)
    if 0 in counts:
        return
    spans = [1] * (len(box) + 1)  # elements from the first to the last wanted, along this axis and those after it
    joined = len(box)  # from this axis on, neighbours are one piece
    for axis in reversed(range(len(box))):
        spans[axis] = (counts[axis] - 1) * strides[axis] + spans[axis + 1]
        if joined == axis + 1 and (counts[axis] == 1 or strides[axis] - spans[axis + 1] <= gap):
            joined = axis
    before = [range(start, stop) for start, stop in box[:joined]]
    inner = sum(start * stride for (start, _), stride in zip(box[joined:], strides[joined:], strict=True))
    # The first piece and all like it: there may be very many.
    parts = list(_split(joined, inner, (), box, strides, spans, window))
    for indices in product(*before):
        first = sum(index * stride for index, stride in zip(indices, strides, strict=False))
        fixed = tuple((index, index + 1) for index in indices)
        for start, span, size, rest in parts:
            yield Piece(first + start, span, size, fixed + rest)


def _split(
    axis: int, first: int, fixed: Box, box: Box, strides: Sequence[int], spans: Sequence[int], window: int
) -> Iterator[Piece]:
    """One piece, or as many as the window asks for: rows of an axis together, or each of them split further."""
    if spans[axis] <= window or axis == len(box):
        rest = box[axis:]
        yield Piece(first, spans[axis], count_elements(shape_of(rest)), (*fixed, *rest))
        return
    start, stop = box[axis]
    rest = box[axis + 1 :]
    row_size = count_elements(shape_of(rest))
    num_rows = (window - spans[axis + 1]) // strides[axis] + 1 if spans[axis + 1] <= window else 0
    for row in range(start, stop, max(num_rows, 1)):
        here = first + (row - start) * strides[axis]
        if num_rows:
            end = min(row + num_rows, stop)
            span = (end - row - 1) * strides[axis] + spans[axis + 1]
            yield Piece(here, span, (end - row) * row_size, (*fixed, (row, end), *rest))
        else:
            yield from _split(axis + 1, here, (*fixed, (row, row + 1)), box, strides, spans, window)
