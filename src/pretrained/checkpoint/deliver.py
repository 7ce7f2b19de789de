"""What does not go to main memory: tensors sent to an accelerator window by window, tensors left on disk.

A tensor that lies plainly in its file stays there and is mapped; one that only has another dtype is converted whenever
it is used, or once, if there is a folder to write to. Everything else that is to be on disk needs that folder.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from .._types import CPU, DISK, ByteSource, Device, Piece, Shape
from ..errors import InvalidOptionError, PretrainedError, ResourceLimitError, SaveError
from .devices import Layout, Placement
from .disk import is_remote, map_file, run, stamp_at
from .dtypes import can_overflow
from .execute import (
    AtRest,
    Loaded,
    Sink,
    by_file,
    is_castable,
    load_steps,
    overflow_warning,
    overflows,
    source_of,
    windows_of,
)
from .formats.safetensors import Outgoing, write
from .plan_load import LoadPlan, Step
from .tensors import BITS, Container, remote_source, require_intact

__all__ = ["Placer", "deliver", "require_folder"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Placer(Protocol):
    """What a framework must be able to do to have a model on several devices."""

    def layout(self, model: Any) -> Layout:
        """The modules of the model, and its buffers."""

    def memory(self) -> Mapping[Device, int]:
        """Bytes that may be taken on each device there is, the CPU included."""

    def check(self, placement: Placement) -> None:
        """Raises an error if there is no such device, or nothing that could move tensors while the model runs."""

    def empty(self, shape: Shape, dtype: str, device: Device) -> Any:
        """An array on a device, not yet filled."""

    def part(self, array: Any, start: int, shape: Shape) -> Any:
        """A view of a run of an array's elements, from element `start` on, under a shape of its own."""

    def send(self, source: Any, source_dtype: str, target: Any, start: int) -> None:
        """Fills `target` from its element `start` on with the flat buffer `source`.

        `source` is done with on return, the target not before `wait`. Called by several threads.
        """

    def wait(self) -> None:
        """Returns when everything that was sent is there."""

    def move(self, array: Any, device: Device) -> Any:
        """The array on another device."""

    def buffer(self, array: Any) -> memoryview:
        """The elements of an array as a flat buffer."""

    def initial(self, name: str) -> tuple[Any, str]:
        """(value, dtype) of a parameter that was just initialised."""

    def attach(self, model: Any, placement: Placement, resting: Mapping[str, AtRest]) -> None:
        """Puts into effect what a placement says of a model whose parameters are bound."""


def require_folder(plan: LoadPlan, containers: Mapping[Path, Container]) -> None:
    """Raises InvalidOptionError if something has to be written to an offload folder, and there is none."""
    if plan.placement is None or plan.placement.offload_folder is not None:
        return
    on_disk = [step for step in plan.steps if step.device == DISK]
    away = [step for step in on_disk if not _can_rest(step) or _is_remote(containers, step)]
    names = list(dict.fromkeys(step.param for step in away))
    names += [spec.name for spec in plan.initialise if spec.device == DISK]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        reason = (
            f"{', '.join(names[:3])}{more} are to be on disk, and {plan.source} does not have them as they are used"
        )
        raise InvalidOptionError(
            f"{reason}; give offload_folder= a folder to write them to", key="offload_folder", reason=reason
        )


def _is_remote(containers: Mapping[Path, Container], step: Step) -> bool:
    return remote_source(containers[step.entry.file]) is not None


