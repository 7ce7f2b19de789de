"""Filling devices with pieces of a model, and how much memory there is for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from .._types import CPU, DISK, Device

__all__ = ["available_memory", "balance", "fill"]


def fill(sizes: Sequence[int], room: Mapping[Device, int], runners: Sequence[Device]) -> list[Device]:
    """A device for each size, in order: the runners one after the other, then the CPU, then the disk.

    Activations so cross from one runner to the next and never back. What fits on none goes to the CPU or the disk,
    and the runners go on filling with what follows.
    """
    left = dict(room)
    at = 0
    found: list[Device] = []
    for size in sizes:
        place = next((i for i in range(at, len(runners)) if size <= left[runners[i]]), None)
        if place is None:
            device: Device = CPU if size <= left.get(CPU, -1) else DISK
        else:
            at, device = place, runners[place]
        if device in left:
            left[device] -= size
        found.append(device)
    return found


def balance(
    strategy: str, sizes: Sequence[int], limits: Mapping[Device, int], runners: Sequence[Device]
) -> dict[Device, int]:
    """The limits, lowered to the least with which the runners still hold everything; as they are if they cannot."""
    room = dict(limits)
    if strategy == "sequential" or len(runners) < 2:
        return room

    def lower(names: Sequence[Device]) -> None:
        def holds(cap: int) -> bool:
            trial = {**room, **{name: min(cap, room[name]) for name in names}}
            return set(fill(sizes, trial, runners)) <= set(runners)

        cap = _least(holds, max(room[name] for name in names))
        room.update({name: min(cap, room[name]) for name in names if cap is not None})

    if strategy == "balanced_low_0":
        lower(runners[:1])
        lower(runners[1:])
    else:
        lower(runners)
    return room


def _least(holds: Callable[[int], bool], high: int) -> int | None:
    """The least number up to `high` that `holds`; with one, every greater one does."""
    if not holds(high):
        return None
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def available_memory() -> int:
    """Bytes of main memory that can be had without swapping, within the limit of the control group if there is one."""
    free = _meminfo("MemAvailable")
    if free is None:
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        except (ValueError, OSError, AttributeError):
            free = 4 * 2**30
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _meminfo(key: str) -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(key + ":")), None)
    except OSError:
        return None


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(32).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
