"""The hook that brings a module's tensors before it runs and takes them away after; accelerate calls it.

Import it only where accelerate is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from accelerate.utils import PrefixedDataset, find_device, send_to_device
from torch import Tensor, nn

from .offload import OffloadStore
from .slots import Slot

__all__ = ["OffloadHook", "add_hook"]


class OffloadHook(AlignDevicesHook):
    """Has inputs and tensors of a module on one device while it runs.

    Unlike its parent it puts the very objects back that were there, so that tied tensors stay tied, and leaves what is
    in main memory in main memory.

    Args:
        device: where the module runs.
        moved: (name, place) of what is elsewhere while it does not.
        store: what has no memory in its place.
        prefix: the module's name and a dot.
        io_same_device: whether results go where the inputs came from.
        skip_keys: names of inputs and results that stay where they are.
        offload_buffers: what was asked for, for whoever looks at the hook.
    """

    def __init__(
        self,
        device: torch.device,
        moved: Sequence[tuple[str, Slot]],
        store: OffloadStore,
        *,
        prefix: str = "",
        io_same_device: bool = False,
        skip_keys: Any = None,
        offload_buffers: bool = False,
    ) -> None:
        super().__init__(
            execution_device=device,
            offload=bool(moved),
            io_same_device=io_same_device,
            weights_map=PrefixedDataset(store, prefix),
            offload_buffers=offload_buffers,
            skip_keys=skip_keys,
        )
        self.moved = list(moved)
        self.store = store
        self._parked: dict[str, Tensor] = {}

    def init_hook(self, module: nn.Module) -> nn.Module:
        """Nothing: everything is in its place already."""
        return module

    @torch.compiler.disable
    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Brings the tensors; the inputs on the module's device."""
        device: Any = self.execution_device
        if self.io_same_device:
            self.input_device = find_device([args, kwargs])
        for name, slot in self.moved:
            if name not in self._parked:  # a call that failed may have left it here
                place = slot.tensor
                slot.put(self.store.bring(name, place, torch.device(device)))
                self._parked[name] = place
        return send_to_device(args, device), send_to_device(kwargs, device, skip_keys=self.skip_keys)

    @torch.compiler.disable
    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Takes the tensors away again; the output where it is wanted."""
        for name, slot in self.moved:
            if (place := self._parked.pop(name, None)) is not None:
                slot.put(place)
        if self.io_same_device and self.input_device is not None:
            output = send_to_device(output, self.input_device, skip_keys=self.skip_keys)
        return output

    def detach_hook(self, module: nn.Module) -> nn.Module:
        """Leaves nothing behind without memory: what rested on disk is a view of the file from now on."""
        self.post_forward(module, None)
        for name, slot in self.moved:
            if slot.tensor.is_meta:
                slot.put(self.store.bring(name, slot.tensor, torch.device("cpu")))
        return module


def add_hook(module: nn.Module, hook: OffloadHook) -> None:
    """Puts the hook on the module, beside those that are there."""
    add_hook_to_module(module, hook, append=True)
