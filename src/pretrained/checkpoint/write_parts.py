"""Tensors that are in memory in parts, on their way into a file: run by run, and never put together as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .._types import Shape
from ..errors import SaveError
from .arrays import bytes_of
from .boxes import Box, around, overlap, permuted, pieces, shape_of, slices_of, whole
from .rules import Op, Permute, Reshape, apply_ops
from .tensors import count_elements

__all__ = ["Part", "Parts", "assembled", "runs"]

WINDOW = 32 << 20  # bytes of a file that are put together at a time


class Part(NamedTuple):
    """The box of a tensor, and the array of numpy that has its elements."""

    box: Box
    array: Any


class Parts(NamedTuple):
    """What this process is to write of a tensor: parts that do not overlap, and the shape of the whole."""

    shape: Shape
    parts: Sequence[Part]

    @property
    def size(self) -> int:
        """How many elements the parts are."""
        return sum(count_elements(shape_of(part.box)) for part in self.parts)

    def after(self, ops: Sequence[Op]) -> Parts:
        """The same after changes of layout; as far as a file is concerned, to which reshapes at the end are nothing.

        Raises:
            SaveError: the tensor has to be reshaped before its axes are reordered, and is not here as a whole.
        """
        shape, parts, rest = self.shape, list(self.parts), list(ops)
        while rest and not all(isinstance(op, Reshape) for op in rest):
            op = rest[0]
            if not isinstance(op, Permute):
                return _whole_after(Parts(shape, parts), rest)
            shape = op.shape(shape)
            parts = [Part(permuted(part.box, op), op.apply(part.array)) for part in parts]
            del rest[0]
        return Parts(shape, parts)


def _whole_after(parts: Parts, ops: Sequence[Op]) -> Parts:
    if parts.parts and parts.size != count_elements(parts.shape):
        raise SaveError(
            f"a tensor {list(parts.shape)} that is spread over processes cannot be laid out by {list(ops)}: put it on "
            "every device before it is saved"
        )
    if not parts.parts:
        return parts
    array = apply_ops(ops, assembled(parts))
    shape = tuple(array.shape)
    return Parts(shape, [Part(whole(shape), array)])


def assembled(parts: Parts) -> Any:
    """The whole tensor as one array; all of its parts must be here."""
    assert parts.size == count_elements(parts.shape)
    return _gathered(whole(parts.shape), parts.parts)


def runs(parts: Parts, itemsize: int) -> Iterator[tuple[int, memoryview]]:
    """(place of its first byte in the tensor, bytes) of everything the parts hold, in order where they are one box."""
    if not parts.parts:
        return
    box = around(part.box for part in parts.parts)
    is_full = count_elements(shape_of(box)) == parts.size
    for wanted in [box] if is_full else [part.box for part in parts.parts]:
        yield from _runs_of(wanted, parts, itemsize)


def _runs_of(box: Box, parts: Parts, itemsize: int) -> Iterator[tuple[int, memoryview]]:
    """The bytes of a box that the parts fill: a window of them is put together, then cut into what is one run."""
    shape, window = parts.shape, max(1, WINDOW // itemsize)
    for group in pieces(shape, box, gap=count_elements(shape), window=window):
        data = bytes_of(_gathered(group.box, parts.parts))
        done = 0
        for run in pieces(shape, group.box, gap=0, window=window):
            nbytes = run.size * itemsize
            yield run.start * itemsize, data[done : done + nbytes]
            done += nbytes


def _gathered(box: Box, parts: Sequence[Part]) -> Any:
    """The array of a box that the parts fill; a view of the part that has all of it."""
    import numpy as np

    found: Any = None
    for part in parts:
        if part.box == box:  # also where it has no elements, and so no overlap
            return part.array
        common = overlap(box, part.box)
        if common is None:
            continue
        values = part.array[(..., *slices_of(common, part.box))]
        if common == box:
            return values
        if found is None:
            found = np.empty(shape_of(box), values.dtype)
        found[slices_of(common, box)] = values
    return found
