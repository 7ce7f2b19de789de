"""Attention masks: from what callers pass to what attention asks for, or to nothing where nothing is masked.

A mask is boolean, true where a query may look at a key, and broadcasts to `(batch, heads, queries, keys)`. One with
four axes may be floating: then it is a term of the scaled scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from .layers import shape_of

__all__ = ["bidirectional", "causal", "split_head_mask"]

Tensor: TypeAlias = tf.Tensor


def bidirectional(attention_mask: Tensor | None) -> Tensor | None:
    """The mask of an encoder, or of attention to an encoder.

    Args:
        attention_mask: `(batch, keys)`, `(batch, queries, keys)` or `(batch, 1 or heads, queries, keys)`, nonzero
            where a key may be looked at; a floating one with four axes is added to the scores.

    Raises:
        ValueError: another number of axes.
    """
    if attention_mask is None:
        return None
    num_axes = len(attention_mask.shape)
    if num_axes == 4 and attention_mask.dtype.is_floating:
        return attention_mask
    keep = tf.cast(attention_mask, tf.bool)
    if num_axes == 2:
        return keep[:, None, None]
    if num_axes == 3:
        return keep[:, None]
    if num_axes == 4:
        return keep
    raise ValueError(f"attention_mask must have 2, 3 or 4 axes; its shape is {attention_mask.shape}")


def causal(
    attention_mask: Tensor | None,
    num_queries: Any,
    num_keys: Any,
    start: Tensor | int = 0,
    window: int | None = None,
) -> Tensor | None:
    """The mask of a decoder's self-attention: no token looks at a later one, nor at padding.

    Args:
        attention_mask: `(batch, keys)`, of the past as well as the new tokens; what it leaves out of a preallocated
            cache comes later than any query. One with 3 or 4 axes is the whole mask: nothing is added to it.
        num_queries: new tokens.
        num_keys: keys that attention will see, unused places of a preallocated cache included.
        start: place of the first query among the keys.
        window: how many tokens one sees, itself included; None: all.

    Raises:
        ValueError: the mask is longer than there are keys.
    """
    if attention_mask is not None and len(attention_mask.shape) != 2:
        return bidirectional(attention_mask)
    places = tf.range(num_keys)
    own = (tf.range(num_queries) + start)[:, None]
    keep = places <= own
    if window is not None:
        keep &= places > own - window
    keep = keep[None, None]
    if attention_mask is None:
        return keep
    length = shape_of(attention_mask)[1]
    if isinstance(length, int) and isinstance(num_keys, int) and length > num_keys:
        raise ValueError(f"attention_mask is {length} long, and there are {num_keys} keys")
    fitting = tf.pad(tf.cast(attention_mask, tf.bool), ((0, 0), (0, num_keys - length)), constant_values=True)
    return keep & fitting[:, None, None]


def split_head_mask(head_mask: Tensor | None, num_layers: int) -> Sequence[Tensor | None]:
    """One mask per layer from `(heads,)` or `(layers, heads)`, each `(1, heads, 1, 1)`.

    Raises:
        ValueError: another shape.
    """
    if head_mask is None:
        return [None] * num_layers
    num_axes = len(head_mask.shape)
    if num_axes == 1:
        head_mask = tf.repeat(head_mask[None], num_layers, 0)
    if num_axes <= 2:
        head_mask = head_mask[:, None, :, None, None]
    if len(head_mask.shape) != 5 or head_mask.shape[0] != num_layers:
        raise ValueError(f"head_mask must be (heads,) or ({num_layers}, heads); its shape is {head_mask.shape}")
    return tf.unstack(head_mask)
