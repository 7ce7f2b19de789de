"""Which device holds which part of a parameter, and arrays made of the parts that this process holds."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from .._types import Shape
from ..checkpoint.boxes import Box, around, is_whole, slices_of
from ..checkpoint.rules import Permute
from ..errors import InvalidOptionError, OptionError
from ..tying import aliases_of
from .structure import Place

__all__ = [
    "Assembly", "Placing", "assemble", "box_here", "box_of", "boxes_here", "is_elsewhere", "is_spread", "placed",
    "shardings_of",
]  # fmt: skip


class _Rule(NamedTuple):
    """A rule as it was written, and compiled."""

    text: str
    pattern: re.Pattern[str]
    spec: PartitionSpec


@dataclass(frozen=True)
class Placing:
    """The devices that a model's parameters are spread over, and the rules for it.

    Attributes:
        mesh: the devices.
        rules: regular expressions of names and the mesh axes of each dimension; None for those of the model's class.
    """

    mesh: Mesh
    rules: tuple[_Rule, ...] | None

    @classmethod
    def of(cls, mesh: Any, rules: Any = None) -> Placing | None:
        """The placing that `mesh=` and `sharding_rules=` ask for; None without a mesh.

        Raises:
            OptionError: rules without a mesh.
            InvalidOptionError: no mesh, or one with explicit axes; a rule that is none, or names an axis that the mesh
                does not have.
        """
        if mesh is None:
            if rules is not None:
                raise OptionError("sharding_rules= say how; mesh= has to say over which devices", key="sharding_rules")
            return None
        if not isinstance(mesh, Mesh):
            raise InvalidOptionError(f"mesh= is a jax.sharding.Mesh, not {type(mesh).__name__}", key="mesh")
        if any(sort != AxisType.Auto for sort in mesh.axis_types):
            raise InvalidOptionError(
                f"mesh= has axes of the types {', '.join(str(sort) for sort in mesh.axis_types)}, and the compiler "
                "places what a model computes: make the mesh with axis_types=(jax.sharding.AxisType.Auto,) * "
                f"{len(mesh.axis_names)}",
                key="mesh",
            )
        if rules is not None and not isinstance(rules, Mapping):
            raise InvalidOptionError(
                f"sharding_rules= is {{pattern: PartitionSpec}}, not {type(rules).__name__}", key="sharding_rules"
            )
        return cls(mesh, None if rules is None else tuple(_rules(rules, mesh, "sharding_rules")))

    def shardings(self, model: Any) -> dict[str, NamedSharding]:
        """Parameter → its sharding; a dimension that the devices do not divide is not split.

        Raises:
            InvalidOptionError: there are no rules, a rule matches no parameter, or has more dimensions than one has.
        """
        rules = self._rules_for(type(model))
        aliases = aliases_of(model)
        found, unused = {}, {rule.text for rule in rules}
        for place in model.structure.places:
            names = (place.name, *aliases.get(place.name, ()))
            matching = [rule for rule in rules if any(rule.pattern.search(name) for name in names)]
            unused -= {rule.text for rule in matching}
            spec = _fitting(matching[0], place, self.mesh) if matching else ()
            found[place.name] = NamedSharding(self.mesh, PartitionSpec(*spec))
        if self.rules is not None and unused:
            raise _unused(sorted(unused), found)
        return found

    def _rules_for(self, cls: Any) -> Sequence[_Rule]:
        if self.rules is not None:
            return self.rules
        if not cls._sharding_rules:
            raise InvalidOptionError(
                f"{cls.__name__} declares no _sharding_rules: pass sharding_rules=, {{}} for all of it on every device",
                key="sharding_rules",
            )
        return list(_rules(cls._sharding_rules, self.mesh, f"{cls.__name__}._sharding_rules"))


def shardings_of(model: Any) -> dict[str, NamedSharding]:
    """Name → sharding of the parameters of a model that was loaded onto a mesh; empty for any other."""
    placing: Placing | None = model._placing
    return {} if placing is None else placing.shardings(model)


def placed(function: Callable[..., jax.Array], sharding: Sharding | None) -> Callable[..., jax.Array]:
    """A function of arrays whose result lies as `sharding` says, computed by the devices that hold them."""
    if sharding is None:
        return function
    compiled: Callable[..., jax.Array] = jax.jit(function, out_shardings=sharding)
    return compiled


def _rules(rules: Mapping[Any, Any], mesh: Mesh, where: str) -> Iterable[_Rule]:
    for text, axes in rules.items():
        try:
            pattern = re.compile(text)
        except (re.error, TypeError) as error:
            raise InvalidOptionError(f"{where}: {text!r} is no regular expression: {error}", key=where) from error
        spec = _spec(axes, f"{where}[{text!r}]")
        names = [name for dim in spec for name in _names(dim)]
        for name in names:
            if name not in mesh.axis_names:
                raise _unknown_axis(where, text, name, mesh)
            if names.count(name) > 1:
                raise InvalidOptionError(f"{where}[{text!r}] has the axis {name!r} twice", key=where)
        yield _Rule(text, pattern, spec)


def _spec(axes: Any, where: str) -> PartitionSpec:
    """The PartitionSpec of a rule's value, which may be one already, or names of axes by dimension."""
    dims = (axes,) if axes is None or isinstance(axes, str) else axes
    if isinstance(dims, (PartitionSpec, tuple, list)):
        dims = tuple(tuple(dim) if isinstance(dim, list) else dim for dim in dims)
        if all(dim is None or all(isinstance(name, str) for name in _names(dim)) for dim in dims):
            return PartitionSpec(*dims)
    raise InvalidOptionError(
        f"{where} is {axes!r:.100}; expected a PartitionSpec, or for each dimension the name of a mesh axis, a tuple "
        "of such names, or None",
        key="sharding_rules",
    )


