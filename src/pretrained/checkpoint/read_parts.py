"""Tensors of which only a part is wanted: no more of the file is touched than that takes.

A part that lies in one run is a view of the mapped file, where it can be. Any other is read run by run into memory of
its own; what lies closer together than a page comes in one piece, because the system reads whole pages anyway.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from .boxes import Box, Piece, Source, at_rest, pieces, shape_of, strides_of
from .disk import MAX_WORKERS, Allowance, HugePages, allocate, map_file, reading, run
from .plan_load import Step
from .rules import apply_ops
from .sink import Loaded, Sink, overflow_warning, overflows
from .tensors import BITS, Container, count_elements, num_bytes

__all__ = ["GAP", "WINDOW", "can_read_part", "load_parts"]

GAP = mmap.PAGESIZE  # bytes
WINDOW = 8 * 2**20  # bytes of the file that a worker has in hand at a time

_Read = Callable[[int, memoryview], None]


class _Part(NamedTuple):
    """A step, where its part lies, and the memory it goes to; with ops, the memory before them."""

    step: Step
    source: Source
    memory: memoryview

    @property
    def itemsize(self) -> int:
        """Bytes of an element at rest."""
        return BITS[self.step.entry.dtype] // 8

    @property
    def is_cast(self) -> bool:
        """Whether elements are converted on the way into memory."""
        return not self.source.ops and self.step.entry.dtype != self.step.dtype


class _Batch(NamedTuple):
    """What a worker reads of a part: the box, and how many elements of the part come before it."""

    part: _Part
    first: int
    box: Box


def can_read_part(step: Step) -> bool:
    """Whether the part of a tensor can be found in the file, rather than in the whole tensor once that is read."""
    assert step.box is not None
    is_plain = step.entry.offset >= 0 and BITS[step.entry.dtype] % 8 == 0
    return is_plain and at_rest(step.entry.shape, step.ops, step.box).cut is None


def load_parts(container: Container, steps: Sequence[Step], sink: Sink, loaded: Loaded, *, can_map: bool) -> None:
    """Reads of each tensor the part that is wanted of it; each step must be one that `can_read_part`."""
    loaded.values |= dict.fromkeys(step.param for step in steps)  # in this order, whichever is done first
    direct: list[tuple[Step, Source]] = []
    turned: list[tuple[Step, Source]] = []
    area: mmap.mmap | None = None
    for step in steps:
        assert step.box is not None
        source = at_rest(step.entry.shape, step.ops, step.box)
        piece = _single_run(step, source, sink) if can_map else None
        if piece is not None:
            area = area or map_file(container.path, container.stamp, ahead=False)
            offset = step.entry.offset + piece.start * BITS[step.dtype] // 8
            loaded.values[step.param] = sink.view(area, offset, step.dtype, shape_of(source.box))
            loaded.bytes_mapped += num_bytes(shape_of(source.box), step.dtype)
        else:
            (turned if source.ops else direct).append((step, source))
    if not direct and not turned:
        return
    with reading(container.path, container.stamp) as read:
        if direct:
            _read_direct(direct, read, sink, loaded)
        if turned:
            _read_turned(turned, read, sink, loaded)


def _single_run(step: Step, source: Source, sink: Sink) -> Piece | None:
    """The part as one run that can be used where it lies; None if it cannot."""
    if source.ops or step.is_copy or step.entry.dtype != step.dtype:
        return None
    found = list(islice(pieces(source.shape, source.box, gap=0, window=count_elements(source.shape)), 2))
    size = BITS[step.dtype] // 8
    if len(found) != 1 or (step.entry.offset + found[0].start * size) % max(sink.alignment, size):
        return None
    return found[0]


def _read_direct(wanted: Sequence[tuple[Step, Source]], read: _Read, sink: Sink, loaded: Loaded) -> None:
    """Straight into the memory of the parameter, converted on the way if it has another dtype."""
    batches: list[_Batch] = []
    for step, source in wanted:
        shape = shape_of(source.box)
        part = _Part(step, source, allocate(num_bytes(shape, step.dtype)))
        loaded.values[step.param] = sink.view(part.memory, 0, step.dtype, shape)
        batches += _batches(part)
    tally, pages = _Tally(loaded), HugePages()
    run(lambda batch: tally.add(batch.part.step, *_fill(batch, read, sink, pages)), batches, initializer=sink.worker)
    tally.close()


def _read_turned(wanted: Sequence[tuple[Step, Source]], read: _Read, sink: Sink, loaded: Loaded) -> None:
    """By way of the layout at rest: the part in memory, and from there as the framework wants it."""
    largest = max(num_bytes(shape_of(source.box), step.entry.dtype) for step, source in wanted)
    allowance = Allowance(max(largest, MAX_WORKERS * WINDOW))
    tally, pages = _Tally(loaded), HugePages()

    def work(item: tuple[Step, Source]) -> None:
        step, source = item
        shape = shape_of(source.box)
        nbytes = num_bytes(shape, step.entry.dtype)
        with allowance.take(nbytes):
            part = _Part(step, source, allocate(nbytes))
            for batch in _batches(part):
                tally.add(step, *_fill(batch, read, sink, pages))
            array = apply_ops(source.ops, sink.view(part.memory, 0, step.entry.dtype, shape))
            value = loaded.values[step.param] = sink.from_array(array, step.dtype)
            tally.add(step, 0, overflows(step, array, value, sink))

    run(work, wanted, initializer=sink.worker)
    tally.close()


class _Tally:
    """What several workers have read, and which tensors lost values on the way."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._counts: list[int] = []
        self._lossy: dict[str, Step] = {}

    def add(self, step: Step, nbytes: int, is_lossy: bool) -> None:
        """Bytes of a file that were read for a step, and whether a value became infinite."""
        self._counts.append(nbytes)
        if is_lossy:
            self._lossy[step.entry.name] = step

    def close(self) -> None:
        """Tells the load."""
        self._loaded.bytes_read += sum(self._counts)
        self._loaded.warnings += map(overflow_warning, self._lossy.values())


