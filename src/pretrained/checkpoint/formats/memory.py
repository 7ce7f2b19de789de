"""Tensors that are in memory already: a state dict, as a container like any file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..._types import Shape
from ...errors import TensorError
from ..tensors import BITS, Entry, num_bytes

__all__ = ["MEMORY", "StateDict"]

MEMORY = Path("<state_dict>")  # stands where other containers have a file


@dataclass
class StateDict:
    """A mapping of names to arrays as a Container.

    Args:
        arrays: the tensors.
        describe: (shape, dtype name) of one array, or None if it is no array. The framework's backend knows.

    Raises:
        TensorError: something in the mapping is no array.
    """

    arrays: Mapping[str, Any]
    describe: Callable[[Any], tuple[Shape, str] | None]
    entries: Mapping[str, Entry] = field(init=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    path: Path = MEMORY
    stamp: None = None

    def __post_init__(self) -> None:
        self.entries = {name: self._entry(name, array) for name, array in self.arrays.items()}

    def _entry(self, name: str, array: Any) -> Entry:
        described = self.describe(array)
        if not isinstance(name, str) or described is None:
            raise TensorError(
                f"state_dict[{name!r}] is a {type(array).__name__}, not a tensor with values in memory",
                tensor=str(name),
            )
        shape, dtype = described
        if dtype not in BITS:
            raise TensorError(f"state_dict[{name!r}] has the dtype {dtype}, which no tensor can have", tensor=name)
        return Entry(name, dtype, shape, MEMORY, -1, num_bytes(shape, dtype))

    def read(self, entry: Entry) -> Any:
        """The array; numpy's as a copy, so that nobody shares the caller's memory. A backend copies its framework's."""
        array = self.arrays[entry.name]
        copy = getattr(array, "copy", None)
        return array if copy is None else copy()
