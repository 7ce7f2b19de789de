"""Values for what no checkpoint gave: first what the layer's constructor gives, then the family's `_init_weights`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .skeleton import build_skeleton
from .slots import Slot

__all__ = ["fill_untouched", "fresh_buffers", "init_all", "initialise", "mark_untouched", "owner_of", "reset"]

logger = logging.getLogger(__name__)

Groups = Mapping[str, list[tuple[str, Slot]]]

# A NaN with a payload that no computation produces: memory that still holds it was never written.
_UNTOUCHED = 0x7FC0DEAD
_FALLBACK_STD = 0.02


def init_all(model: Any) -> None:
    """Runs `_init_weights` on every module of a freshly built model, children first, each module once."""
    with torch.no_grad():
        for module, owner in _post_order(model, model):
            if not module.__dict__.get("_is_hf_initialized", False):
                owner._init_weights(module)
                module.__dict__["_is_hf_initialized"] = True


def _post_order(module: nn.Module, owner: Any) -> Iterable[tuple[nn.Module, Any]]:
    """(module, the nearest module around it that has `_init_weights`), children first."""
    if getattr(module, "_init_weights", None) is not None:
        owner = module
    for child in module._modules.values():
        if child is not None:
            yield from _post_order(child, owner)
    yield module, owner


def owner_of(model: Any, module: nn.Module) -> Any:
    """The nearest module around `module` that has `_init_weights`; `model` if `module` is not in it."""
    return next((owner for found, owner in _post_order(model, model) if found is module), model)


def initialise(
    model: nn.Module, groups: Groups, build: Callable[[], nn.Module] | None, *, is_fresh: bool = True
) -> None:
    """Initial values for the parameters of `groups`: what a freshly built model has.

    In a live model (`is_fresh` False) what is real keeps its value and only what is on the meta device gets one.

    Everything that is to come from the checkpoint must still be on the meta device: writing to that does nothing, so
    `_init_weights` can be called as it is, on whole modules of which only one parameter is missing.
    """
    pending = {name: group for name, group in groups.items() if group[0][1].tensor.is_meta}
    if not pending and not is_fresh:
        return
    # Of tied places only the first becomes real yet: the layer at another would fill it in its own way afterwards.
    for group in pending.values():
        _materialise(group[0][1])
    empty = {id(group[0][1].module) for group in pending.values()}
    owners = {id(group[0][1].module) for group in groups.values()} if is_fresh else empty
    with torch.no_grad():
        for module, owner in _containing(model, owners, None)[1]:
            if id(module) in empty:
                reset(module)
            if owner is not None:
                owner._init_weights(module)
    untouched = {name: group for name, group in pending.items() if _is_untouched(group[0][1].tensor)}
    if untouched:
        _copy_from_fresh(untouched, build)
    for group in pending.values():
        for _, slot in group[1:]:
            slot.put(group[0][1].tensor)


def _materialise(slot: Slot) -> None:
    old = slot.tensor
    memory = torch.empty(old.shape, dtype=old.dtype, device="cpu")
    mark_untouched(memory)
    new: torch.Tensor = memory if slot.is_buffer else nn.Parameter(memory, requires_grad=old.requires_grad)
    new.__dict__.update(old.__dict__)
    slot.put(new)


def mark_untouched(tensor: torch.Tensor) -> None:
    """Fills memory with what no computation produces, so that it can be told later whether it was written."""
    if tensor.dtype == torch.float32:
        tensor.view(torch.int32).fill_(_UNTOUCHED)
    elif tensor.dtype.is_floating_point:
        tensor.fill_(torch.nan)
    else:
        tensor.zero_()


def _is_untouched(tensor: torch.Tensor) -> bool:
    """Whether any element was never written. Integers cannot show it; they were zeroed."""
    if tensor.dtype == torch.float32:
        return bool((tensor.detach().view(torch.int32) == _UNTOUCHED).any())
    return tensor.dtype.is_floating_point and bool(torch.isnan(tensor.detach().float()).any())


def _containing(module: nn.Module, owners: set[int], owner: Any) -> tuple[bool, list[tuple[nn.Module, Any]]]:
    """Modules that have one of `owners` in them, children first, each with its nearest `_init_weights`."""
    if getattr(module, "_init_weights", None) is not None:
        owner = module
    found = id(module) in owners
    path: list[tuple[nn.Module, Any]] = []
    for child in module._modules.values():
        if child is not None:
            has, inner = _containing(child, owners, owner)
            found |= has
            path += inner
    return found, [*path, (module, owner)] if found else []


def reset(module: nn.Module) -> None:
    """What the constructor of a torch layer ends with."""
    found = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if found is not None:
        found()


class _Marked(TorchFunctionMode):
    """Marks memory that torch.empty gives, so that what a constructor never fills can be told from what it does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.empty and isinstance(result, torch.Tensor) and not result.is_meta:
            mark_untouched(result)
        return result


def _copy_from_fresh(groups: Groups, build: Callable[[], nn.Module] | None) -> None:
    """Values that only a constructor knows: a real model is built beside, and its tensors are taken over."""
    fresh: nn.Module | None = None
    if build is not None:
        with _Marked():
            fresh = build()
    for name, group in groups.items():
        source = None if fresh is None else _tensor_at(fresh, [alias for alias, _ in group])
        target = group[0][1].tensor
        with torch.no_grad():
            if source is not None and source.shape == target.shape and not _is_untouched(source):
                target.copy_(source)
            else:
                fill_untouched(name, target)


def fill_untouched(name: str, tensor: torch.Tensor) -> None:
    """Gives what was marked, and then never written, some value, and says so."""
    if not _is_untouched(tensor):
        return
    if tensor.ndim > 1:
        tensor.normal_(std=_FALLBACK_STD)
        logger.warning("%s: nothing initialises it; drawn from a normal with std %g", name, _FALLBACK_STD)
    else:
        tensor.zero_()
        logger.warning("%s: nothing initialises it; set to zero", name)


def _tensor_at(model: nn.Module, names: Iterable[str]) -> torch.Tensor | None:
    for name in names:
        owner, _, key = name.rpartition(".")
        try:
            module = model.get_submodule(owner)
        except AttributeError:
            continue
        if (tensor := module._parameters.get(key, module._buffers.get(key))) is not None:
            return tensor
    return None


def fresh_buffers(model: nn.Module, build: Callable[[], nn.Module] | None) -> list[tuple[Slot, torch.Tensor]]:
    """Values of the buffers that no state dict holds and that are on the meta device: only a constructor has them.

    Raises:
        RuntimeError: there are such buffers and no way to construct the module anew.
    """
    lacking = [
        (name, Slot(module, key, True))
        for name, module in model.named_modules()
        for key, buffer in module._buffers.items()
        if buffer is not None and buffer.is_meta and key in module._non_persistent_buffers_set
    ]
    if not lacking:
        return []
    found: list[tuple[Slot, torch.Tensor]] = []
    fresh = None if build is None else build_skeleton(build)
    for name, slot in lacking:
        path = f"{name}.{slot.key}" if name else slot.key
        value = None if fresh is None else _tensor_at(fresh, [path])
        if value is None or value.is_meta:
            fresh = None if build is None else build()
            value = None if fresh is None else _tensor_at(fresh, [path])
        if value is None:
            raise RuntimeError(f"buffer {path} is on the meta device and in no checkpoint; build the module on the CPU")
        found.append((slot, value.to(dtype=slot.tensor.dtype)))
    return found
