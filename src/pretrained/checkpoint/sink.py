"""What carrying out a plan needs of a framework, and what comes of it."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .dtypes import can_overflow
from .plan_load import Step
from .tensors import Entry

__all__ = ["AtRest", "Loaded", "Sink", "overflow_warning", "overflows"]


class Sink(Protocol):
    """What execute needs of a framework: making its arrays out of bytes.

    `alignment` is the number of bytes at whose multiples an array must begin to be used where it lies.
    """

    alignment: int

    def view(self, buffer: Any, offset: int, dtype: str, shape: tuple[int, ...]) -> Any:
        """An array on the memory of `buffer`, which it keeps alive; no copy."""

    def cast(self, source: Any, source_dtype: str, target: Any, target_dtype: str) -> None:
        """Converts the elements of the flat buffer `source` into the flat buffer `target`."""

    def count_nonfinite(self, values: Any, dtype: str) -> int:
        """How many elements of an array or flat buffer are infinite or NaN; quick where there are none."""

    def from_array(self, array: Any, dtype: str) -> Any:
        """An array of the framework, contiguous and of memory of its own, from numpy's or the framework's own."""

    def fill(self, target: Any, array: Any) -> None:
        """Writes the elements of an array, numpy's or the framework's own, into one that `view` made; casts them."""

    def worker(self) -> None:
        """Called once in each thread that will call `cast`."""


class AtRest(NamedTuple):
    """A tensor that is read while it is used: its place in a mapped file, and the dtype it is wanted in."""

    entry: Entry
    dtype: str
    area: mmap.mmap


@dataclass
class Loaded:
    """Arrays by parameter name, and what it took to get them; `resting` are those that stay on disk.

    `wholes` is the memory of parameters that are read part by part.
    """

    values: dict[str, Any] = field(default_factory=dict)
    wholes: dict[str, memoryview] = field(default_factory=dict)
    resting: dict[str, AtRest] = field(default_factory=dict)
    bytes_mapped: int = 0
    bytes_read: int = 0
    warnings: list[str] = field(default_factory=list)


def overflows(step: Step, source: Any, target: Any, sink: Sink) -> bool:
    """Whether a value that was finite is not any more. The source is only looked at when the result is suspect."""
    if not can_overflow(step.entry.dtype, step.dtype):
        return False
    lost = sink.count_nonfinite(target, step.dtype)
    return lost > 0 and lost > sink.count_nonfinite(source, step.entry.dtype)


def overflow_warning(step: Step) -> str:
    """What to say of a tensor that `overflows`."""
    return f"{step.entry.name} has values beyond {step.dtype}: they became infinite"