def deliver(
    plan: LoadPlan,
    containers: Mapping[Path, Container],
    sink: Sink,
    placer: Placer,
    loaded: Loaded,
    *,
    use_mmap: bool = True,
) -> None:
    """Reads what goes to accelerators and finds a place for what stays on disk; adds both to `loaded`.

    Raises:
        CheckpointChangedError: a file is no longer the one whose header was read.
        ResourceLimitError: the offload folder's disk is full. SaveError: the folder cannot be written to.
    """
    assert plan.placement is not None
    folder = plan.placement.offload_folder
    spread = {step.entry.file for step in plan.steps if step.device == DISK}
    for path, steps in by_file(step for step in plan.steps if step.device not in (CPU, DISK)).items():
        can_map = use_mmap and not is_remote(path)
        _send_steps(containers[path], steps, sink, placer, loaded, can_map=can_map, ahead=path not in spread)
    leaving: dict[str, list[Step]] = {}
    for path, steps in by_file(step for step in plan.steps if step.device == DISK).items():
        is_here = remote_source(containers[path]) is None
        staying = [step for step in steps if is_here and _can_rest(step) and (folder is None or step.is_plain)]
        if staying:
            _let_rest(containers[path], staying, sink, loaded)
        kept = {step.param for step in staying}
        for step in steps:
            if step.param not in kept:
                leaving.setdefault(step.param, []).append(step)
    outgoing = [
        Outgoing(
            name,
            steps[0].dtype,
            steps[0].whole or steps[0].shape,
            partial(_bytes_of, containers, steps, sink, placer, loaded),
        )
        for name, steps in leaving.items()
    ]
    for spec in plan.initialise:
        if spec.device == DISK:
            value, dtype = placer.initial(spec.name)
            outgoing.append(Outgoing(spec.name, dtype, spec.shape, partial(placer.buffer, value)))
    if outgoing:
        loaded.resting |= _write_out(Path(folder), outgoing)


def _can_rest(step: Step) -> bool:
    """Whether the bytes in the file, which are all of it, are enough to have the tensor whenever it is used."""
    return is_castable(step) and step.whole is None


def _let_rest(container: Container, steps: Sequence[Step], sink: Sink, loaded: Loaded) -> None:
    area = map_file(container.path, container.stamp, ahead=False)
    for step in steps:
        loaded.resting[step.param] = AtRest(step.entry, step.dtype, area)
        loaded.bytes_mapped += step.entry.nbytes
        if can_overflow(step.entry.dtype, step.dtype):
            # Looked at once, now, while there is somebody to tell.
            seen = Loaded()
            load_steps(container, [step], sink, seen, use_mmap=True, ahead=False)
            loaded.warnings += seen.warnings


def _bytes_of(
    containers: Mapping[Path, Container], steps: Sequence[Step], sink: Sink, placer: Placer, loaded: Loaded
) -> memoryview:
    """One tensor, of all its parts, as it is used, for the writer to take."""
    found = Loaded()
    for path, here in by_file(steps).items():
        load_steps(containers[path], here, sink, found, use_mmap=True, ahead=False)
    loaded.bytes_read += sum(step.entry.nbytes for step in steps)
    loaded.warnings += found.warnings
    return placer.buffer(found.values[steps[0].param])


def _send_steps(
    container: Container,
    steps: Sequence[Step],
    sink: Sink,
    placer: Placer,
    loaded: Loaded,
    *,
    can_map: bool,
    ahead: bool,
) -> None:
    """From the file to the accelerator through a window a thread; the dtype changes over there."""
    direct = [step for step in steps if is_castable(step)]
    for step in steps:
        if not is_castable(step):
            found = Loaded()
            load_steps(container, [step._replace(start=0, whole=None)], sink, found, use_mmap=can_map, ahead=False)
            if step.whole is None:
                loaded.values[step.param] = placer.move(found.values[step.param], step.device)
            else:
                sink.fill(_room_for(step, placer, loaded), found.values[step.param])
            loaded.warnings += found.warnings
            loaded.bytes_read += step.entry.nbytes
    if not direct:
        return
    if (source := remote_source(container)) is not None:
        return _send_remote(source, direct, sink, placer, loaded)
    require_intact(container, (step.entry for step in direct))
    read, done = source_of(container, can_map=can_map, ahead=ahead)
    rooms = [_room_for(step, placer, loaded) for step in direct]

    def convert(window: tuple[Step, Any, int, int]) -> None:
        step, room, start, stop = window
        size = BITS[step.entry.dtype] // 8
        first, last = step.entry.offset + start * size, step.entry.offset + stop * size
        placer.send(read(first, last), step.entry.dtype, room, start)
        done(first, last)

    windows = [(step, room, *window) for step, room in zip(direct, rooms, strict=True) for window in windows_of(step)]
    try:
        run(convert, windows, initializer=sink.worker)
    finally:
        placer.wait()
    _note_overflows(zip(direct, rooms, strict=True), read, sink, loaded)


