"""Tables of vectors on a grid, made finer or coarser."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["bicubic"]

_SHARPNESS = -0.75  # of the cubic, as torch and OpenCV have it; jax.image.resize has -0.5


def bicubic(table: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """`(rows, columns, features)` as `(*grid, features)`, in float32 or better; a coarser grid is not smoothed.

    Source: Keys, Cubic convolution interpolation for digital image processing (1981); torch's
    `interpolate(mode="bicubic", align_corners=False)`.
    """
    wide = table.astype(jnp.promote_types(table.dtype, jnp.float32))
    rows, columns = (_weights(old, new) for old, new in zip(table.shape[:2], grid, strict=True))
    return jnp.einsum("ir,rcf,jc->ijf", rows.astype(wide.dtype), wide, columns.astype(wide.dtype))


def _weights(old: int, new: int) -> np.ndarray:
    """`(new, old)`: how much of each old place goes into each new one."""
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(centres).astype(int)
    weights = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        places = np.clip(first + tap, 0, old - 1)  # beyond the edge is as at the edge
        np.add.at(weights, (np.arange(new), places), _cubic(np.abs(centres - first - tap)))
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    a = _SHARPNESS
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
