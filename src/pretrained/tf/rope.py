"""Rotary position embeddings (RoFormer, arXiv 2104.09864) of tensors; the frequencies are in `rotary`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..rotary import dynamic_frequencies, exponents, frequencies, longrope_frequencies, rotary_dim

__all__ = ["Rotary", "rotate"]

Tensor: TypeAlias = tf.Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` `(batch, seq, heads, head_dim)` turned by its position; the first half of the channels pairs with the second.

    Args:
        x: queries or keys.
        cos: `(batch or 1, seq, dim)`; with `dim < head_dim` the last channels stay as they are.
        sin: of the same shape.
    """
    cos, sin = cos[:, :, None], sin[:, :, None]
    dim = cos.shape[-1]
    turning = x[..., :dim]
    first, second = tf.split(turning, 2, -1)
    turned = turning * cos + tf.concat((-second, first), -1) * sin
    return turned if dim == x.shape[-1] else tf.concat((turned, x[..., dim:]), -1)


class Rotary:
    """Cosine and sine of each position, by the rotary settings of a config. It has no parameters."""

    def __init__(self, settings: Mapping[str, Any], head_dim: int, max_position_embeddings: int) -> None:
        self.settings = dict(settings)
        self.dim = rotary_dim(settings, head_dim)
        self.longest = max_position_embeddings
        self._inverse, self._factor = frequencies(np, self.settings, self.dim, self.longest)

    def _inverse_for(self, positions: Tensor) -> Any:
        kind = self.settings["rope_type"]
        if kind not in ("dynamic", "longrope"):
            return self._inverse
        # A choice between tensors, not between branches: one compiled program serves every length.
        seq_len = tf.reduce_max(positions) + 1
        if kind == "longrope":
            long, _ = longrope_frequencies(np, self.settings, self.dim, self.longest, beyond=True)
            return tf.where(seq_len > self.settings["original_max_position_embeddings"], long, self._inverse)
        powers = exponents(np, self.dim)
        grown_to = tf.cast(tf.maximum(seq_len, self.longest), tf.float32)
        grown = dynamic_frequencies(self.settings, powers, self.longest, grown_to)
        return tf.where(seq_len > self.longest, grown, self._inverse)

    def __call__(self, positions: Tensor, dtype: Any) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each `(batch or 1, seq, dim)` in `dtype`, of `positions` `(batch or 1, seq)`."""
        angles = tf.cast(positions, tf.float32)[..., None] * self._inverse_for(positions)
        angles = tf.concat((angles, angles), -1)
        return tf.cast(tf.cos(angles) * self._factor, dtype), tf.cast(tf.sin(angles) * self._factor, dtype)
