"""Tables of vectors on a grid, made finer or coarser."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from .layers import wide_dtype

__all__ = ["bicubic"]

Tensor: TypeAlias = tf.Tensor
_SHARPNESS = -0.75  # of the cubic, as torch and OpenCV have it


def bicubic(table: Tensor, grid: tuple[Any, Any]) -> Tensor:
    """`(rows, columns, features)` as `(*grid, features)`, in float32 or better; a coarser grid is not smoothed.

    Source: Keys, Cubic convolution interpolation for digital image processing (1981); torch's
    `interpolate(mode="bicubic", align_corners=False)`.
    """
    wide = tf.cast(table, wide_dtype(table))
    rows, columns = (_weights(old, new) for old, new in zip(table.shape[:2], grid, strict=True))
    return tf.einsum("ir,rcf,jc->ijf", tf.cast(rows, wide.dtype), wide, tf.cast(columns, wide.dtype))


def _weights(old: int, new: Any) -> Tensor:
    """`(new, old)`: how much of each old place goes into each new one. Of a graph `new` may be a tensor."""
    centres = (tf.range(new, dtype=tf.float64) + 0.5) * (old / tf.cast(new, tf.float64)) - 0.5
    first = tf.floor(centres)
    weights = tf.zeros((new, old), tf.float64)
    for tap in (-1, 0, 1, 2):
        places = tf.clip_by_value(tf.cast(first, tf.int32) + tap, 0, old - 1)  # beyond the edge is as at the edge
        share = _cubic(tf.abs(centres - first - tap))
        weights += tf.one_hot(places, old, dtype=tf.float64) * share[:, None]
    return weights


def _cubic(distance: Tensor) -> Tensor:
    a = _SHARPNESS
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return tf.where(distance <= 1, near, tf.where(distance < 2, far, tf.zeros_like(far)))
