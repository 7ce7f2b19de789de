"""Which device holds which part of a parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from ..errors import InvalidOptionError

__all__ = ["shardings_for"]


def shardings_for(model: Any, mesh: jax.sharding.Mesh, rules: Any = None) -> dict[str, NamedSharding]:
    """Parameter → its sharding; a dimension that the axes do not divide is not split.

    Args:
        model: its class has the rules where none are given.
        mesh: the devices.
        rules: {regular expression of a parameter's name: a PartitionSpec, or names of mesh axes}; the first that
            matches counts, and what none matches is on every device.

    Raises:
        InvalidOptionError: a rule names an axis that the mesh does not have.
    """
    chosen: Mapping[str, Any] = type(model)._sharding_rules if rules is None else rules
    compiled = [(re.compile(pattern), PartitionSpec(*spec)) for pattern, spec in chosen.items()]
    for pattern, spec in compiled:
        for axis in jax.tree.leaves(tuple(spec)):
            if axis not in mesh.axis_names:
                raise InvalidOptionError(
                    f"sharding_rules[{pattern.pattern!r}] names the axis {axis!r}, and the mesh has "
                    f"{', '.join(map(str, mesh.axis_names))}",
                    key="sharding_rules",
                )
    found = {}
    for place in model.structure.places:
        spec = next((spec for pattern, spec in compiled if pattern.search(place.name)), PartitionSpec())
        found[place.name] = NamedSharding(mesh, _fitting(spec, place.shape, mesh))
    return found


def _fitting(spec: PartitionSpec, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> PartitionSpec:
    """The spec without the axes that do not divide a dimension."""
    kept = []
    for size, axes in zip(shape, tuple(spec), strict=False):
        parts = 1
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            parts *= mesh.shape[axis]
        kept.append(axes if size % parts == 0 else None)
    return PartitionSpec(*kept)
