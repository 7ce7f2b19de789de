"""Initial values, each parameter drawn from a key of its own: the same in any order, on any devices."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Shape
from ..checkpoint.tensors import count_elements
from .kinds import Constant, Init
from .structure import Place, Structure, flatten

__all__ = ["draw", "draw_all"]

_SMALL = 2**20  # elements up to which arrays are drawn flat, in a few sizes, so that few programs are compiled


def draw_all(
    structure: Structure,
    places: Iterable[Place],
    rng: jax.Array,
    dtypes: Mapping[str, Any] | None = None,
    shardings: Mapping[str, Any] | None = None,
) -> dict[str, jax.Array]:
    """Name → initial value of these parameters.

    Args:
        structure: what they belong to; where only a constructor knows the values, it is run.
        places: which.
        rng: a key.
        dtypes: name → dtype, where it is not the place's own.
        shardings: name → where the array is to lie.
    """
    wanted = list(places)
    constructed: dict[tuple[str, ...], Any] = {}
    if any(place.init is None for place in wanted):
        constructed = flatten(structure.params(structure.build(rng)))
    found = {}
    for place in wanted:
        dtype = jnp.dtype((dtypes or {}).get(place.name, place.dtype))
        sharding = (shardings or {}).get(place.name)
        if place.init is None:
            value = constructed[place.path].astype(dtype)
            found[place.name] = value if sharding is None else jax.jit(jnp.asarray, out_shardings=sharding)(value)
        else:
            found[place.name] = draw(place.init, key_of(rng, place.name), place.shape, dtype, sharding)
    return found


def key_of(rng: jax.Array, name: str) -> jax.Array:
    """The key of one parameter."""
    return jax.random.fold_in(rng, zlib.crc32(name.encode()))


def draw(init: Init, key: jax.Array, shape: Shape, dtype: Any, sharding: Any = None) -> jax.Array:
    """An array of initial values, where it is to lie; each device computes its own part."""
    count = count_elements(shape)
    if isinstance(init, Constant) and sharding is None:
        return jnp.asarray(np.full(shape, init.value, dtype))
    compiled: Any = _draw  # what a cache knows of its arguments is that they are hashable
    if sharding is not None or count > _SMALL or getattr(init, "padding", None) is not None:
        return compiled(init, shape, dtype, sharding)(key)
    room = max(256, 1 << (count - 1).bit_length())
    return compiled(init, (room,), dtype, None)(key)[:count].reshape(shape)


@lru_cache(maxsize=512)
def _draw(init: Any, shape: Shape, dtype: Any, sharding: Any) -> Any:
    """The compiled draw of one shape; a model has few."""
    return jax.jit(partial(init.draw, shape=shape, dtype=dtype), out_shardings=sharding)
