"""Random numbers of generation: functions of a seed, the same whether XLA compiles them or not."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

__all__ = ["gumbel", "key_of", "split"]

Tensor: TypeAlias = tf.Tensor


def key_of(seed: Any) -> Tensor:
    """The seed `(2,)` of a number, or of two; of None one that is drawn."""
    if seed is None:
        return tf.random.uniform((2,), 0, 2**31 - 1, tf.int32)
    pair = tf.cast(tf.convert_to_tensor(seed), tf.int32)
    return pair if pair.shape.rank == 1 else tf.stack((pair, tf.zeros_like(pair)))


def split(key: Tensor) -> tuple[Tensor, Tensor]:
    """Two seeds of one."""
    one, other = tf.unstack(tf.random.split(key, 2, alg="philox"))
    return one, other


def gumbel(key: Tensor, shape: Any) -> Tensor:
    """Gumbel noise: the largest of log-probabilities with it is a draw from them."""
    # XLA turns random bits into floating numbers in a way of its own; the bits are the same.
    bits = tf.bitcast(tf.random.stateless_uniform(shape, key, None, None, tf.int32, alg="philox"), tf.uint32)
    uniform = (tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.float32) + 0.5) * 2.0**-23
    return -tf.math.log(-tf.math.log(uniform))
