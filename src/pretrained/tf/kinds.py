"""What a parameter is: how it is drawn at first, and how Keras's checkpoints call it and lay it out.

Our own layers keep every parameter as torch lays it out, so that a checkpoint of torch's can be used where it lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from .._types import Shape
from ..checkpoint.rules import Op, Permute, Reshape

__all__ = [
    "CONV", "CONV1D", "CONV1D_BIAS", "EMBEDDING", "LINEAR", "NORM", "NORM_BIAS", "ONES", "RAW", "TABLE", "ZEROS",
    "Constant", "Init", "Kind", "Normal", "TruncatedNormal", "Uniform", "fan_in",
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A sort of parameter.

    Attributes:
        leaf: the last part of its name in Keras's files; None where that is torch's too.
        turns: whether Keras has its axes in another order.
        is_row: whether Keras has it as a matrix of one row.
    """

    leaf: str | None = None
    turns: bool = False
    is_row: bool = False

    def keras_ops(self, shape: Shape) -> tuple[Op, ...]:
        """What makes torch's layout Keras's."""
        if self.is_row:
            return (Reshape(shape, (1, *shape)),)
        axes = _KERAS_AXES.get(len(shape)) if self.turns else None
        return () if axes is None else (Permute(axes),)


# From torch's weight to Keras's kernel, by number of axes: (in, out), (space, in, out), (height, width, in, out).
_KERAS_AXES: Mapping[int, tuple[int, ...]] = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}

LINEAR = Kind("kernel", turns=True)
CONV = Kind("kernel", turns=True)
CONV1D = Kind()  # OpenAI's, `(in, out)` everywhere
CONV1D_BIAS = Kind(is_row=True)
EMBEDDING = Kind("embeddings")
TABLE = Kind()  # an embedding that Keras's classes hold themselves, under torch's name
NORM = Kind("gamma")
NORM_BIAS = Kind("beta")
RAW = Kind()


class Init(Protocol):
    """How a parameter is drawn; a function of a seed."""

    def draw(self, seed: Any, shape: Shape, dtype: Any) -> tf.Tensor:
        """A tensor of values from a seed `(2,)`."""


@dataclass(frozen=True)
class Constant:
    """The same number everywhere."""

    value: float

    def draw(self, seed: Any, shape: Shape, dtype: Any) -> tf.Tensor:
        """The tensor."""
        return tf.fill(shape, tf.cast(self.value, dtype))


ZEROS, ONES = Constant(0.0), Constant(1.0)


@dataclass(frozen=True)
class Normal:
    """Normal with mean 0; `padding` is a row that is 0, of an embedding."""

    std: float
    padding: int | None = None

    def draw(self, seed: Any, shape: Shape, dtype: Any) -> tf.Tensor:
        """The tensor."""
        drawn = tf.random.stateless_normal(shape, seed, stddev=self.std)
        if self.padding is not None:
            drawn = tf.tensor_scatter_nd_update(drawn, [[self.padding % shape[0]]], tf.zeros((1, *shape[1:])))
        return tf.cast(drawn, dtype)


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal with mean 0, drawn again beyond `bound`, as torch's `trunc_normal_`."""

    std: float
    bound: float = 2.0  # in absolute terms, as torch has it

    def draw(self, seed: Any, shape: Shape, dtype: Any) -> tf.Tensor:
        """The tensor. What lies within the bound is a part of the normal distribution: its quantiles are uniform."""
        outside = math.erfc(self.bound / self.std / math.sqrt(2)) / 2
        places = tf.random.stateless_uniform(shape, seed, outside, 1 - outside, tf.float64)
        drawn = tf.clip_by_value(tf.math.ndtri(places) * self.std, -self.bound, self.bound)
        return tf.cast(drawn, dtype)


@dataclass(frozen=True)
class Uniform:
    """Uniform between `-bound` and `bound`, or from `low` on."""

    bound: float
    low: float | None = None

    def draw(self, seed: Any, shape: Shape, dtype: Any) -> tf.Tensor:
        """The tensor."""
        low = -self.bound if self.low is None else self.low
        return tf.cast(tf.random.stateless_uniform(shape, seed, low, self.bound), dtype)


def fan_in(size: int) -> Uniform:
    """What torch's linear and convolutional layers give weights and biases of `size` inputs."""
    return Uniform(1 / math.sqrt(size))
