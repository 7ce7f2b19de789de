"""Which part of a model goes to which device: arithmetic on names and bytes, done before anything is read.

A device is what the caller calls it: 0 or "cuda:0", "cpu", "mps", and "disk" for what is only read while it is used.
What lies on the CPU beside an accelerator, or on disk, is offloaded: it runs on the main device, module by module.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from .._types import CPU, DISK, Device
from ..errors import InvalidOptionError
from ..options import PlacementOptions
from .devices_fill import balance, fill
from .dtypes import DtypePolicy, is_floating
from .plan_load import ParamSpec
from .tensors import num_bytes

__all__ = ["STRATEGIES", "Layout", "Placement", "device_from", "plan_placement"]

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")

_DEVICE = re.compile(r"[a-z]+(:\d{1,4})?")
_MAX_SHOWN = 8  # complaints in one message


class Layout(NamedTuple):
    """What a placement has to know of a model beside its parameters.

    Attributes:
        modules: name → class name of every module, parents first, the model itself under "".
        buffers: those parameters of the plan that are buffers.
        transient: bytes of the buffers that no checkpoint holds.
        no_split: classes whose modules stay on one device.
    """

    modules: Mapping[str, str]
    buffers: frozenset[str] = frozenset()
    transient: Mapping[str, int] = {}
    no_split: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Placement:
    """Where everything goes.

    Attributes:
        devices: module → device; the names do not overlap, and every tensor is below one of them. A tensor that a
            module holds beside modules that go elsewhere is named itself.
        main: where offloaded parts run, and where results are.
        shown: the same as the caller sees it: what was given, or `devices`.
        blocks: modules that stay whole; whatever enters one has to be on its device.
    """

    devices: Mapping[str, Device]
    main: Device
    shown: Mapping[str, Device]
    blocks: Sequence[str] = ()
    offload_buffers: bool = False
    offload_folder: Any = None
    buffers: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_spread(self) -> bool:
        """Whether tensors have to be moved while the model runs."""
        return len(set(self.devices.values())) > 1 or DISK in self.devices.values()

    def device_of(self, name: str) -> Device:
        """Where a module or tensor is while it does not run. Raises KeyError for a module that lies on several."""
        return _nearest(self.devices, name)

    def runs_on(self, name: str) -> Device:
        """Where a module runs."""
        try:
            device = self.device_of(name)
        except KeyError:
            return self.main
        return self.main if self.is_offloaded(device) else device

    def is_offloaded(self, device: Device) -> bool:
        """Whether what lies on this device runs on another."""
        return device == DISK or (device == CPU and self.main != CPU)

    def stamp(self, specs: Sequence[ParamSpec]) -> list[ParamSpec]:
        """The parameters with their devices. Buffers of what is offloaded stay where it runs, unless told otherwise."""
        return [spec._replace(device=self.home_of(spec.name)) for spec in specs]

    def home_of(self, name: str) -> Device:
        """Where the parameter or persistent buffer of this name lies while it does not run."""
        device = self.device_of(name)
        stays = name in self.buffers and not self.offload_buffers and self.is_offloaded(device)
        return self.main if stays else device


def _nearest(devices: Mapping[str, Device], name: str) -> Device:
    """The device of the longest name in `devices` that `name` lies below."""
    while name not in devices:
        if not name:
            raise KeyError(name)
        name = name.rpartition(".")[0]
    return devices[name]


def device_from(value: Any, key: str = "device_map") -> Device:
    """A device as a number or a name: 0, "cuda:0", "cpu", "disk"; torch's own device objects too.

    Raises:
        InvalidOptionError: nothing of the kind.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = "" if isinstance(value, (int, float, bytes)) or value is None else str(value)
    if not _DEVICE.fullmatch(text):
        raise InvalidOptionError(
            f"{key}: {value!r:.60} is no device; give a number, 'cuda:0', 'cpu' or 'disk'", key=key
        )
    return text


