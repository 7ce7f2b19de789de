"""Tensors of a model that are elsewhere while they are not used: where they rest, and how a save gets at them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._types import Shape
from ..checkpoint.execute import AtRest
from ..checkpoint.fusions import Stack
from ..checkpoint.plan_save import Stored
from ..checkpoint.tensors import BITS, num_bytes
from .slots import dtype_name, parameter_like, torch_dtype

__all__ = ["OffloadStore", "Resting", "offloading_hooks", "state_of"]


class OffloadStore(Mapping[str, Tensor]):
    """Name → tensor for what rests on disk, read from the mapped file at each access.

    Args:
        resting: where each parameter rests.
        names: every name of a tensor → the name it rests under; tied tensors have several.
    """

    def __init__(self, resting: Mapping[str, AtRest], names: Mapping[str, str]) -> None:
        self._resting = dict(resting)
        self._names = {name: own for name, own in names.items() if own in resting}
        self._order = {own: number for number, own in enumerate(self._resting)}
        self._live: weakref.WeakValueDictionary[Any, Tensor] = weakref.WeakValueDictionary()

    def __getitem__(self, name: str) -> Tensor:
        """A view of the file where it has the dtype that is wanted, else a converted copy."""
        entry, dtype, area = self._resting[self._names[name]]
        found = torch_dtype(entry.dtype)
        count = entry.nbytes * 8 // BITS[entry.dtype]
        if count == 0:
            return torch.empty(entry.shape, dtype=torch_dtype(dtype))
        if entry.offset % found.itemsize == 0:
            flat = torch.frombuffer(area, dtype=found, count=count, offset=entry.offset)
        else:  # an old file; what is computed with has to be aligned
            flat = torch.frombuffer(bytearray(area[entry.offset : entry.offset + entry.nbytes]), dtype=found)
        return flat.view(entry.shape).to(torch_dtype(dtype))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __deepcopy__(self, memo: dict[int, Any]) -> OffloadStore:
        return self  # nothing in it ever changes

    def bring(self, name: str, place: Tensor, device: torch.device) -> Tensor:
        """What is to be in a place while its module runs on `device`.

        Tied tensors that run at the same time are one on the device as well.

        Args:
            name: of the place.
            place: what is there while the module does not run: a tensor without memory, or one on another device.
        """
        key = (self._names.get(name) or id(place), device, place.dtype)
        found = self._live.get(key)
        if found is None:
            source = self[name] if place.is_meta else place.detach()
            found = source.to(device=device, dtype=place.dtype, non_blocking=device.type != "cpu")
            self._live[key] = found = parameter_like(place, found) if isinstance(place, nn.Parameter) else found
        return found

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Its shape, without a look at it."""
        return self._resting[self._names[name]].entry.shape

    def address(self, name: str) -> int:
        """A number that no address in memory equals, the same for tied names."""
        return (id(self) << 128) + (self._order[self._names[name]] << 64)


@dataclass(frozen=True)
class Resting:
    """A tensor on its way from its resting place into a file, not yet looked at."""

    store: OffloadStore
    name: str
    dtype: torch.dtype
    part: int | None = None  # of a stack, in the order in which they lie
    stack: Stack | None = None

    @property
    def shape(self) -> Shape:
        """Its shape."""
        whole = self.store.shape_of(self.name)
        return whole if self.stack is None else self.stack.part_shape(whole)

    def load(self) -> Tensor:
        """The tensor."""
        whole = self.store[self.name]
        if self.stack is not None:
            whole = self.stack.split(whole)[self.part or 0]
        return whole.to(self.dtype)

    def split(self, stack: Stack) -> list[Resting]:
        """Its parts, not yet looked at either."""
        return [replace(self, part=part, stack=stack) for part in range(len(stack))]

    @property
    def place(self) -> int:
        """A number that no address in memory equals, the same for tied names; parts lie as they do in their whole."""
        nbytes = num_bytes(self.shape, dtype_name(self.dtype))
        return self.store.address(self.name) + (self.part or 0) * nbytes

    def describe(self, name: str) -> Stored:
        """What a save needs to know of it."""
        dtype = dtype_name(self.dtype)
        return Stored(name, dtype, self.shape, self.place, self.place + num_bytes(self.shape, dtype))


def offloading_hooks(module: nn.Module) -> list[Any]:
    """The hooks on a module that hold moved tensors; other libraries put theirs beside ours."""
    hook = module.__dict__.get("_hf_hook")
    hooks = () if hook is None else getattr(hook, "hooks", (hook,))
    return [one for one in hooks if isinstance(getattr(one, "store", None), OffloadStore)]


def state_of(module: nn.Module) -> dict[str, Any]:
    """The state dict, with a `Resting` for each tensor that is on disk."""
    state: dict[str, Any] = module.state_dict()
    if not any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in state.values()):
        return state
    held: dict[tuple[int, str], tuple[OffloadStore, str]] = {}
    for inner in module.modules():
        for hook in offloading_hooks(inner):
            held |= {(id(slot.module), slot.key): (hook.store, name) for name, slot in hook.moved}
    for prefix, inner in module.named_modules(remove_duplicate=False):
        for key in (*inner._parameters, *inner._buffers):
            name, place = f"{prefix}.{key}" if prefix else key, held.get((id(inner), key))
            tensor = state.get(name)
            if place is not None and tensor is not None and tensor.is_meta:
                state[name] = Resting(*place, tensor.dtype)
    return state