def _names(dim: Any) -> tuple[Any, ...]:
    """The axes that a dimension is split over."""
    return () if dim is None else dim if isinstance(dim, tuple) else (dim,)


def _unknown_axis(where: str, text: str, name: str, mesh: Mesh) -> InvalidOptionError:
    near = difflib.get_close_matches(name, list(map(str, mesh.axis_names)), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if where != "sharding_rules":
        hint += ". Name an axis of the mesh so, or pass sharding_rules= ({} for all of the model on every device)"
    return InvalidOptionError(
        f"{where}[{text!r}] names the axis {name!r}, and the mesh has {', '.join(map(str, mesh.axis_names))}{hint}",
        key="sharding_rules",
    )


def _unused(patterns: Sequence[str], names: Iterable[str]) -> InvalidOptionError:
    plain = patterns[0].replace("\\", "").strip("^$.*")
    num_parts = plain.count(".") + 1
    split = [name.split(".") for name in names]
    parts = {".".join(keys[at : at + num_parts]) for keys in split for at in range(len(keys))}
    near = difflib.get_close_matches(plain, sorted(parts), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(map(repr, patterns[:3])) + (f" and {len(patterns) - 3} more" if len(patterns) > 3 else "")
    return InvalidOptionError(f"sharding_rules: no parameter of the model matches {shown}{hint}", key="sharding_rules")


def _fitting(rule: _Rule, place: Place, mesh: Mesh) -> tuple[Any, ...]:
    """The axes of each dimension, in the order of the array, without those that do not divide it."""
    shape = place.torch_shape
    if len(rule.spec) > len(shape):
        raise InvalidOptionError(
            f"sharding_rules[{rule.text!r}] has {len(rule.spec)} dimensions, and {place.name} has {len(shape)}: "
            f"{list(shape)}",
            key="sharding_rules",
        )
    kept = [None] * len(shape)
    for dim, axes in enumerate(rule.spec):
        parts = math.prod(mesh.shape[axis] for axis in _names(axes))
        kept[dim] = axes if shape[dim] % parts == 0 else None
    return tuple(kept[dim] for dim in _order(place))


def _order(place: Place) -> list[int]:
    """Which of torch's dimensions each dimension of the array is."""
    order = list(range(len(place.shape)))
    for op in place.ops:
        assert isinstance(op, Permute)
        order = [order[axis] for axis in op.axes]
    return order


# Parts of arrays


def is_spread(array: Any) -> bool:
    """Whether an array lies on more than one device."""
    return isinstance(array, jax.Array) and len(array.sharding.device_set) > 1


def is_elsewhere(array: Any) -> bool:
    """Whether a part of an array lies on a device of another process."""
    return isinstance(array, jax.Array) and not array.is_fully_addressable


def box_of(index: Iterable[slice], shape: Shape) -> Box:
    """The box that an index of slices is."""
    return tuple(part.indices(dim)[:2] for part, dim in zip(index, shape, strict=True))


def boxes_here(sharding: Sharding, shape: Shape) -> dict[jax.Device, Box]:
    """Device of this process → the part of an array of this shape that it holds."""
    return {
        device: box_of(index, shape)
        for device, index in sharding.addressable_devices_indices_map(shape).items()
        if index is not None
    }


def box_here(sharding: Sharding, shape: Shape) -> Box:
    """The smallest box with all that the devices of this process hold; an empty one if they hold nothing."""
    boxes = boxes_here(sharding, shape).values()
    return around(boxes) if boxes else tuple((0, 0) for _ in shape)


class Assembly(NamedTuple):
    """An array to be made: `part` is the box `origin` of it, as an array of numpy."""

    part: Any
    origin: Box
    shape: Shape
    sharding: Sharding


def assemble(wanted: Sequence[Assembly]) -> list[jax.Array]:
    """Arrays over all devices of their shardings, of which this process fills in its own."""
    ours = [item.sharding.is_fully_addressable and is_whole(item.origin, item.shape) for item in wanted]
    entire = [item for item, is_ours in zip(wanted, ours, strict=True) if is_ours]
    put = iter(jax.device_put([item.part for item in entire], [item.sharding for item in entire]))
    joined = iter(_joined([item for item, is_ours in zip(wanted, ours, strict=True) if not is_ours]))
    return [next(put if is_ours else joined) for is_ours in ours]


def _joined(wanted: Sequence[Assembly]) -> list[jax.Array]:
    """Arrays of which other processes hold parts too, made of those that are here."""
    boxes = [boxes_here(item.sharding, item.shape) for item in wanted]
    pairs = zip(wanted, boxes, strict=True)
    parts = [item.part[(..., *slices_of(box, item.origin))] for item, held in pairs for box in held.values()]
    shards = iter(jax.device_put(parts, [device for held in boxes for device in held]))
    return [
        jax.make_array_from_single_device_arrays(
            item.shape, item.sharding, [next(shards) for _ in held], dtype=item.part.dtype
        )
        for item, held in zip(wanted, boxes, strict=True)
    ]