def plan_placement(
    options: PlacementOptions,
    layout: Layout,
    specs: Sequence[ParamSpec],
    policy: DtypePolicy,
    memory: Callable[[], Mapping[Device, int]],
) -> Placement:
    """Where each part of a model goes.

    Args:
        options: what was asked; `device_map` is not None.
        layout: the modules. specs: parameters, tied ones as one.
        policy: the dtypes the parameters will have, which say how large they are.
        memory: bytes that are free on each device; asked only when a strategy has to decide and nobody said.

    Raises:
        InvalidOptionError: names no module has, tensors without a device, no device at all, too little room.
    """
    tree = _Tree(layout, specs, policy)
    given = options.device_map
    blocks: list[_Block] = []
    if isinstance(given, str) and given in STRATEGIES:
        limits = _limits(memory() if options.max_memory is None else options.max_memory)
        runners = [device for device in limits if device not in (CPU, DISK)]
        blocks = list(_blocks(tree, layout.no_split, has_one_runner=len(runners) < 2))
        devices = _assign(given, tree, blocks, limits, runners, keeps_buffers=not options.offload_buffers)
        main = runners[0] if runners else CPU
        shown = cover = tree.cover(devices)
    else:
        shown = _as_map(given)
        cover = tree.cover(_resolve(shown, tree))
        main = next((device for device in cover.values() if device not in (CPU, DISK)), CPU)
        blocks = list(_blocks(tree, layout.no_split, has_one_runner=False))
    return Placement(
        cover,
        main,
        shown,
        [block.name for block in blocks],
        options.offload_buffers,
        options.offload_folder,
        layout.buffers,
    )


def _as_map(given: Any) -> dict[str, Device]:
    if not isinstance(given, Mapping):
        if isinstance(given, str) and not _DEVICE.fullmatch(given):
            raise InvalidOptionError(
                f"device_map={given!r:.60}: give a device, module → device, or one of {', '.join(STRATEGIES)}",
                key="device_map",
            )
        return {"": device_from(given)}
    if wrong := [name for name in given if not isinstance(name, str)]:
        raise InvalidOptionError(f"device_map: {wrong[0]!r:.60} is no name of a module", key="device_map")
    return {name: device_from(device, f"device_map[{name!r:.80}]") for name, device in given.items()}


class _Tree:
    """The modules of a model with the tensors below each; tied tensors have one size between them."""

    def __init__(self, layout: Layout, specs: Sequence[ParamSpec], policy: DtypePolicy) -> None:
        self.modules = layout.modules
        # name → the name it is counted under
        self.tensors = {name: spec.name for spec in specs for name in (spec.name, *spec.aliases)}
        self.tensors |= {name: name for name in layout.transient}
        self.sizes = {spec.name: num_bytes(spec.shape, _dtype_of(spec, policy)) for spec in specs}
        self.sizes |= layout.transient
        self.transient = layout.transient
        self.buffers = layout.buffers | layout.transient.keys()
        self.own: dict[str, list[str]] = {}
        self.inside: dict[str, list[str]] = {}
        for tensor in self.tensors:
            owner = tensor.rpartition(".")[0]
            self.own.setdefault(owner, []).append(tensor)
            self.inside.setdefault("", []).append(tensor)
            for end in accumulate(owner.split("."), "{}.{}".format) if owner else ():
                self.inside.setdefault(end, []).append(tensor)
        self.children: dict[str, list[str]] = {}
        for name in self.modules:
            if name and name in self.inside:
                self.children.setdefault(name.rpartition(".")[0], []).append(name)

    def cover(self, devices: Mapping[str, Device], name: str = "") -> dict[str, Device]:
        """Device of each tensor → the fewest names that say the same and do not overlap."""
        found = {devices[tensor] for tensor in self.inside.get(name, ())}
        if len(found) <= 1:
            return {name: next(iter(found), CPU)}
        result = {tensor: devices[tensor] for tensor in self.own.get(name, ())}
        for child in self.children.get(name, ()):
            result |= self.cover(devices, child)
        return result


def _dtype_of(spec: ParamSpec, policy: DtypePolicy) -> str:
    return policy.dtype_of(spec.name) if is_floating(spec.dtype) else spec.dtype


