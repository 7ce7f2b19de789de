"""Initial values, each parameter drawn from a seed of its own: the same in any order, in any model."""

from __future__ import annotations

import zlib
from typing import Any

import tensorflow as tf

from .._types import Shape
from .kinds import Init

__all__ = ["draw", "seed_of"]


def seed_of(seed: int, name: str) -> list[int]:
    """The seed of one parameter."""
    return [seed, zlib.crc32(name.encode()) - 2**31]


def draw(init: Init, seed: int, name: str, shape: Shape, dtype: Any) -> tf.Tensor:
    """The initial value of the parameter `name` of a model with this seed."""
    return init.draw(seed_of(seed, name), shape, dtype)
