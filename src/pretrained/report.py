"""What a load or a save did, as data; `render` makes the table people read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._types import Shape
from .errors import printable

__all__ = ["Keys", "LoadReport", "SaveReport", "human_bytes"]


class Keys(list):  # type: ignore[type-arg]
    """Names, sorted; equal to any list, tuple or set of the same names, whatever its order."""

    def __init__(self, names: Iterable[Any] = ()) -> None:
        super().__init__(sorted(names))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple, set, frozenset)):
            return NotImplemented
        try:
            return len(self) == len(other) and sorted(self) == sorted(other)
        except TypeError:  # names beside triples have no order; they are not equal either
            return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __sub__(self, other: Iterable[Any]) -> Keys:
        taken = set(other)
        return Keys(name for name in self if name not in taken)


@dataclass
class LoadReport(Mapping[str, Any]):
    """What a load found and did.

    Attributes:
        missing_keys: parameters of the model that the checkpoint lacks; they were initialised.
        unexpected_keys: tensors of the checkpoint that the model has no place for; they were not read.
        mismatched_keys: (name, shape in the checkpoint, shape in the model); they were initialised.
        conflicts: sentences about tensors that contradict each other, or changed meaning on the way in.
        error_msgs: always empty: what is an error was raised.
        bytes_read: bytes that were copied out of files.
        bytes_mapped: bytes that are used where they lie in the file.
        seconds: seconds each stage took.
        source: what was loaded.
        model: the class it became.
        dtype: what its floating parameters have, unless told apart.
    """

    missing_keys: Keys = field(default_factory=Keys)
    unexpected_keys: Keys = field(default_factory=Keys)
    mismatched_keys: Keys = field(default_factory=Keys)
    conflicts: list[str] = field(default_factory=list)
    error_msgs: list[str] = field(default_factory=list)
    num_loaded: int = 0
    bytes_read: int = 0
    bytes_mapped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    source: str = ""
    model: str = ""
    dtype: str = ""

    def __getitem__(self, key: str) -> Any:
        if key not in self.__dataclass_fields__:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)

    @property
    def is_clean(self) -> bool:
        """Whether every parameter came from the checkpoint and every tensor of it was used."""
        return not (self.missing_keys or self.unexpected_keys or self.mismatched_keys or self.conflicts)

    def render(self, max_rows: int = 20) -> str:
        """The report as text: a line of totals, then a table of what was not as expected."""
        lines = [self.summary()]
        lines += _rows("missing (newly initialised; train before use)", self.missing_keys, max_rows)
        lines += _rows("unexpected (not used)", self.unexpected_keys, max_rows)
        shapes = [
            f"{name}: checkpoint {_dims(found)}, model {_dims(wanted)}" for name, found, wanted in self.mismatched_keys
        ]
        lines += _rows("of another shape (newly initialised)", shapes, max_rows)
        lines += _rows("to look at", self.conflicts, max_rows)
        return "\n".join(lines)

    def summary(self) -> str:
        """One line: how many tensors, how many bytes, how long."""
        total = sum(self.seconds.values())
        return (
            f"{self.model} from {printable(self.source, 300)}: {self.num_loaded} tensors, "
            f"{human_bytes(self.bytes_mapped)} mapped, {human_bytes(self.bytes_read)} read, {total * 1000:.1f} ms"
        )


@dataclass
class SaveReport:
    """What a save wrote.

    Attributes:
        files: name → bytes of every file written.
        removed: names of stale files that were dropped.
        tied: alias → name under which its tensor was written.
        total_size: bytes of all tensors.
    """

    files: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    total_size: int = 0


def _dims(shape: Shape) -> str:
    return "×".join(str(dim) for dim in shape) or "scalar"


def _rows(title: str, names: Iterable[Any], max_rows: int) -> list[str]:
    rows = [printable(name, 300) for name in names]
    if not rows:
        return []
    shown = [f"    {row}" for row in rows[:max_rows]]
    more = [f"    … and {len(rows) - max_rows} more"] if len(rows) > max_rows else []
    return [f"  {len(rows)} {title}:", *shown, *more]


def human_bytes(count: int) -> str:
    """A number of bytes in the unit people use: 90.9 MB."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
