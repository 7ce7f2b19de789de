"""Arrays of numpy as what a load makes of bytes: for every framework whose own arrays can be made of these."""

from __future__ import annotations

from typing import Any

from .._types import Shape
from .disk import HugePages, allocate
from .tensors import BITS, count_elements, num_bytes
from .windows import numpy_dtype

__all__ = ["ALIGNMENT", "ArraySink", "bytes_of", "describe"]

ALIGNMENT = 64  # bytes: XLA and TensorFlow use an array where it lies if it begins at a multiple of these


class ArraySink:
    """The Sink protocol of `execute` with numpy's arrays, and ml_dtypes' for what numpy lacks."""

    alignment = ALIGNMENT

    def __init__(self) -> None:
        self._pages = HugePages()

    def view(self, buffer: Any, offset: int, dtype: str, shape: Shape) -> Any:
        """An array on the buffer's memory, which it keeps alive."""
        import numpy as np

        return np.frombuffer(buffer, numpy_dtype(dtype), count_elements(shape), offset).reshape(shape)

    def cast(self, source: Any, source_dtype: str, target: Any, target_dtype: str) -> None:
        """Converts flat buffers, rounded to the nearest, ties to even; 64 bits go to 16 in two steps, as in torch."""
        import numpy as np

        values = np.frombuffer(source, numpy_dtype(source_dtype))
        _convert(values, np.frombuffer(target, numpy_dtype(target_dtype)))

    def count_nonfinite(self, values: Any, dtype: str) -> int:
        """How many elements of an array or flat buffer are infinite or NaN."""
        import numpy as np

        array = values if isinstance(values, np.ndarray) else np.frombuffer(values, numpy_dtype(dtype))
        with np.errstate(all="ignore"):
            return int(array.size - np.count_nonzero(np.isfinite(array)))

    def from_array(self, array: Any, dtype: str) -> Any:
        """A contiguous array of memory of its own."""
        import numpy as np

        source, wanted = np.asarray(array), numpy_dtype(dtype)
        memory = allocate(num_bytes(source.shape, dtype))
        self._pages.prepare(memory)
        target = np.frombuffer(memory, wanted).reshape(source.shape)
        if source.ndim == 2 and not source.flags.c_contiguous:
            _turn(source, target)
        else:
            _convert(source, target)
        return target

    def fill(self, target: Any, array: Any) -> None:
        """Copies an array into one that is there."""
        import numpy as np

        _convert(np.asarray(array), target)

    def worker(self) -> None:
        """Nothing: numpy has no threads that ours would wait for."""

    def describe(self, array: Any) -> tuple[Shape, str] | None:
        """Shape and dtype of an array of numpy; None if it is none, or one of objects."""
        return describe(array)

    def equals(self, array: Any, other: Any) -> bool:
        """Whether two arrays hold the same bits."""
        return self.describe(array) == self.describe(other) and bytes_of(array) == bytes_of(other)


_TILE = 256  # rows and columns that are turned at a time: what is read and what is written fit the cache together


def _turn(source: Any, target: Any) -> None:
    """Copies a transposed matrix tile by tile, several times as fast as row by row."""
    rows, columns = source.shape
    for row in range(0, rows, _TILE):
        for column in range(0, columns, _TILE):
            part = slice(row, row + _TILE), slice(column, column + _TILE)
            _convert(source[part], target[part])


def _convert(source: Any, target: Any) -> None:
    import numpy as np

    with np.errstate(all="ignore"):
        if source.dtype.itemsize == 8 and target.dtype.itemsize < 4 and source.dtype.kind == "f":
            source = source.astype(np.float32)
        np.copyto(target, source, casting="unsafe")


def describe(array: Any) -> tuple[Shape, str] | None:
    """(shape, dtype name) of an array of numpy that a checkpoint can hold; None for anything else."""
    import numpy as np

    if not isinstance(array, np.ndarray) or array.dtype.name not in BITS:
        return None
    return tuple(array.shape), array.dtype.name


def bytes_of(array: Any) -> memoryview:
    """The elements as a flat buffer; a view of the array's memory where that is contiguous."""
    import numpy as np

    flat: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return flat
