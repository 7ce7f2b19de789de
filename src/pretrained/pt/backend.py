"""One load into a torch module: the Backend protocol for torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .._types import Shape
from ..adapters import Adapter
from ..checkpoint.disk import HugePages, allocate
from ..checkpoint.dtypes import DtypePolicy, is_floating
from ..checkpoint.plan_load import ParamSpec
from ..quantization.scheme import Scheme
from .init import fresh_buffers, initialise
from .placement import TorchPlacer
from .quantization import quantizer_for
from .quantization.base import Pending, Quantized, TorchQuantizer
from .skeleton import build_skeleton
from .slots import Slot, bytes_of, collect_slots, dtype_name, parameter_like, specs_of, torch_dtype
from .slots import watches_attributes as _watches
from .tying import tied_names

__all__ = ["TorchBackend"]

Groups = dict[str, list[tuple[str, Slot]]]

_TURNED = 2**22  # bytes of a transposed tensor that are cast at a time


class TorchBackend:
    """The torch side of one load.

    Args:
        build: makes a fresh model of the same kind, where that is known; for what only a constructor can compute.
    """

    alignment = 1  # torch takes elements at multiples of their size

    def __init__(self, build: Callable[[], nn.Module] | None = None) -> None:
        self._build = build
        self._is_fresh = False
        self._groups: Groups = {}
        self._quantizer: TorchQuantizer | None = None
        self._pages = HugePages()
        self._undo: list[tuple[Slot, torch.Tensor, torch.Tensor]] = []  # place, object, content

    # The model

    def skeleton(self, build: Callable[[], Any]) -> Any:
        """The model with its uninitialised parameters on the meta device."""
        self._build = build
        self._is_fresh = True
        model = build_skeleton(build)
        # Once for the whole tree: while this builds, no constructor ties on the way.
        tie_weights = getattr(model, "tie_weights", None)
        if tie_weights is not None:
            tie_weights()
        return model

    def quantizer(self, scheme: Scheme) -> TorchQuantizer:
        """What quantizes the model.

        Raises:
            MissingFrameworkError: the scheme's library is not installed.
        """
        self._quantizer = quantizer_for(scheme)
        return self._quantizer

    def params(self, model: Any) -> Sequence[ParamSpec]:
        """Parameters and persistent buffers of the model, tied ones as one."""
        if not self._groups:
            self._groups = collect_slots(model)
        has_ties = any(len(group) > 1 for group in self._groups.values())
        specs = specs_of(self._groups, tied_names(model) if has_ties else ())
        # The parameter's own name first: that place is the one that is initialised, the others follow it.
        self._groups = {
            spec.name: sorted(group, key=lambda place, own=spec.name: place[0] != own)  # type: ignore[misc]
            for spec, group in zip(specs, self._groups.values(), strict=True)
        }
        return specs

    def initialise(self, model: Any, specs: Sequence[ParamSpec], policy: DtypePolicy) -> None:
        """Gives what the checkpoint lacks the values of a freshly built model, and computes buffers without memory."""
        for slot, value in fresh_buffers(model, self._build):
            self._undo.append((slot, slot.tensor, slot.tensor.data))
            slot.put(value)
        if not specs:
            return
        groups = {spec.name: self._groups[spec.name] for spec in specs}
        self._undo += [(slot, slot.tensor, slot.tensor.data) for group in groups.values() for _, slot in group]
        initialise(model, groups, self._build, is_fresh=self._is_fresh)
        for spec in specs:
            tensor = groups[spec.name][0][1].tensor
            dtype = torch_dtype(policy.dtype_of(spec.name)) if is_floating(spec.dtype) else tensor.dtype
            if tensor.dtype != dtype:
                self._put(spec.name, tensor.detach().to(dtype))

    def undo(self) -> None:
        """Takes back what `initialise` did, after a load that failed."""
        for slot, tensor, content in self._undo:
            if not tensor.is_meta:
                tensor.data = content
            slot.put(tensor)
        self._undo = []

    @property
    def placer(self) -> TorchPlacer:
        """What places this model; asked for after `params`."""
        return TorchPlacer(self._groups)

    def bind(self, model: Any, values: Mapping[str, Any]) -> None:
        """Puts tensors in their places. A parameter that is real stays the same object, so optimizers keep it."""
        if self._quantizer is not None:
            values, quantized = self._quantizer.take(model, values)
            for name in quantized:
                del self._groups[name]
        for name, value in values.items():
            ((_, (module, key, is_buffer)), *others) = group = self._groups[name]
            old = (module._buffers if is_buffer else module._parameters)[key]
            if others or is_buffer or type(old) is not nn.Parameter or not old.is_meta or _watches(module):
                self._put_group(group, value)
            else:  # what nearly all are: a parameter in one place
                module._parameters[key] = parameter_like(old, value)  # type: ignore[assignment]
        if self._quantizer is not None:
            self._quantizer.place(model)

    def _put(self, name: str, value: torch.Tensor) -> None:
        self._put_group(self._groups[name], value)

    def _put_group(self, group: list[tuple[str, Slot]], value: torch.Tensor) -> None:
        old = group[0][1].tensor
        if not old.is_meta:
            _replace_data(old, value)
            return
        new = value if group[0][1].is_buffer else parameter_like(old, value)
        for _, slot in group:
            slot.put(new)

    def finish(self, model: Any, policy: DtypePolicy, renamed: Mapping[str, str]) -> None:
        """Eval mode; names that a save writes again are kept."""
        if renamed:
            model._loaded_names = dict(renamed)
        if self._quantizer is not None:
            self._quantizer.finish(model)
        model.eval()

    def adapter(self, found: Adapter, *, strict: bool) -> Callable[[Any], object]:
        """What puts the adapter on a model. Raises MissingFrameworkError where peft is not installed."""
        from .adapter_files import opened

        return opened(found, strict=strict)

    # Arrays

    def view(self, buffer: Any, offset: int, dtype: str, shape: Shape) -> torch.Tensor:
        """A tensor on the buffer's memory, which it keeps alive."""
        count = 1
        for dim in shape:
            count *= dim
        if count == 0:
            return torch.empty(shape, dtype=torch_dtype(dtype))
        return torch.frombuffer(buffer, dtype=torch_dtype(dtype), count=count, offset=offset).view(shape)

    def cast(self, source: Any, source_dtype: str, target: Any, target_dtype: str) -> None:
        """Converts flat buffers; rounding as torch does it."""
        into = torch.frombuffer(target, dtype=torch_dtype(target_dtype))
        into.copy_(torch.frombuffer(source, dtype=torch_dtype(source_dtype)))

    def count_nonfinite(self, values: Any, dtype: str) -> int:
        """How many elements are infinite or NaN. The extremes tell whether any is, at a fortieth of the cost."""
        if isinstance(values, Quantized):
            return values.num_nonfinite
        if isinstance(values, Pending):
            values = values.array
        if isinstance(values, np.ndarray):
            values = _from_numpy(np.require(values, requirements="C"))
        elif not isinstance(values, torch.Tensor):
            values = torch.frombuffer(values, dtype=torch_dtype(dtype))
        if values.numel() == 0:
            return 0
        if values.element_size() == 1:
            values = values.float()
        if all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(values)):
            return 0
        return values.numel() - int(torch.isfinite(values).sum())

    def from_array(self, array: Any, dtype: str) -> Any:
        """A contiguous CPU tensor: numpy's memory, where it is as it should be, else new; quantized if it is to be."""
        if isinstance(array, Pending):
            full = self.from_array(array.array, dtype)
            return Quantized(array.quantize(full), self.count_nonfinite(full, dtype))
        if isinstance(array, torch.Tensor):
            return _copied(array.detach(), torch_dtype(dtype), self._pages)
        source = _from_numpy(array)
        is_right = source.dtype == torch_dtype(dtype) and source.is_contiguous()
        return source if is_right else _copied(source, torch_dtype(dtype), self._pages)

    def fill(self, target: torch.Tensor, array: Any) -> None:
        """Copies an array into a tensor that is there, by rows where it lies transposed and changes its dtype."""
        source = array.detach() if isinstance(array, torch.Tensor) else _from_numpy(array)
        _copy(source, target)

    def worker(self) -> None:
        """Keeps torch's own threads out of a thread of ours: several teams on few cores only wait for each other."""
        torch.get_num_threads()  # makes torch set this thread up now, not after us
        set_threads = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)
        if set_threads is not None:
            set_threads(1)  # OpenMP keeps this per thread; torch.set_num_threads would reach the whole process

    def describe(self, array: Any) -> tuple[Shape, str] | None:
        """Shape and dtype of a dense tensor or numpy array."""
        if isinstance(array, torch.Tensor):
            has_values = array.layout == torch.strided and not array.is_meta
            return (tuple(array.shape), dtype_name(array.dtype)) if has_values else None
        return (array.shape, array.dtype.name) if isinstance(array, np.ndarray) else None

    def equals(self, array: Any, other: Any) -> bool:
        """Whether two arrays hold the same bits."""
        first, second = self.describe(array), self.describe(other)
        return first == second and bytes_of(array) == bytes_of(other)


