"""Scaled dot-product attention: one signature, several ways to compute it, each tested against "eager".

Tensors are `(batch, seq, heads, head_dim)`; keys and values may have fewer heads, each shared by a group of queries'.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import tensorflow as tf

from ..errors import unknown_name
from .layers import dropout, shape_of, value, wide_dtype

__all__ = [
    "ATTENTION", "AttentionFunction", "attend", "by_head", "distance_bias", "merge_heads", "register", "split_heads",
]  # fmt: skip

Tensor: TypeAlias = tf.Tensor


class AttentionFunction(Protocol):
    """What `register` takes.

    `query` `(batch, queries, heads, head_dim)`; `key` and `value` `(batch, keys, groups, head_dim)`, where groups
    divides heads and head `h` reads group `h // (heads / groups)`; `keep` boolean and `bias` a term of the scaled
    scores, each None or broadcastable to `(batch, heads, queries, keys)`.
    """

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, bias: Tensor | None, scale: float
    ) -> Tensor:
        """The result, `(batch, queries, heads, head_dim)`."""


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """`(batch, seq, heads * head_dim)` as `(batch, seq, heads, head_dim)`."""
    *sizes, width = shape_of(x)
    return tf.reshape(x, (*sizes, width // head_dim, head_dim))


def merge_heads(x: Tensor) -> Tensor:
    """`(batch, seq, heads, head_dim)` as `(batch, seq, heads * head_dim)`."""
    *sizes, heads, head_dim = shape_of(x)
    return tf.reshape(x, (*sizes, heads * head_dim))


def by_head(x: Tensor) -> Tensor:
    """`(batch, seq, heads, head_dim)` as `(batch * heads, seq, head_dim)`.

    Products of matrices are written with this one axis in front, as a cache has it while tokens follow one another: of
    a cache that is reshaped between the writing and the product, XLA would make a copy for each token.
    """
    batch, seq, heads, head_dim = shape_of(x)
    return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (batch * heads, seq, head_dim))


def weights_of(query: Tensor, key: Tensor, keep: Tensor | None, bias: Tensor | None, scale: float) -> Tensor:
    """The weights of attention `(batch, heads, queries, keys)`, in float32 or better.

    A row in which everything is masked has equal weights.
    """
    batch, queries, heads, head_dim = shape_of(query)
    keys, groups = shape_of(key)[1:3]
    wide = wide_dtype(query)
    by_group = tf.reshape(by_head(query), (batch * groups, (heads // groups) * queries, head_dim))
    scores = tf.cast(tf.matmul(by_group, by_head(key), transpose_b=True), wide) * scale
    scores = tf.reshape(scores, (batch, heads, queries, keys))
    if bias is not None:
        scores = scores + tf.cast(bias, wide)
    if keep is not None:
        scores = tf.where(keep, scores, wide.min)
    return tf.nn.softmax(scores, -1)


def mix(weights: Tensor, value: Tensor) -> Tensor:
    """`(batch, queries, heads, head_dim)`: values added up by weights `(batch, heads, queries, keys)`."""
    batch, heads, queries, keys = shape_of(weights)
    groups, head_dim = shape_of(value)[2:]
    by_group = tf.reshape(weights, (batch * groups, (heads // groups) * queries, keys))
    mixed = tf.reshape(tf.matmul(by_group, by_head(value)), (batch, heads, queries, head_dim))
    return tf.transpose(mixed, (0, 2, 1, 3))


def eager(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, bias: Tensor | None, scale: float) -> Tensor:
    """Attention as "Attention Is All You Need" writes it (arXiv 1706.03762)."""
    return mix(tf.cast(weights_of(query, key, keep, bias, scale), query.dtype), value)


# TensorFlow has no attention of its own; what fuses its steps is XLA, whatever the name.
ATTENTION: dict[str, AttentionFunction] = {"eager": eager, "sdpa": eager}


def register(name: str, function: AttentionFunction, exist_ok: bool = False) -> None:
    """Makes `attn_implementation=name` mean `function` from now on.

    Raises:
        ValueError: the name is taken and `exist_ok` is false.
    """
    if name in ATTENTION and not exist_ok:
        raise ValueError(f"attention {name!r} is registered already; pass exist_ok=True to replace it")
    ATTENTION[name] = function


def attend(
    name: str | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor | None = None,
    *,
    scale: float,
    bias: Tensor | None = None,
    rate: float = 0.0,
    rng: Tensor | None = None,
    head_mask: Tensor | None = None,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention by the function called `name`, "eager" if there is none; shapes as in `AttentionFunction`.

    A `keep` that is floating is another term of the scaled scores.
    A call that needs the weights, drops some of them, or multiplies them by a `head_mask`, is computed eagerly
    whatever the name.

    Returns:
        The result and the weights `(batch, heads, queries, keys)`, or None for those.

    Raises:
        ConfigError: no attention function has this name.
    """
    if keep is not None and keep.dtype.is_floating:
        bias = keep if bias is None else keep + tf.cast(bias, keep.dtype)
        keep = None
    name = name or "eager"
    if name not in ATTENTION:
        raise unknown_name("attn_implementation", name, ATTENTION)
    if query.shape[2] == 0:  # all heads of the layer were pruned
        shape = (shape_of(query)[0], 0, shape_of(query)[1], shape_of(key)[1])
        return query, tf.zeros(shape, query.dtype) if need_weights else None
    is_dropped = rng is not None and rate > 0.0
    if not (need_weights or is_dropped or head_mask is not None):
        return ATTENTION[name](query, key, value, keep, bias, scale), None
    weights = dropout(tf.cast(weights_of(query, key, keep, bias, scale), query.dtype), rate, rng)
    if head_mask is not None:
        weights = weights * tf.cast(head_mask, weights.dtype)
    return mix(weights, value), weights if need_weights else None


def distance_bias(query: Tensor, key: Tensor, table: Any, *, by_key: bool = False, start: Tensor | int = 0) -> Tensor:
    """What a learned vector for each distance adds to the unscaled scores, `(batch, heads, queries, keys)`.

    Args:
        query: `(batch, queries, heads, head_dim)`.
        key: `(batch, keys, heads, head_dim)`.
        table: variable `(distances, head_dim)`, the middle row for 0 (Shaw et al., arXiv 1803.02155).
        by_key: whether the keys are multiplied by the vectors as well (Huang et al., arXiv 2009.13658).
        start: place of the first query among the keys.
    """
    own, places = tf.range(shape_of(query)[1]) + start, tf.range(shape_of(key)[1])
    distances = own[:, None] - places + table.shape[0] // 2
    vectors = tf.gather(value(table, query.dtype), distances)
    bias = tf.einsum("bqhd,qkd->bhqk", query, vectors)
    return bias + tf.einsum("bkhd,qkd->bhqk", key, vectors) if by_key else bias
