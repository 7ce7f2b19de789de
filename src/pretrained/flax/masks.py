"""Attention masks: from what callers pass to what attention asks for, or to nothing where nothing is masked.

A mask is boolean, true where a query may look at a key, and broadcasts to `(batch, heads, queries, keys)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

__all__ = ["bidirectional", "causal", "split_head_mask"]

Array = jax.Array


def bidirectional(attention_mask: Array | None) -> Array | None:
    """The mask of an encoder, or of attention to an encoder.

    Args:
        attention_mask: `(batch, keys)`, `(batch, queries, keys)` or `(batch, 1 or heads, queries, keys)`, nonzero
            where a key may be looked at.

    Raises:
        ValueError: another number of axes.
    """
    if attention_mask is None:
        return None
    keep = attention_mask != 0
    if keep.ndim == 2:
        return keep[:, None, None]
    if keep.ndim == 3:
        return keep[:, None]
    if keep.ndim == 4:
        return keep
    raise ValueError(f"attention_mask must have 2, 3 or 4 axes; its shape is {attention_mask.shape}")


def causal(
    attention_mask: Array | None,
    num_queries: int,
    num_keys: int,
    start: Array | int = 0,
    window: int | None = None,
) -> Array | None:
    """The mask of a decoder's self-attention: no token looks at a later one, nor at padding.

    Args:
        attention_mask: `(batch, keys)`, of the past as well as the new tokens; what it leaves out of a preallocated
            cache comes later than any query. One with 3 or 4 axes is the whole mask: nothing is added to it.
        num_queries: new tokens.
        num_keys: keys that attention will see, unused places of a preallocated cache included.
        start: place of the first query among the keys.
        window: how many tokens one sees, itself included; None: all.
    """
    if attention_mask is not None and attention_mask.ndim != 2:
        return bidirectional(attention_mask)
    places = jnp.arange(num_keys)
    own = (jnp.arange(num_queries) + start)[:, None]
    keep = places <= own
    if window is not None:
        keep &= places > own - window
    keep = keep[None, None]
    if attention_mask is None:
        return keep
    if attention_mask.shape[1] > num_keys:
        raise ValueError(f"attention_mask is {attention_mask.shape[1]} long, and there are {num_keys} keys")
    missing = num_keys - attention_mask.shape[1]
    fitting = jnp.pad(attention_mask != 0, ((0, 0), (0, missing)), constant_values=True)
    return keep & fitting[:, None, None]


def split_head_mask(head_mask: Array | None, num_layers: int) -> Sequence[Array | None]:
    """One mask per layer from `(heads,)` or `(layers, heads)`, each `(1, heads, 1, 1)`."""
    if head_mask is None:
        return [None] * num_layers
    if head_mask.ndim == 1:
        head_mask = jnp.broadcast_to(head_mask, (num_layers, *head_mask.shape))
    if head_mask.ndim == 2:
        head_mask = head_mask[:, None, :, None, None]
    if head_mask.ndim != 5 or len(head_mask) != num_layers:
        raise ValueError(f"head_mask must be (heads,) or ({num_layers}, heads); its shape is {head_mask.shape}")
    return list(head_mask)
