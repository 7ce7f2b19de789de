"""What is written another way where XLA compiles it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.ops import control_flow_util  # Keras asks it the same; there is no public name

__all__ = ["apart", "is_compiled", "with_slice"]

Tensor: TypeAlias = tf.Tensor


def is_compiled() -> bool:
    """Whether this is traced for XLA."""
    is_within: bool = control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    return not tf.executing_eagerly() and is_within


@tf.custom_gradient
def apart(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`x`, computed before anything that is computed from it."""
    return xla.optimization_barrier(x)[0], lambda gradient: gradient


def with_slice(old: Tensor, new: Tensor, start: Tensor) -> Tensor:
    """`old` with `new` written from `start` on along axis 1: in place, where the old tensor is not needed any more."""
    return xla.dynamic_update_slice(old, new, tf.stack([0, start] + [0] * (len(old.shape) - 2)))
