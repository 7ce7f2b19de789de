"""Tensors of a file that is not on this machine: its ranges go straight into the parameters, past the disk.

All that is wanted of a file is asked for at once, so that what lies together comes together. What has to be cast goes
through windows, what has to be arranged through an array of its own; neither adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._types import ByteSource, Piece
from .disk import HugePages, allocate
from .execute import Loaded, Sink, cut, memory_for, overflow_warning, overflows, sorted_by_way, windows_of
from .plan_load import Step
from .rules import apply_ops
from .tensors import BITS, Container

__all__ = ["stream_steps"]


def stream_steps(container: Container, source: ByteSource, steps: Sequence[Step], sink: Sink, loaded: Loaded) -> None:
    """Reads tensors of one remote file into main memory.

    Raises:
        HubError: the server cannot be reached or refuses. CheckpointChangedError: the file is another now.
    """
    plain, cast, other = sorted_by_way(steps)
    loaded.values |= dict.fromkeys(step.param for step in steps if step.whole is None)  # whichever comes first
    overflowed: set[str] = set()
    pages = HugePages()
    pieces = [_plain_piece(step, sink, loaded, pages) for step in plain]
    for step in cast:
        pieces += _cast_pieces(step, sink, loaded, overflowed, pages)
    for step in other:
        pieces.append(_array_piece(container, step, sink, loaded, overflowed))
    source.fetch([piece for piece in pieces if piece.nbytes], sink.worker if cast or other else None)
    for piece in pieces:
        if not piece.nbytes and piece.done is not None:  # nothing to read, and a parameter all the same
            piece.done(piece.target())
    loaded.warnings += [overflow_warning(step) for step in steps if step.entry.name in overflowed]
    loaded.bytes_read += sum(step.entry.nbytes for step in steps)


def _plain_piece(step: Step, sink: Sink, loaded: Loaded, pages: HugePages) -> Piece:
    """The bytes are the parameter's."""
    memory = memory_for(step, sink, loaded)

    def target() -> memoryview:
        pages.prepare(memory)
        return memory

    return Piece(step.entry.offset, step.entry.nbytes, target)


def _cast_pieces(step: Step, sink: Sink, loaded: Loaded, overflowed: set[str], pages: HugePages) -> list[Piece]:
    """Window by window into another dtype."""
    memory = memory_for(step, sink, loaded)
    size_in, size_out = BITS[step.entry.dtype] // 8, BITS[step.dtype] // 8

    def piece(start: int, stop: int) -> Piece:
        nbytes = (stop - start) * size_in

        def convert(source: memoryview) -> None:
            target = memory[start * size_out : stop * size_out]
            pages.prepare(target)
            sink.cast(source, step.entry.dtype, target, step.dtype)
            if overflows(step, source, target, sink):
                overflowed.add(step.entry.name)

        return Piece(step.entry.offset + start * size_in, nbytes, lambda: memoryview(bytearray(nbytes)), convert)

    return [piece(start, stop) for start, stop in windows_of(step)]


def _array_piece(container: Any, step: Step, sink: Sink, loaded: Loaded, overflowed: set[str]) -> Piece:
    """The whole tensor through an array, where its layout changes or its elements are packed."""
    entry = step.entry
    is_plain = entry.offset >= 0 and BITS[entry.dtype] % 8 == 0
    offset, nbytes = (entry.offset, entry.nbytes) if entry.offset >= 0 else container.raw_place(entry)
    place = None if step.whole is None else memory_for(step, sink, loaded)

    def arrange(memory: memoryview) -> None:
        if is_plain:
            source = sink.view(memory, 0, entry.dtype, entry.shape)
        else:
            source = container.as_array(memory, entry)
        array = cut(apply_ops(step.ops, source), step.box, is_view=False)
        if place is None:
            value = loaded.values[step.param] = sink.from_array(array, step.dtype)
        else:
            value = sink.view(place, 0, step.dtype, step.shape)
            sink.fill(value, array)
        if overflows(step, array, value, sink):
            overflowed.add(entry.name)

    return Piece(offset, nbytes, lambda: allocate(nbytes), arrange)