def _resolve(given: Mapping[str, Device], tree: _Tree) -> dict[str, Device]:
    """Device of each tensor, as the caller's map has it; the longest name that fits counts.

    Raises:
        InvalidOptionError: one for all names that no module has and all tensors that no name covers.
    """
    complaints = []
    for name in given:
        if name not in tree.modules and name not in tree.tensors:
            near = difflib.get_close_matches(name, tree.modules, n=1)
            complaints.append(f"no module {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    devices: dict[str, Device] = {}
    lacking: dict[str, None] = {}
    main = next((device for device in given.values() if device not in (CPU, DISK)), CPU)
    for tensor in set(tree.tensors.values()):  # a tied name goes along with the one it is tied to
        try:
            devices[tensor] = _nearest(given, tensor)
        except KeyError:
            if tensor in tree.transient:  # no state dict has it, so nobody who reads one would name it
                devices[tensor] = main
            else:
                lacking[tensor.rpartition(".")[0] or tensor] = None
    complaints += [f"no device for {name}" for name in sorted(lacking)]
    if complaints:
        shown = "\n".join(f"    {line}" for line in complaints[:_MAX_SHOWN])
        more = f"\n    … and {len(complaints) - _MAX_SHOWN} more" if len(complaints) > _MAX_SHOWN else ""
        raise InvalidOptionError(
            f'device_map does not fit the model:\n{shown}{more}\n"" stands for all that is not named.',
            key="device_map",
            reason=complaints[0],
            complaints=complaints,
        )
    return {tensor: devices[counted] for tensor, counted in tree.tensors.items()}


def _limits(memory: Mapping[Any, int]) -> dict[Device, int]:
    """Bytes by device: numbered ones in order, then others as given; what gets nothing is left out."""
    limits = {device_from(device, "max_memory"): size for device, size in memory.items() if size > 0}
    numbers: list[Device] = [*sorted(device for device in limits if isinstance(device, int))]
    return {device: limits[device] for device in (*numbers, *(d for d in limits if not isinstance(d, int)))}


class _Block(NamedTuple):
    """A module, or a tensor of a module that is split, that goes to one device as a whole."""

    name: str
    tensors: Sequence[str]


def _blocks(tree: _Tree, no_split: frozenset[str], *, has_one_runner: bool, name: str = "") -> Iterator[_Block]:
    """The model in pieces, in the order they were registered, which is by and large the order they run in."""
    own, children = tree.own.get(name, ()), tree.children.get(name, ())
    # Tensors of its own meet what the children made; with several devices to run on, that has to be in one place.
    is_bound = bool(own) and bool(name) and not has_one_runner
    if not children or is_bound or tree.modules.get(name) in no_split:
        if tree.inside.get(name):
            yield _Block(name, tree.inside[name])
        return
    yield from (_Block(tensor, [tensor]) for tensor in own)
    for child in children:
        yield from _blocks(tree, no_split, has_one_runner=has_one_runner, name=child)


def _tied_together(tree: _Tree, blocks: Sequence[_Block]) -> list[list[_Block]]:
    """The blocks in groups that share tensors, in the order of their first."""
    group_of: dict[str, list[_Block]] = {}  # counted name → its group
    groups: list[list[_Block]] = []
    for block in blocks:
        counted = {tree.tensors[tensor] for tensor in block.tensors}
        met = [group_of[name] for name in counted if name in group_of]
        joined = min(met, key=groups.index) if met else []
        if not met:
            groups.append(joined)
        for other in met:
            if other is not joined and other in groups:
                groups.remove(other)
                joined.extend(other)
        joined.append(block)
        group_of |= {tree.tensors[tensor]: joined for member in joined for tensor in member.tensors}
    return groups


def _assign(
    strategy: str,
    tree: _Tree,
    blocks: Sequence[_Block],
    limits: Mapping[Device, int],
    runners: Sequence[Device],
    *,
    keeps_buffers: bool,
) -> dict[str, Device]:
    """Device of each tensor."""
    groups = _tied_together(tree, blocks)
    members = [[tensor for block in group for tensor in block.tensors] for group in groups]
    counted = [{tree.tensors[tensor] for tensor in tensors} for tensors in members]
    sizes = [sum(tree.sizes[name] for name in names) for names in counted]
    found = fill(sizes, balance(strategy, sizes, limits, runners), runners)
    if not set(found) <= set(runners) and (runners or DISK in found):
        # Then the main device also needs room for what runs on it and lies elsewhere: buffers, and one module.
        main = runners[0] if runners else CPU
        reserve = sum(tree.sizes[name] for name in tree.buffers if name in tree.sizes) if keeps_buffers else 0
        if runners:
            reserve += max((sum(tree.sizes[tree.tensors[t]] for t in own) for own in tree.own.values()), default=0)
        room = {device: max(0, size - reserve) if device == main else size for device, size in limits.items()}
        found = fill(sizes, room, runners)
    on_disk = sum(size for size, device in zip(sizes, found, strict=True) if device == DISK)
    if on_disk > limits.get(DISK, on_disk):
        raise InvalidOptionError(
            f"max_memory has no room: {on_disk:,} bytes are left for the disk, which may take {limits[DISK]:,}",
            key="max_memory",
        )
    return {tensor: device for tensors, device in zip(members, found, strict=True) for tensor in tensors}
