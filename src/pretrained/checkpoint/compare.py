"""Two checkpoints held against each other, tensor by tensor, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from .._types import Shape
from ..errors import InvalidOptionError
from .find import Weights
from .rules import Op, shape_after
from .tensors import Entry, count_elements
from .windows import windows

__all__ = ["Kind", "TensorDiff", "compare", "compare_configs", "pair"]

PER_WINDOW = 1 << 18  # elements; those that differ are widened to float64 and held several times over

Kind = Literal["equal", "close", "values", "dtype", "shape", "only_a", "only_b"]

# Notes of the writer, not properties of the model.
_VOLATILE = frozenset({"transformers_version", "_name_or_path"})


@dataclass(frozen=True)
class TensorDiff:
    """What became of one name.

    Attributes:
        name: the name both sides share, less the ignored prefix.
        kind: "equal" to the last bit; "close": within the tolerance; "values" differ; another "dtype" or "shape";
            "only_a", "only_b".
        a: the tensor of the first checkpoint, b: of the second; None where there is none.
        num_elements: elements compared; 0 if none were.
        num_different: elements whose bits differ; between dtypes, whose values do.
        num_beyond: those of them that the tolerance does not cover.
        max_abs: largest difference of two finite elements. max_rel: the same, divided by the larger of the two.
        num_nonfinite: differing elements of which one is NaN or infinite; they are in neither maximum.
    """

    name: str
    kind: Kind
    a: Entry | None = None
    b: Entry | None = None
    num_elements: int = 0
    num_different: int = 0
    num_beyond: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    num_nonfinite: int = 0

    @property
    def is_difference(self) -> bool:
        """Whether the checkpoints count as different because of this."""
        return self.kind not in ("equal", "close")


def pair(a: Weights, b: Weights, ignore_prefix: str = "") -> dict[str, tuple[Entry | None, Entry | None]]:
    """Name → the tensor of each side, in the order of the first and then of the second.

    Args:
        a: the first checkpoint.
        b: the second.
        ignore_prefix: taken away from every name that begins with it, on both sides: "bert" for base against head.

    Raises:
        InvalidOptionError: without the prefix, two tensors of one checkpoint have the same name.
    """
    first, second = _without_prefix(a, ignore_prefix), _without_prefix(b, ignore_prefix)
    return {name: (first.get(name), second.get(name)) for name in dict.fromkeys(chain(first, second))}


def _without_prefix(weights: Weights, prefix: str) -> Mapping[str, Entry]:
    if not prefix:
        return weights.entries
    head = prefix.rstrip(".") + "."
    table: dict[str, Entry] = {}
    for key, entry in weights.entries.items():
        name = key.removeprefix(head)
        if name in table:
            raise InvalidOptionError(
                f"{entry.file}: without the prefix {head!r:.100}, {key!r:.300} and {table[name].name!r:.300} are one "
                "name; compare without ignoring it",
                key="ignore_prefix",
                tensor=key,
                path=entry.file,
            )
        table[name] = entry
    return table


def compare(
    a: Weights,
    b: Weights,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    ignore_prefix: str = "",
    ignore_dtype: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[TensorDiff]:
    """One result for each name that either side has.

    Equal means equal bits, so a NaN equals the same NaN and 0 is not -0; between dtypes it means equal values. Other
    elements are close if |a - b| ≤ atol + rtol·|b|.

    Args:
        a: the first checkpoint.
        b: the second.
        rtol: tolerance relative to the second.
        atol: absolute tolerance.
        ignore_prefix: see `pair`.
        ignore_dtype: let tensors of two dtypes be equal or close.
        progress: called with the bytes of the first side's tensor after each comparison.

    Raises:
        InvalidOptionError: as `pair`; a tolerance is negative or NaN.
        CheckpointChangedError, WeightsFormatError: as `windows`.
    """
    for key, value in (("rtol", rtol), ("atol", atol)):
        if not value >= 0:
            raise InvalidOptionError(f"{key}={value!r} must be a number from 0 up", key=key)
    first, second = _Side(a), _Side(b)
    for name, (left, right) in pair(a, b, ignore_prefix).items():
        seen = first.seen(left), second.seen(right)
        if left is None or right is None:
            yield TensorDiff(name, "only_a" if right is None else "only_b", *seen)
        elif first.shape(left) != second.shape(right):
            yield TensorDiff(name, "shape", *seen)
        else:
            tally = _Tally(rtol, atol, exact=left.dtype == right.dtype)
            for one, other in _aligned(first, left, second, right):
                tally.add(one, other)
            yield tally.result(name, *seen, ignore_dtype=ignore_dtype)
        if progress is not None and left is not None:
            progress(left.nbytes)


class _Side:
    """The tensors of one checkpoint, in the layout that torch has for them."""

    def __init__(self, weights: Weights) -> None:
        self._containers = weights.containers
        self._ops: dict[Entry, tuple[Op, ...]] = {weights.entries[name]: ops for name, ops in weights.layouts.items()}

    def shape(self, entry: Entry) -> Shape:
        return shape_after(self._ops.get(entry, ()), entry.shape)

    def seen(self, entry: Entry | None) -> Entry | None:
        """The tensor as the result shows it."""
        return None if entry is None else entry._replace(shape=self.shape(entry))

    def windows(self, entry: Entry, nbytes: int) -> Iterator[Any]:
        """As `windows`; a tensor of another layout is read whole."""
        return windows(self._containers[entry.file], entry, nbytes, self._ops.get(entry, ()))


def _aligned(a: _Side, left: Entry, b: _Side, right: Entry) -> Iterator[tuple[Any, Any]]:
    """The same elements of both, window by window; the smaller element sets the pace."""
    count = count_elements(left.shape)
    if count == 0:
        return
    sides = [
        side.windows(entry, max(PER_WINDOW, PER_WINDOW * entry.nbytes // count))
        for side, entry in ((a, left), (b, right))
    ]
    rest: list[Any] = [None, None]
    while True:
        for i, side in enumerate(sides):
            if rest[i] is None:
                rest[i] = next(side, None)
        if rest[0] is None or rest[1] is None:
            return
        size = min(rest[0].size, rest[1].size)
        yield rest[0][:size], rest[1][:size]
        rest = [piece[size:] if piece.size > size else None for piece in rest]


class _Tally:
    """Sums over the windows of one pair of tensors."""

    def __init__(self, rtol: float, atol: float, *, exact: bool) -> None:
        self.rtol, self.atol, self.exact = rtol, atol, exact
        self.num_elements = self.num_different = self.num_beyond = self.num_nonfinite = 0
        self.max_abs = self.max_rel = 0.0

    def add(self, one: Any, other: Any) -> None:
        """Compares two arrays of the same length."""
        import numpy as np

        self.num_elements += one.size
        with np.errstate(all="ignore"):
            differs = _bits(one) != _bits(other) if self.exact else _values_differ(one, other)
            if not differs.any():
                return
            first, second = _wide(one[differs]), _wide(other[differs])
            self.num_different += first.size
            distance, size = np.abs(first - second), np.maximum(np.abs(first), np.abs(second))
            finite = np.isfinite(first) & np.isfinite(second)
            self.num_nonfinite += int(np.count_nonzero(~finite))
            within = finite & (distance <= self.atol + self.rtol * np.abs(second))
            if self.rtol == 0 and self.atol == 0 and self.exact:
                within[:] = False
            self.num_beyond += int(np.count_nonzero(~within))
            if finite.any():
                relative = np.divide(distance, size, out=np.zeros_like(distance), where=size > 0)
                self.max_abs = max(self.max_abs, float(distance[finite].max()))
                self.max_rel = max(self.max_rel, float(relative[finite].max()))

    def result(self, name: str, a: Entry | None, b: Entry | None, *, ignore_dtype: bool) -> TensorDiff:
        """The verdict."""
        if not self.exact and not ignore_dtype:
            kind: Kind = "dtype"
        elif self.num_beyond:
            kind = "values"
        else:
            kind = "close" if self.num_different else "equal"
        return TensorDiff(
            name,
            kind,
            a,
            b,
            self.num_elements,
            self.num_different,
            self.num_beyond,
            self.max_abs,
            self.max_rel,
            self.num_nonfinite,
        )


def _bits(array: Any) -> Any:
    """The elements as unsigned integers, or as rows of them for what is wider than any."""
    if array.dtype.itemsize == 16:
        return array.view("u8").reshape(-1, 2).view([("low", "u8"), ("high", "u8")]).reshape(-1)
    return array.view(f"u{array.dtype.itemsize}")


def _values_differ(one: Any, other: Any) -> Any:
    import numpy as np

    first, second = _wide(one), _wide(other)
    return (first != second) & ~(np.isnan(first) & np.isnan(second))


def _wide(array: Any) -> Any:
    """The values in float64, or complex128."""
    return array.astype("c16" if array.dtype.kind == "c" else "f8")


def compare_configs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Config key → (value of the first, of the second), where they differ; None stands for a key that is not there.

    Keys that only say who wrote the file are left out, and `torch_dtype` is `dtype`.
    """
    first, second = _settled_keys(a), _settled_keys(b)
    return {
        key: (first.get(key), second.get(key))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key) or isinstance(first.get(key), bool) != isinstance(second.get(key), bool)
    }


def _settled_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    values = {key: value for key, value in config.items() if key not in _VOLATILE}
    if "torch_dtype" in values:
        values.setdefault("dtype", values["torch_dtype"])
        del values["torch_dtype"]
    return values
