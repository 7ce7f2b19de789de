"""A torch model on several devices: what there is of them, the way to them, and hooks for what does not stay."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from .._types import CPU, DISK, Device, Shape
from ..checkpoint.devices import STRATEGIES, Layout, Placement
from ..checkpoint.devices_fill import available_memory
from ..checkpoint.execute import WINDOW, AtRest
from ..checkpoint.tensors import count_elements
from ..errors import InvalidOptionError, MissingFrameworkError
from .offload import OffloadStore, offloading_hooks
from .slots import Slot, bytes_of, dtype_name, parameter_like, torch_dtype

__all__ = ["TorchPlacer", "running_device"]

Groups = Mapping[str, list[tuple[str, Slot]]]

_ACTIVATIONS = 0.1  # share of a device's free memory that is left for what a forward pass computes
# Layers that use the tensors of layers inside them without calling those.
_WHOLE = (nn.MultiheadAttention,)


class TorchPlacer:
    """The torch side of one placement.

    Args:
        groups: every place of each parameter, the parameter's own first.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._local = threading.local()
        self._streams: list[Any] = []

    # Before anything is read

    def layout(self, model: nn.Module) -> Layout:
        """The modules of the model, and its buffers."""
        modules = {name: type(inner).__name__ for name, inner in model.named_modules(remove_duplicate=False)}
        transient = {name: slot.tensor.nbytes for name, slot in _transient(model)}
        buffers = frozenset(name for name, group in self._groups.items() if group[0][1].is_buffer)
        no_split = {kind for inner in model.modules() for kind in getattr(type(inner), "_no_split_modules", None) or ()}
        return Layout(modules, buffers, transient, frozenset(no_split))

    def memory(self) -> dict[Device, int]:
        """Free bytes of each accelerator, less a share for what is computed there, and of main memory."""
        free: dict[Device, int] = {}
        for kind in (torch.cuda, torch.xpu):
            if kind.is_available() and not free:
                free = {i: kind.mem_get_info(i)[0] for i in range(kind.device_count())}
        if not free and torch.backends.mps.is_available():
            free["mps"] = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        limits: dict[Device, int] = {device: int(size * (1 - _ACTIVATIONS)) for device, size in free.items()}
        return {**limits, CPU: available_memory()}

    def check(self, placement: Placement) -> None:
        """Raises an error if there is no such device, or nothing that could move tensors while the model runs.

        Raises:
            InvalidOptionError: no such device here.
            MissingFrameworkError: accelerate is needed and not installed.
        """
        for device in {*placement.devices.values(), *placement.shown.values(), placement.main} - {DISK}:
            _check_device(device)
        if placement.is_spread and find_spec("accelerate") is None:
            raise MissingFrameworkError(
                f"device_map spreads the model over {', '.join(map(str, dict.fromkeys(placement.devices.values())))}, "
                "which needs accelerate: pip install 'pretrained[big]'. One device needs nothing",
                key="device_map",
            )

    # The way to the devices

    def empty(self, shape: Shape, dtype: str, device: Device) -> Tensor:
        """A tensor on a device, not yet filled."""
        return torch.empty(shape, dtype=torch_dtype(dtype), device=device)

    def part(self, array: Tensor, start: int, shape: Shape) -> Tensor:
        """A view of a run of a contiguous tensor's elements, under a shape of its own."""
        return array.view(-1)[start : start + count_elements(shape)].view(shape)

    def send(self, source: Any, source_dtype: str, target: Tensor, start: int) -> None:
        """Fills `target` from its element `start` on with the flat buffer `source`."""
        raw, dtype = torch.frombuffer(source, dtype=torch.uint8), torch_dtype(source_dtype)
        part = target.view(-1)[start : start + raw.numel() // dtype.itemsize]
        if target.device.type == "cuda":
            self._lane_to(target.device).carry(raw, dtype, part)
        else:
            part.copy_(raw.clone().view(dtype))  # the bytes may lie unaligned

    def _lane_to(self, device: torch.device) -> _Lane:
        """This thread's way to the device."""
        lanes: dict[torch.device, _Lane] = self._local.__dict__.setdefault("lanes", {})
        if device not in lanes:
            lanes[device] = _Lane(device)
            self._streams.append(lanes[device].stream)
        return lanes[device]

    def wait(self) -> None:
        """Returns when everything that was sent is there."""
        for stream in self._streams:
            stream.synchronize()

    def move(self, array: Tensor, device: Device) -> Tensor:
        """The tensor on another device."""
        return array.to(device)

    def buffer(self, array: Tensor) -> memoryview:
        """The elements of a tensor as a flat buffer."""
        return bytes_of(array)

    def initial(self, name: str) -> tuple[Tensor, str]:
        """(value, dtype) of a parameter that was just initialised."""
        tensor = self._groups[name][0][1].tensor
        return tensor, dtype_name(tensor.dtype)

    # After everything is bound

    def attach(self, model: nn.Module, placement: Placement, resting: Mapping[str, AtRest]) -> None:
        """Moves what is not where it belongs, takes away the memory of what is on disk, and hangs up the hooks."""
        for name, group in self._groups.items():
            if name in resting:
                _describe_only(group, torch_dtype(resting[name].dtype))
            else:
                _move_group(group, torch.device(placement.home_of(name)))
        for name, slot in _transient(model):
            _move_group([(name, slot)], torch.device(placement.runs_on(name.rpartition(".")[0])))
        if placement.is_spread:
            names = {name: own for own, group in self._groups.items() for name, _ in group}
            _hang_hooks(model, placement, OffloadStore(resting, names))
        model.hf_device_map = dict(placement.shown)  # type: ignore[assignment]


class _Lane:
    """One thread's way to a CUDA device: page-locked memory in two halves, of which one is filled while one is sent."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream(device))
        self._halves = [torch.empty(WINDOW, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._sent = [torch.cuda.Event() for _ in range(2)]
        self._turn = 0

    def carry(self, raw: Tensor, dtype: torch.dtype, part: Tensor) -> None:
        """Sends at most a window of bytes; their dtype is changed on the device."""
        self._turn = 1 - self._turn
        self._sent[self._turn].synchronize()
        staged = self._halves[self._turn][: raw.numel()]
        staged.copy_(raw)
        with torch.cuda.stream(self.stream):
            values = staged.view(dtype)
            if dtype != part.dtype:
                values = values.to(part.device, non_blocking=True)
            part.copy_(values, non_blocking=True)
            self._sent[self._turn].record(self.stream)


def _check_device(device: Device) -> None:
    here = torch.accelerator.current_accelerator()
    try:
        kind = torch.device(here.type if here else "cuda", device) if isinstance(device, int) else torch.device(device)
    except RuntimeError:
        raise InvalidOptionError(
            f"device_map: {device!r} is no device; give one such as 'cuda:0', or one of {', '.join(STRATEGIES)}",
            key="device_map",
        ) from None
    if kind.type in (CPU, "meta"):
        return
    module = getattr(torch, kind.type, None)
    count = module.device_count() if module is not None and module.is_available() else 0
    index = device if isinstance(device, int) else kind.index or 0  # torch keeps an index in 8 bits
    if not 0 <= index < count:
        raise InvalidOptionError(
            f"device_map: there is no device {device!r} here; this machine has {count} of the kind {kind.type}",
            key="device_map",
        )


def _transient(model: nn.Module) -> Iterator[tuple[str, Slot]]:
    """Name and place of each buffer that no state dict has."""
    for name, inner in model.named_modules():
        for key, buffer in inner._buffers.items():
            if buffer is not None and key in inner._non_persistent_buffers_set:
                yield (f"{name}.{key}" if name else key), Slot(inner, key, True)


def _describe_only(group: list[tuple[str, Slot]], dtype: torch.dtype) -> None:
    """A tensor without memory in every place of a parameter."""
    old = group[0][1].tensor
    if old.is_meta and old.dtype == dtype:
        return
    value = torch.empty(old.shape, dtype=dtype, device="meta")
    new = parameter_like(old, value) if isinstance(old, nn.Parameter) else value
    for _, slot in group:
        slot.put(new)


def _move_group(group: list[tuple[str, Slot]], device: torch.device) -> None:
    """A parameter stays the object it is; a buffer is replaced in all its places."""
    old = group[0][1].tensor
    if _is_at(old, device):
        return
    if isinstance(old, nn.Parameter):
        with torch.no_grad():
            old.data = old.data.to(device)
        return
    new = old.to(device)
    for _, slot in group:
        slot.put(new)


def _is_at(tensor: Tensor, device: torch.device) -> bool:
    """Whether a tensor is on the device; one without a number is the present one of its kind."""
    return tensor.device.type == device.type and (device.index is None or tensor.device.index == device.index)


def _hang_hooks(model: nn.Module, placement: Placement, store: OffloadStore) -> None:
    """A hook on the model, on every module with tensors to bring, and with accelerators wherever inputs may come in."""
    from .offload_hooks import OffloadHook, add_hook

    has_runners = any(device not in (CPU, DISK) for device in placement.devices.values()) or placement.main != CPU
    entrances, within = set(placement.blocks) if has_runners else set(), set()
    for name, inner in list(model.named_modules()):
        if id(inner) in within:
            continue
        is_whole = isinstance(inner, _WHOLE)
        within |= {id(part) for part in inner.modules()} if is_whole else {id(inner)}
        device = torch.device(placement.runs_on(name))
        places = list(_places(inner, name, recurse=is_whole))
        moved = [(n, slot) for n, slot in places if slot.tensor.is_meta or not _is_at(slot.tensor, device)]
        if moved or name == "" or name in entrances or (has_runners and places):
            hook = OffloadHook(
                device,
                moved,
                store,
                prefix=f"{name}." if name else "",
                io_same_device=name == "",
                skip_keys=getattr(type(model), "_skip_keys_device_placement", None),
                offload_buffers=placement.offload_buffers,
            )
            add_hook(inner, hook)
    for method in ("to", "cuda"):
        model.__dict__[method] = functools.partial(_move_if_whole, model, method)


def _places(module: nn.Module, name: str, *, recurse: bool) -> Iterator[tuple[str, Slot]]:
    """Name and place of each tensor of a module."""
    for inner_name, inner in module.named_modules(prefix=name) if recurse else [(name, module)]:
        head = f"{inner_name}." if inner_name else ""
        for tensors, is_buffer in ((inner._parameters, False), (inner._buffers, True)):
            for key, tensor in tensors.items():
                if tensor is not None:
                    yield head + key, Slot(inner, key, is_buffer)


def _move_if_whole(model: nn.Module, method: str, *args: Any, **kwargs: Any) -> nn.Module:
    """What `to` and `cuda` of a placed model do: dtypes change, devices only where nothing is offloaded.

    Raises:
        RuntimeError: a part of the model is offloaded.
    """
    moves = method == "cuda" or torch._C._nn._parse_to(*args, **kwargs)[0] is not None
    if moves and any(hook.moved for inner in model.modules() for hook in offloading_hooks(inner)):
        raise RuntimeError(
            "a model with offloaded modules cannot be moved: load it with another device_map, or take its hooks off "
            "(accelerate.hooks.remove_hook_from_submodules)"
        )
    result: nn.Module = getattr(type(model), method)(model, *args, **kwargs)
    return result


def running_device(model: Any) -> torch.device | None:
    """Where a placed model takes its inputs; None for any other."""
    hook = next(iter(offloading_hooks(model)), None)
    return None if hook is None else torch.device(hook.execution_device)
