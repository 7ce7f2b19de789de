"""Carrying out a plan: each tensor by the cheapest safe way, nothing twice, nothing bound before all is there.

map      the bytes at rest are the parameter's: it becomes a view of the file
read     the same, but copied into memory of its own, or into its place in the memory of what it is a part of
cast     another dtype: through a bounded window into memory of its own
arrange  layout ops, or a format that only its own reader understands: through an array

What is wanted only in part goes these ways too, but no more of the file is touched than has to be: `read_parts`.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._types import CPU, DISK
from .boxes import Box, slices_of
from .disk import MAX_WORKERS, Allowance, Extent, HugePages, allocate, is_remote, map_file, read_extents, run
from .plan_load import LoadPlan, Step
from .read_parts import can_read_part, load_parts
from .rules import apply_ops
from .sink import AtRest, Loaded, Sink, overflow_warning, overflows
from .tensors import BITS, Container, num_bytes, remote_source, require_intact

__all__ = [
    "WINDOW", "AtRest", "Loaded", "Sink", "by_file", "cut", "execute", "is_castable", "load_steps", "memory_for",
    "overflow_warning", "overflows", "sorted_by_way", "source_of", "windows_of",
]  # fmt: skip

WINDOW = 8 * 2**20  # bytes of source that a worker casts at a time; all there is of it beside the result


def execute(plan: LoadPlan, containers: Mapping[Path, Container], sink: Sink, *, use_mmap: bool = True) -> Loaded:
    """Reads every tensor of the plan that goes to main memory; the others are `deliver`'s.

    Nothing is bound to the model here: an error on the way leaves it as it was.

    Raises:
        CheckpointChangedError: a file is no longer the one whose header was read.
    """
    loaded = Loaded()
    for path, steps in by_file(plan.steps).items():
        here = [step for step in steps if step.device == CPU]
        # Of a file that is not to be in memory as a whole, only what is used should come in.
        ahead = all(step.device != DISK and step.box is None for step in steps)
        load_steps(containers[path], here, sink, loaded, use_mmap=use_mmap, ahead=ahead)
    return loaded


def by_file(steps: Iterable[Step]) -> dict[Path, list[Step]]:
    """The steps of each file, in order."""
    found: dict[Path, list[Step]] = {}
    for step in steps:
        found.setdefault(step.entry.file, []).append(step)
    return found


def load_steps(
    container: Container, steps: Sequence[Step], sink: Sink, loaded: Loaded, *, use_mmap: bool, ahead: bool = True
) -> None:
    """Reads tensors of one file into main memory, by the cheapest safe way for each."""
    require_intact(container, (step.entry for step in steps))
    if (source := remote_source(container)) is not None:
        from .stream import stream_steps

        return stream_steps(container, source, steps, sink, loaded)
    parts = [step for step in steps if step.box is not None and can_read_part(step)]
    plain, cast, other = sorted_by_way(step for step in steps if step.box is None or not can_read_part(step))
    can_map = use_mmap and not is_remote(container.path)
    mapped = [step for step in plain if can_map and _is_mappable(step, sink)]
    if mapped:
        _map(container, mapped, sink, loaded, ahead=ahead)
    if len(mapped) < len(plain):
        _read(container, [step for step in plain if not (can_map and _is_mappable(step, sink))], sink, loaded)
    if cast:
        _cast(container, cast, sink, loaded, can_map=can_map, ahead=ahead)
    if parts:
        load_parts(container, parts, sink, loaded, can_map=can_map)
    if other:
        _arrange(container, other, sink, loaded, can_map=can_map, ahead=ahead)


def sorted_by_way(steps: Iterable[Step]) -> tuple[list[Step], list[Step], list[Step]]:
    """The steps that take the bytes as they are, that cast them, and that arrange them or take a part of them."""
    plain: list[Step] = []
    cast: list[Step] = []
    other: list[Step] = []
    for step in steps:
        if step.box is not None:
            other.append(step)
        elif step.is_plain:
            plain.append(step)
        elif is_castable(step):
            cast.append(step)
        else:
            other.append(step)
    return plain, cast, other


def _arrange(
    container: Container, steps: Sequence[Step], sink: Sink, loaded: Loaded, *, can_map: bool, ahead: bool
) -> None:
    """Tensor by tensor through an array, which is a view of the file where that has plain elements."""
    area = map_file(container.path, container.stamp, ahead=ahead) if can_map and any(map(_can_view, steps)) else None
    largest = max(entry.nbytes for entry in container.entries.values())
    allowance = Allowance(max(largest, MAX_WORKERS * WINDOW))
    overflowed: set[str] = set()
    loaded.values |= dict.fromkeys(step.param for step in steps if step.whole is None)  # whichever is done first
    places = {id(step): memory_for(step, sink, loaded) for step in steps if step.whole is not None}

    def arrange(step: Step) -> None:
        entry = step.entry
        is_view = area is not None and _can_view(step)
        with allowance.take(entry.nbytes):
            source = sink.view(area, entry.offset, entry.dtype, entry.shape) if is_view else container.read(entry)
            array = cut(apply_ops(step.ops, source), step.box, is_view=is_view)
            if step.whole is None:
                value = loaded.values[step.param] = sink.from_array(array, step.dtype)
            else:
                value = sink.view(places[id(step)], 0, step.dtype, step.shape)
                sink.fill(value, array)
            if overflows(step, array, value, sink):
                overflowed.add(step.entry.name)
            if area is not None and is_view:
                _drop_pages(area, entry.offset, entry.offset + entry.nbytes)

    # What has to be unpacked takes memory of its own for that, which only its reader bounds; and a few small ones are
    # done before threads would have begun.
    plain, packed = [s for s in steps if s.entry.offset >= 0], [s for s in steps if s.entry.offset < 0]
    total = sum(step.entry.nbytes for step in plain)
    if total > WINDOW:
        run(arrange, plain, initializer=sink.worker)
    for step in packed if total > WINDOW else steps:
        arrange(step)
    loaded.warnings += [overflow_warning(step) for step in steps if step.entry.name in overflowed]
    loaded.bytes_read += sum(step.entry.nbytes for step in steps)


def cut(array: Any, box: Box | None, *, is_view: bool) -> Any:
    """The wanted part of an array, in memory of its own unless it is a view of the file."""
    if box is None:
        return array
    part = array[slices_of(box)]
    copy = getattr(part, "copy", None)
    return part if is_view or copy is None else copy()


def _can_view(step: Step) -> bool:
    """Whether the elements at rest can be seen as an array where they lie, at whatever byte: it is only copied from."""
    return step.entry.offset >= 0 and BITS[step.entry.dtype] % 8 == 0


def is_castable(step: Step) -> bool:
    """Whether the bytes in the file, element by element, are enough to make the tensor of."""
    return step.entry.offset >= 0 and not step.ops and BITS[step.entry.dtype] % 8 == 0


def _is_mappable(step: Step, sink: Sink) -> bool:
    """Whether a plain tensor can be used where it lies: as a whole, at a place that the framework takes.

    Old files have headers of any length.
    """
    is_aligned = step.entry.offset % max(sink.alignment, BITS[step.dtype] // 8) == 0
    return is_aligned and not step.is_copy and step.whole is None


def memory_for(step: Step, sink: Sink, loaded: Loaded) -> memoryview:
    """New memory for a parameter, or the place of a part in the memory of its whole; the array goes to `loaded`."""
    if step.whole is None:
        memory = allocate(num_bytes(step.shape, step.dtype))
        loaded.values[step.param] = sink.view(memory, 0, step.dtype, step.shape)
        return memory
    if step.param not in loaded.wholes:
        loaded.wholes[step.param] = memory = allocate(num_bytes(step.whole, step.dtype))
        loaded.values[step.param] = sink.view(memory, 0, step.dtype, step.whole)
    first = step.start * BITS[step.dtype] // 8
    return loaded.wholes[step.param][first : first + num_bytes(step.shape, step.dtype)]


def _map(container: Container, steps: Sequence[Step], sink: Sink, loaded: Loaded, *, ahead: bool) -> None:
    area = map_file(container.path, container.stamp, ahead=ahead)
    view, values = sink.view, loaded.values
    for param, entry, dtype, shape, *_ in steps:
        values[param] = view(area, entry.offset, dtype, shape)
        loaded.bytes_mapped += entry.nbytes


def _read(container: Container, steps: Sequence[Step], sink: Sink, loaded: Loaded) -> None:
    extents = []
    for step in steps:
        memory = memory_for(step, sink, loaded)
        if step.entry.nbytes:
            extents.append(Extent(step.entry.offset, memory))
    loaded.bytes_read += read_extents(container.path, container.stamp, extents)


def _cast(
    container: Container, steps: Sequence[Step], sink: Sink, loaded: Loaded, *, can_map: bool, ahead: bool
) -> None:
    """Casts window by window, so that the source never adds up."""
    read, done = source_of(container, can_map=can_map, ahead=ahead)
    windows: list[tuple[Step, memoryview, int, int]] = []
    overflowed: set[str] = set()
    pages = HugePages()
    for step in steps:
        memory = memory_for(step, sink, loaded)
        windows += [(step, memory, start, stop) for start, stop in windows_of(step)]

    def convert(window: tuple[Step, memoryview, int, int]) -> None:
        step, memory, start, stop = window
        size_in, size_out = BITS[step.entry.dtype] // 8, BITS[step.dtype] // 8
        first, last = step.entry.offset + start * size_in, step.entry.offset + stop * size_in
        source, target = read(first, last), memory[start * size_out : stop * size_out]
        pages.prepare(target)
        sink.cast(source, step.entry.dtype, target, step.dtype)
        if overflows(step, source, target, sink):
            overflowed.add(step.entry.name)
        done(first, last)

    run(convert, windows, initializer=sink.worker)
    loaded.warnings += [overflow_warning(step) for step in steps if step.entry.name in overflowed]
    loaded.bytes_read += sum(step.entry.nbytes for step in steps)


_Source = tuple[Callable[[int, int], memoryview], Callable[[int, int], None]]


def source_of(container: Container, *, can_map: bool, ahead: bool = True) -> _Source:
    """(bytes of the file between two places, what to call with the places when they are done with)."""
    return _mapped_source(container, ahead=ahead) if can_map else _copied_source(container)


def _mapped_source(container: Container, *, ahead: bool) -> _Source:
    """(bytes of the file from a mapping, what drops their pages again)."""
    area = map_file(container.path, container.stamp, ahead=ahead)
    view = memoryview(area)
    return lambda first, last: view[first:last], lambda first, last: _drop_pages(area, first, last)


def _copied_source(container: Container) -> _Source:
    """The same where the file shall not be mapped: a copy of each window."""

    def read(first: int, last: int) -> memoryview:
        window = memoryview(bytearray(last - first))
        read_extents(container.path, container.stamp, [Extent(first, window)])
        return window

    return read, lambda first, last: None


def windows_of(step: Step) -> list[tuple[int, int]]:
    """The step's elements in runs of one window of source bytes."""
    size = BITS[step.entry.dtype] // 8
    count, per_window = step.entry.nbytes // size, WINDOW // size
    return [(start, min(start + per_window, count)) for start in range(0, count, per_window)]


def _drop_pages(area: mmap.mmap, first: int, last: int) -> None:
    page = mmap.PAGESIZE
    start, stop = -(-first // page) * page, last // page * page
    if stop > start and "MADV_DONTNEED" in vars(mmap):
        area.madvise(mmap.MADV_DONTNEED, start, stop - start)
