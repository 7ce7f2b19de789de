"""The structure of a model: which parameters it has, and the way between its module and plain nested dicts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from .._types import Shape
from ..checkpoint.rules import Op, Permute, shape_after
from ..errors import InvalidOptionError
from .kinds import CONV, EMBEDDING, LINEAR, NORM, RAW, Init, Kind
from .layers import Module

__all__ = ["Place", "Structure", "flatten", "nest"]

Params = Mapping[str, Any]


class Place(NamedTuple):
    """One parameter.

    Attributes:
        name: what torch's checkpoints call it.
        path: the keys that lead to it in `params`.
        shape: that of the array in `params`.
        dtype: what its constructor gave it.
        kind: its sort. init: how it is drawn; None where only the constructor knows.
        ops: from torch's layout to that of the array.
    """

    name: str
    path: tuple[str, ...]
    shape: Shape
    dtype: str
    kind: Kind
    init: Init | None
    ops: tuple[Op, ...] = ()

    @property
    def torch_shape(self) -> Shape:
        """The shape that it has in torch's checkpoints."""
        return shape_after([op.inverse for op in reversed(self.ops)], self.shape)


# Flax's own layers: leaf → (torch's leaf, kind, from torch's layout to theirs by number of axes).
_Leaf = tuple[str, Kind, Mapping[int, tuple[int, ...]]]
_FLAX_LAYERS: tuple[tuple[Any, Mapping[str, _Leaf]], ...] = (
    (nnx.Linear, {"kernel": ("weight", LINEAR, {2: (1, 0)})}),
    (nnx.Conv, {"kernel": ("weight", CONV, {3: (2, 1, 0), 4: (2, 3, 1, 0)})}),
    (nnx.Embed, {"embedding": ("weight", EMBEDDING, {})}),
    ((nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm), {"scale": ("weight", NORM, {})}),
)


class Structure:
    """A module without values. What is built once is shared by every model of the same config.

    Args:
        module: one of this structure, of our layers or of Flax's; its values are not kept.
        build: makes one with values, from a key; for what only a constructor knows.

    Raises:
        InvalidOptionError: the module has state that is neither parameters nor random keys.
    """

    def __init__(self, module: nnx.Module, build: Callable[[Any], nnx.Module]) -> None:
        self.build, self.is_ours = build, isinstance(module, Module)
        parts: Any = nnx.split(module, nnx.Param, ...)
        self.graphdef, state, self._rest = parts
        for path, variable in nnx.to_flat_state(self._rest):
            if not isinstance(variable, nnx.RngState):
                name = ".".join(map(str, path))
                raise InvalidOptionError(f"{name} is a {type(variable).__name__}; a model holds nnx.Param", key=name)
        self._tree: Any = jax.tree.structure(state)
        flat = nnx.to_flat_state(state)
        self.places = [_place(module, path, variable) for path, variable in flat]
        self.by_name = {place.name: place for place in self.places}

    def module(self, params: Params, rng: jax.Array | None = None) -> Any:
        """The module with these parameters; arrays, shapes or traced values.

        Raises:
            ValueError: parameters are missing; names them.
        """
        flat = flatten(params)
        if missing := [place.path for place in self.places if place.path not in flat]:
            raise _missing(missing)
        state = self.state(flat)
        if self.is_ours:
            return nnx.merge(self.graphdef, state, self._rest)
        fresh = nnx.Rngs(0 if rng is None else rng)
        rest = jax.tree.map(lambda leaf: _key_like(leaf, fresh), self._rest)
        module = nnx.merge(self.graphdef, state, rest)
        module.eval() if rng is None else module.train()
        return module

    def state(self, flat: Mapping[tuple[str, ...], Any]) -> Any:
        """The state of a module with these values, by path."""
        return self._tree.unflatten([flat[place.path] for place in self.places])

    def params(self, module: nnx.Module) -> dict[str, Any]:
        """What a module of this structure holds, as a nested dict.

        Raises:
            InvalidOptionError: the module is of another structure.
        """
        flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
        found = {tuple(map(str, path)): variable[...] for path, variable in flat}
        if wrong := {place.path for place in self.places} ^ set(found):
            raise InvalidOptionError(f"the module has other parameters: {'.'.join(min(wrong))} …", key="module")
        return nest(found)

    def shapes(self) -> dict[str, Any]:
        """A nested dict like `params`, of shapes and dtypes."""
        return nest({place.path: jax.ShapeDtypeStruct(place.shape, place.dtype) for place in self.places})


def _key_like(leaf: Any, rngs: nnx.Rngs) -> Any:
    """What stands for a random state of the module: keys from `rngs`, counters at zero."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return rngs()
    return jnp.zeros(leaf.shape, leaf.dtype)


def _place(module: Any, path: tuple[Any, ...], variable: Any) -> Place:
    metadata = variable.get_metadata()
    keys = tuple(map(str, path))
    value = variable.get_value()
    name, kind = ".".join(keys), metadata.get("kind")
    ops: tuple[Op, ...] = ()
    if kind is None:
        name, kind, ops = _of_flax(module, path, value.shape)
    init = metadata.get("init") if isinstance(metadata.get("kind"), Kind) else None
    return Place(name, keys, tuple(value.shape), value.dtype.name, kind, init, ops)


def _of_flax(module: Any, path: tuple[Any, ...], shape: Shape) -> tuple[str, Kind, tuple[Op, ...]]:
    """(torch's name, kind, ops) of a parameter of one of Flax's own layers; of any other as it is."""
    owner = module
    for key in path[:-1]:
        owner = owner[key] if isinstance(key, int) else getattr(owner, key)
    leaf = str(path[-1])
    for layers, leaves in _FLAX_LAYERS:
        if isinstance(owner, layers) and leaf in leaves:
            torch_leaf, kind, axes = leaves[leaf]
            ops: tuple[Op, ...] = (Permute(axes[len(shape)]),) if len(shape) in axes else ()
            return ".".join([*map(str, path[:-1]), torch_leaf]), kind, ops
    return ".".join(map(str, path)), RAW, ()


def flatten(params: Params) -> dict[tuple[str, ...], Any]:
    """Path → leaf of a nested mapping."""
    return dict(_walk(params, ()))


def _walk(params: Params, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _walk(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def nest(flat: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """The nested dict of a flat one."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        inner = tree
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return tree


def _missing(paths: list[tuple[str, ...]]) -> ValueError:
    names = ", ".join(".".join(path) for path in paths[:5])
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ValueError(f"params lack {names}{more}")