def _note_overflows(
    filled: Iterable[tuple[Step, Any]], read: Callable[[int, int], memoryview], sink: Sink, loaded: Loaded
) -> None:
    """Warns of values that became infinite, and counts the bytes; what is suspect is read a second time."""
    for step, value in filled:
        entry = step.entry
        is_suspect = can_overflow(entry.dtype, step.dtype) and sink.count_nonfinite(value, step.dtype) > 0
        if is_suspect and overflows(step, read(entry.offset, entry.offset + entry.nbytes), value, sink):
            loaded.warnings.append(overflow_warning(step))
        loaded.bytes_read += entry.nbytes


def _send_remote(source: ByteSource, steps: Sequence[Step], sink: Sink, placer: Placer, loaded: Loaded) -> None:
    """From ranges of a file elsewhere to the accelerator, as they come."""

    def piece(step: Step, room: Any, start: int, stop: int) -> Piece:
        size = BITS[step.entry.dtype] // 8
        offset, nbytes = step.entry.offset + start * size, (stop - start) * size

        def send(memory: memoryview) -> None:
            placer.send(memory, step.entry.dtype, room, start)

        return Piece(offset, nbytes, lambda: memoryview(bytearray(nbytes)), send)

    def read(first: int, last: int) -> memoryview:
        memory = memoryview(bytearray(last - first))
        source.fetch([Piece(first, last - first, lambda: memory)])
        return memory

    filled = [(step, _room_for(step, placer, loaded)) for step in steps]
    try:
        pieces = [piece(step, room, *window) for step, room in filled for window in windows_of(step)]
        source.fetch(pieces, sink.worker)
    finally:
        placer.wait()
    _note_overflows(filled, read, sink, loaded)


def _room_for(step: Step, placer: Placer, loaded: Loaded) -> Any:
    """An array on the step's device for what it reads: a new one, or the part of the whole that it is."""
    if step.whole is None:
        loaded.values[step.param] = value = placer.empty(step.shape, step.dtype, step.device)
        return value
    if step.param not in loaded.values:
        loaded.values[step.param] = placer.empty(step.whole, step.dtype, step.device)
    return placer.part(loaded.values[step.param], step.start, step.shape)


def _write_out(folder: Path, outgoing: Iterable[Outgoing]) -> dict[str, AtRest]:
    """Writes tensors into the offload folder and maps them.

    The file has no name from then on: nobody can cut it short, and its room is free again when the model goes.
    """
    tensors = list(outgoing)
    draft = folder / f".offload-{secrets.token_hex(8)}.safetensors"
    try:
        os.makedirs(folder, exist_ok=True)
        entries = write(draft, tensors, {}, begin_writeback=False)
        area = map_file(draft, stamp_at(draft), ahead=False)
    except OSError as error:
        if isinstance(error, PretrainedError):  # about what is read
            raise
        raise _refused(folder, error, tensors) from error
    finally:
        with suppress(OSError):
            draft.unlink()
    return {entry.name: AtRest(entry, entry.dtype, area) for entry in entries}


def _refused(folder: Path, error: OSError, tensors: Sequence[Outgoing]) -> OSError:
    reason = f"cannot offload {len(tensors)} tensors to {folder}: {error.strerror or error}"
    if error.errno in _FULL:
        return ResourceLimitError(
            f"{reason}. Free some room or give another offload_folder=", path=folder, reason=reason
        )
    return SaveError(f"{reason}. Give another offload_folder=", path=folder, reason=reason)
