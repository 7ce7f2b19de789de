"""Rotary position embeddings (RoFormer, arXiv 2104.09864) of arrays; the frequencies are in `rotary`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..rotary import dynamic_frequencies, exponents, frequencies, longrope_frequencies, rotary_dim

__all__ = ["Rotary", "rotate"]

Array = jax.Array


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """`x` `(batch, seq, heads, head_dim)` turned by its position; the first half of the channels pairs with the second.

    Args:
        x: queries or keys.
        cos: `(batch or 1, seq, dim)`; with `dim < head_dim` the last channels stay as they are.
        sin: of the same shape.
    """
    cos, sin = cos[:, :, None], sin[:, :, None]
    dim = cos.shape[-1]
    turning = x[..., :dim]
    first, second = jnp.split(turning, 2, -1)
    turned = turning * cos + jnp.concatenate((-second, first), -1) * sin
    return turned if dim == x.shape[-1] else jnp.concatenate((turned, x[..., dim:]), -1)


class Rotary:
    """Cosine and sine of each position, by the rotary settings of a config. It has no parameters.

    Two with the same settings are equal: a module that holds one is compared and hashed with it.
    """

    def __init__(self, settings: Mapping[str, Any], head_dim: int, max_position_embeddings: int) -> None:
        self.settings = dict(settings)
        self.dim = rotary_dim(settings, head_dim)
        self.longest = max_position_embeddings
        self._inverse, self._factor = frequencies(np, self.settings, self.dim, self.longest)
        self._key = (tuple(sorted((k, str(v)) for k, v in self.settings.items())), self.dim, self.longest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rotary) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def _inverse_for(self, positions: Array) -> Any:
        kind = self.settings["rope_type"]
        if kind not in ("dynamic", "longrope"):
            return self._inverse
        # A choice between arrays, not between branches: one compiled program serves every length.
        seq_len = positions.max() + 1
        if kind == "longrope":
            long, _ = longrope_frequencies(np, self.settings, self.dim, self.longest, beyond=True)
            return jnp.where(seq_len > self.settings["original_max_position_embeddings"], long, self._inverse)
        powers = exponents(np, self.dim)
        grown = dynamic_frequencies(self.settings, powers, self.longest, jnp.maximum(seq_len, self.longest))
        return jnp.where(seq_len > self.longest, grown, self._inverse)

    def __call__(self, positions: Array, dtype: Any) -> tuple[Array, Array]:
        """Cosine and sine, each `(batch or 1, seq, dim)` in `dtype`, of `positions` `(batch or 1, seq)`."""
        angles = positions[..., None].astype(jnp.float32) * self._inverse_for(positions)
        angles = jnp.concatenate((angles, angles), -1)
        return (jnp.cos(angles) * self._factor).astype(dtype), (jnp.sin(angles) * self._factor).astype(dtype)