def _batches(part: _Part) -> Iterator[_Batch]:
    """The part in boxes that each span about a window of the file: errands long enough for a worker."""
    shape, done = part.source.shape, 0
    for piece in pieces(shape, part.source.box, gap=count_elements(shape), window=WINDOW // part.itemsize):
        yield _Batch(part, done, piece.box)
        done += piece.size


def _fill(batch: _Batch, read: _Read, sink: Sink, pages: HugePages) -> tuple[int, bool]:
    """Reads a box into its place, run by run; (bytes that were read, whether a value became infinite)."""
    part, first, box = batch
    size_in = part.itemsize
    size_out = BITS[part.step.dtype] // 8 if part.is_cast else size_in
    pages.prepare(part.memory[first * size_out : (first + count_elements(shape_of(box))) * size_out])
    scratch = memoryview(bytearray(0))
    is_cast = part.is_cast
    num_read, is_lossy = 0, False
    for piece in pieces(part.source.shape, box, gap=GAP // size_in, window=WINDOW // size_in):
        end = first + piece.size
        target = part.memory[first * size_out : end * size_out]
        first = end
        offset, nbytes = part.step.entry.offset + piece.start * size_in, piece.span * size_in
        num_read += nbytes
        if piece.is_run and not is_cast:
            read(offset, target)
            continue
        if len(scratch) < nbytes:
            scratch = memoryview(bytearray(nbytes))
        source = scratch[:nbytes]
        read(offset, source)
        if not piece.is_run:
            source = _gathered(part, piece, source)
        if is_cast:
            sink.cast(source, part.step.entry.dtype, target, part.step.dtype)
            is_lossy = overflows(part.step, source, target, sink) or is_lossy
        else:
            target[:] = source
    return num_read, is_lossy


def _gathered(part: _Part, piece: Piece, span: memoryview) -> memoryview:
    """What is wanted of the bytes from a piece's first to its last element, without those between."""
    import numpy as np

    size = part.itemsize
    strides = [stride * size for stride in strides_of(part.source.shape)]
    spaced: Any = np.ndarray((*shape_of(piece.box), size), np.uint8, span, 0, (*strides, 1))
    flat: memoryview = np.ascontiguousarray(spaced).reshape(-1).data
    return flat
