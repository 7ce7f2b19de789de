"""Parameters in another dtype."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["cast"]


def cast(params: Any, dtype: str, mask: Any = None) -> Any:
    """`params` with floating arrays in `dtype`, where `mask`, of the same structure, is true; None is true everywhere.

    Raises:
        ValueError: the mask has another structure.
    """

    def as_asked(value: Any, is_cast: Any) -> Any:
        is_floating = jnp.issubdtype(value.dtype, jnp.floating)
        return value.astype(dtype) if is_cast and is_floating else value

    if mask is None:
        return jax.tree.map(lambda value: as_asked(value, True), params)
    return jax.tree.map(as_asked, params, mask)