def _copied(source: torch.Tensor, dtype: torch.dtype, pages: HugePages) -> torch.Tensor:
    """The same values in new memory, contiguous."""
    if source.numel() == 0:
        return torch.empty(source.shape, dtype=dtype)
    memory = allocate(source.numel() * dtype.itemsize)
    pages.prepare(memory)
    return _copy(source, torch.frombuffer(memory, dtype=dtype).view(source.shape))


def _copy(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`target`, contiguous, with the values of `source`."""
    if source.is_contiguous() or source.dtype == target.dtype:
        return target.copy_(source)
    # torch turns what is transposed by tiles, which is three times as fast, if no cast comes with it; so that is done
    # first, by some rows at a time, in the order in which they lie.
    step = max(1, _TURNED // max(1, target[0].nbytes))
    for start in range(0, len(target), step):
        rows = slice(start, start + step)
        target[rows].copy_(source[rows].to(target.dtype))
    return target


def _from_numpy(array: np.ndarray) -> torch.Tensor:
    name = array.dtype.name
    if not array.flags.writeable:
        array = array.copy()
    if array.dtype.isbuiltin != 2:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    # An ml_dtypes dtype, which torch knows under the same name but not as numpy's.
    same_size = np.uint16 if array.dtype.itemsize == 2 else np.uint8
    if name in ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"):
        return torch.from_numpy(array.astype(np.float32))
    return torch.from_numpy(array.view(same_size)).view(torch_dtype(name))


def _replace_data(old: torch.Tensor, value: torch.Tensor) -> None:
    """New content for a live tensor: on the CPU it takes over the memory, elsewhere the values are copied."""
    with torch.no_grad():
        if old.device.type == "cpu":
            old.data = value
        else:
            old.data = value.to(old.device)
