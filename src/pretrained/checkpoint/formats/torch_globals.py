"""The closed table of what a pickle of tensors may name, and the inert values those names stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GLOBALS", "Global", "OrderedDict", "PickledStorage", "PickledTensor"]

# The classes of typed storages, which stand for a dtype.
STORAGES: Mapping[str, str] = {
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
DTYPES: Mapping[str, str] = {
    **{name: name for name in STORAGES.values()},
    **{name: name for name in ("uint16", "uint32", "uint64")},
    **{name: name for name in ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")},
    # PyTorch's own other names of the same.
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "cfloat": "complex64",
    "cdouble": "complex128",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}


@dataclass(frozen=True, eq=False, slots=True)
class PickledStorage:
    """A stretch of memory, kept under `key`: in an archive the record `data/<key>`.

    Attributes:
        dtype: `None` when it counts bytes.
        numel: elements of the whole stretch.
        part: first element and number of elements, where this is a view of the stretch as old files have them.
    """

    key: str
    dtype: str | None
    numel: int
    part: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class PickledTensor:
    """A view of a storage as the pickle tells it: types are checked, ranges are not. Offset and strides in elements."""

    storage: PickledStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    is_lazy: bool  # conjugated or negated by a flag instead of in memory


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """What a global of the closed table stands for: `kind` says which use is allowed."""

    name: str
    kind: str
    dtype: str | None = None


class OrderedDict(dict[Any, Any]):
    """A dict that came from `collections.OrderedDict`, the only kind that may carry attributes."""

    __slots__ = ()


def _tabulate() -> dict[tuple[str, str], Global]:
    table = {
        ("collections", "OrderedDict"): "dict",
        ("torch._utils", "_rebuild_tensor"): "tensor",
        ("torch._utils", "_rebuild_tensor_v2"): "tensor",
        ("torch._utils", "_rebuild_tensor_v3"): "tensor_v3",
        ("torch._utils", "_rebuild_parameter"): "parameter",
        ("torch._utils", "_rebuild_parameter_with_state"): "parameter",
        ("torch._tensor", "_rebuild_from_type_v2"): "typed",
        ("torch", "Tensor"): "class",
        ("torch.nn.parameter", "Parameter"): "class",
        ("torch.nn.parameter", "Buffer"): "class",
        ("torch", "Size"): "size",
        ("torch", "device"): "device",
    }
    found = {names: Global(".".join(names), kind) for names, kind in table.items()}
    for module, name in (("torch.storage", "UntypedStorage"), ("torch", "UntypedStorage")):
        found[module, name] = Global(f"{module}.{name}", "storage")
    for name, dtype in STORAGES.items():
        # What was on a GPU when an old release saved it is called after that.
        for module in ("torch", "torch.cuda"):
            kind = name.replace("Storage", "Tensor")
            found[module, name] = Global(f"{module}.{name}", "storage", dtype)
            found[module, kind] = Global(f"{module}.{kind}", "class")
    for name, dtype in DTYPES.items():
        found["torch", name] = Global(f"torch.{name}", "dtype", dtype)
    return found


GLOBALS = _tabulate()
