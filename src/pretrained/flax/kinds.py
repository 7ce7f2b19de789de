"""What a parameter is: how it is drawn at first, and how Linen's checkpoints call it and lay it out.

Our own layers keep every parameter as torch lays it out, so that a checkpoint of torch's can be used where it lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from .._types import Shape
from ..checkpoint.rules import Op, Permute

__all__ = [
    "CONV", "EMBEDDING", "LINEAR", "NORM", "ONES", "RAW", "ZEROS", "Constant", "Init", "Kind", "Normal",
    "TruncatedNormal", "Uniform", "fan_in",
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A sort of parameter.

    Attributes:
        leaf: the last part of its name in Linen's trees; None where that is torch's too.
        turns: whether Linen has its axes in another order.
    """

    leaf: str | None = None
    turns: bool = False

    def linen_ops(self, shape: Shape) -> tuple[Op, ...]:
        """What makes torch's layout Linen's."""
        axes = _LINEN_AXES.get(len(shape)) if self.turns else None
        return () if axes is None else (Permute(axes),)


# From torch's weight to Linen's kernel, by number of axes: (in, out), (space, in, out), (height, width, in, out).
_LINEN_AXES: Mapping[int, tuple[int, ...]] = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}

LINEAR = Kind("kernel", turns=True)
CONV = Kind("kernel", turns=True)
EMBEDDING = Kind("embedding")
NORM = Kind("scale")
RAW = Kind()


class Init(Protocol):
    """How a parameter is drawn. Frozen and hashable: it is a part of the module's definition."""

    def draw(self, key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
        """An array of values. Element i of the flat array depends on the key and on i alone, not on the shape."""


@dataclass(frozen=True)
class Constant:
    """The same number everywhere."""

    value: float

    def draw(self, key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
        """The array."""
        return jnp.full(shape, self.value, dtype)


ZEROS, ONES = Constant(0.0), Constant(1.0)


@dataclass(frozen=True)
class Normal:
    """Normal with mean 0; `padding` is a row that is 0, of an embedding."""

    std: float
    padding: int | None = None

    def draw(self, key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
        """The array."""
        drawn = self.std * jax.random.normal(key, shape, jnp.float32)
        if self.padding is not None:
            drawn = drawn.at[self.padding].set(0.0)
        return drawn.astype(dtype)


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal with mean 0, drawn again beyond two standard deviations of a unit normal, as torch's `trunc_normal_`."""

    std: float
    bound: float = 2.0  # in absolute terms, as torch has it

    def draw(self, key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
        """The array."""
        limit = self.bound / self.std
        return (self.std * jax.random.truncated_normal(key, -limit, limit, shape, jnp.float32)).astype(dtype)


@dataclass(frozen=True)
class Uniform:
    """Uniform between `-bound` and `bound`."""

    bound: float

    def draw(self, key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
        """The array."""
        return jax.random.uniform(key, shape, jnp.float32, -self.bound, self.bound).astype(dtype)


def fan_in(size: int) -> Uniform:
    """What torch's linear and convolutional layers give weights and biases of `size` inputs."""
    return Uniform(1 / math.sqrt(size))
