"""What the calls in a pickle of tensors come to: each is written out here, and none is made."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from .flaws import FlawError
from .torch_globals import Global, OrderedDict, PickledStorage, PickledTensor

__all__ = ["call", "kind_of", "set_item", "storage_of"]

MAX_DIMS = 64

_SCALARS = frozenset({str, int, float, bool, type(None)})


def call(function: Global, args: tuple[Any, ...]) -> Any:
    """What a call comes to.

    Raises:
        FlawError: It is none that PyTorch writes for tensors.
    """
    match function.kind, args:
        case "dict", ():
            return OrderedDict()
        case "dict", (list() as pairs,):  # as Python 2 wrote it
            return _ordered(pairs)
        case "tensor", (PickledStorage(dtype=str(dtype)) as storage, offset, shape, strides, *rest) if len(rest) <= 3:
            return _tensor(storage, offset, shape, strides, dtype, rest[2:])
        case "tensor_v3", (
            PickledStorage() as storage, offset, shape, strides, _, _, Global(kind="dtype", dtype=str(dtype)), *rest
        ) if len(rest) <= 1:  # fmt: skip
            return _tensor(storage, offset, shape, strides, dtype, rest)
        case "parameter", (PickledTensor() as tensor, *_):
            return tensor
        case "typed", (Global(kind="tensor" | "tensor_v3") as inner, Global(kind="class"), tuple() as given, *_):
            return call(inner, given)
        case "size", (tuple() as shape,):
            return shape
        case "device", (str() as device, *_):
            return device
    raise FlawError(f"the pickle calls '{function.name}' with arguments that PyTorch never gives it", key=function.name)


def _ordered(pairs: list[Any]) -> OrderedDict:
    made = OrderedDict()
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise FlawError("the pickle makes a dict of something else than pairs")
        set_item(made, *pair)
    return made


def _tensor(storage: PickledStorage, offset: Any, shape: Any, strides: Any, dtype: str, rest: list[Any]) -> Any:
    for values in ((offset,), shape, strides):
        if type(values) is tuple and len(values) > MAX_DIMS:
            raise FlawError(f"the pickle describes a tensor of more than {MAX_DIMS} dimensions", limit=MAX_DIMS)
        if type(values) is not tuple or not all(type(value) is int for value in values):
            raise FlawError("the pickle describes a tensor with something else than whole numbers")
    marks = rest[0] if rest else None
    is_lazy = isinstance(marks, dict) and bool(marks)
    return PickledTensor(storage, offset, shape, strides, dtype, is_lazy)


def set_item(target: dict[Any, Any], key: Any, value: Any) -> None:
    """Sets an item whose key is text or a number, and new."""
    if type(key) not in _SCALARS:
        raise FlawError(f"the pickle has a dict with a key that is no text or number but a {kind_of(key)}")
    if key in target:
        raise FlawError(f"the pickle sets the key {str(key)[:200]!r} twice")
    target[key] = value


def storage_of(known_ones: MutableMapping[str, PickledStorage], token: Any) -> PickledStorage:
    """A storage, by what PyTorch calls it: `("storage", class, key, device, numel)`.

    The stream format adds `None`, or what part of the storage is meant: `(key of the part, first element, number)`.

    Args:
        known_ones: the storages that were mentioned before, by key; this one is added.
        token: what the pickle calls it.

    Raises:
        FlawError: It is no storage, or one that is described in two ways.
    """
    match token:
        case ("storage", Global(kind="storage", dtype=dtype), str(key), str(), numel, *rest) if type(numel) is int:
            known = known_ones.get(key)
            if known is None:
                known = known_ones[key] = PickledStorage(key, dtype, numel)
            elif (known.dtype, known.numel) != (dtype, numel):
                raise FlawError(f"the storage {key[:200]!r} is described in two ways")
            match rest:
                case [] | [None]:
                    return known
                case [(str(), first, count)] if type(first) is type(count) is int:
                    return PickledStorage(key, dtype, numel, (first, count))
    raise FlawError("the pickle refers to something that is not one of PyTorch's storages")


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, Global):
        return value.name
    return {PickledTensor: "tensor", PickledStorage: "storage", OrderedDict: "dict"}.get(
        type(value), type(value).__name__
    )
