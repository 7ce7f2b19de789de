"""Scaled dot-product attention: one signature, several ways to compute it, each tested against "eager".

Arrays are `(batch, seq, heads, head_dim)`; keys and values may have fewer heads, each shared by a group of queries'.
"""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from ..errors import unknown_name
from .layers import dropout

__all__ = ["ATTENTION", "AttentionFunction", "attend", "distance_bias", "merge_heads", "register", "split_heads"]

Array = jax.Array


class AttentionFunction(Protocol):
    """What `register` takes.

    `query` `(batch, queries, heads, head_dim)`; `key` and `value` `(batch, keys, groups, head_dim)`, where groups
    divides heads and head `h` reads group `h // (heads / groups)`; `keep` boolean and `bias` a term of the scaled
    scores, each None or broadcastable to `(batch, heads, queries, keys)`.
    """

    def __call__(
        self, query: Array, key: Array, value: Array, keep: Array | None, bias: Array | None, scale: float
    ) -> Array:
        """The result, `(batch, queries, heads, head_dim)`."""


def split_heads(x: Array, head_dim: int) -> Array:
    """`(batch, seq, heads * head_dim)` as `(batch, seq, heads, head_dim)`."""
    return x.reshape(*x.shape[:-1], -1, head_dim)


def merge_heads(x: Array) -> Array:
    """`(batch, seq, heads, head_dim)` as `(batch, seq, heads * head_dim)`."""
    return x.reshape(*x.shape[:-2], -1)


def weights_of(query: Array, key: Array, keep: Array | None, bias: Array | None, scale: float) -> Array:
    """The weights of attention `(batch, heads, queries, keys)`, in float32 or better.

    A row in which everything is masked has equal weights.
    """
    batch, queries, heads, head_dim = query.shape
    keys, groups = key.shape[1], key.shape[2]
    wide = jnp.promote_types(query.dtype, jnp.float32)
    grouped = query.reshape(batch, queries, groups, heads // groups, head_dim)
    scores = jnp.einsum("bqgrd,bkgd->bgrqk", grouped, key, preferred_element_type=wide)
    scores = scores.reshape(batch, heads, queries, keys) * scale
    if bias is not None:
        scores = scores + bias.astype(wide)
    if keep is not None:
        scores = jnp.where(keep, scores, jnp.finfo(wide).min)
    return jax.nn.softmax(scores, -1)


def mix(weights: Array, value: Array) -> Array:
    """`(batch, queries, heads, head_dim)`: values added up by weights `(batch, heads, queries, keys)`."""
    batch, heads, queries, keys = weights.shape
    groups, head_dim = value.shape[2:]
    grouped = weights.reshape(batch, groups, heads // groups, queries, keys)
    return jnp.einsum("bgrqk,bkgd->bqgrd", grouped, value).reshape(batch, queries, heads, head_dim)


def eager(query: Array, key: Array, value: Array, keep: Array | None, bias: Array | None, scale: float) -> Array:
    """Attention as "Attention Is All You Need" writes it (arXiv 1706.03762)."""
    return mix(weights_of(query, key, keep, bias, scale).astype(query.dtype), value)


def sdpa(query: Array, key: Array, value: Array, keep: Array | None, bias: Array | None, scale: float) -> Array:
    """Attention by JAX's own function, which has fused kernels on some devices."""
    return jax.nn.dot_product_attention(query, key, value, bias, keep, scale=scale)


ATTENTION: dict[str, AttentionFunction] = {"eager": eager, "sdpa": sdpa}


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
    query: Array,
    key: Array,
    value: Array,
    keep: Array | None = None,
    *,
    scale: float,
    bias: Array | None = None,
    rate: float = 0.0,
    rng: Array | None = None,
    head_mask: Array | None = None,
    need_weights: bool = False,
) -> tuple[Array, Array | None]:
    """Attention by the function called `name`, "eager" if there is none; shapes as in `AttentionFunction`.

    A call that needs the weights, drops some of them, or multiplies them by a `head_mask`, is computed eagerly
    whatever the name.

    Returns:
        The result and the weights `(batch, heads, queries, keys)`, or None for those.

    Raises:
        ConfigError: no attention function has this name.
    """
    name = name or "eager"
    if name not in ATTENTION:
        raise unknown_name("attn_implementation", name, ATTENTION)
    if query.shape[2] == 0:  # all heads of the layer were pruned
        shape = (query.shape[0], 0, query.shape[1], key.shape[1])
        return query, jnp.zeros(shape, query.dtype) if need_weights else None
    is_dropped = rng is not None and rate > 0.0
    if not (need_weights or is_dropped or head_mask is not None):
        return ATTENTION[name](query, key, value, keep, bias, scale), None
    weights = dropout(weights_of(query, key, keep, bias, scale).astype(query.dtype), rate, rng)
    if head_mask is not None:
        weights = weights * head_mask.astype(weights.dtype)
    return mix(weights, value), weights if need_weights else None


def distance_bias(query: Array, key: Array, table: Array, *, by_key: bool = False, start: Array | int = 0) -> Array:
    """What a learned vector for each distance adds to the unscaled scores, `(batch, heads, queries, keys)`.

    Args:
        query: `(batch, queries, heads, head_dim)`.
        key: `(batch, keys, heads, head_dim)`.
        table: `(distances, head_dim)`, the middle row for 0 (Shaw et al., arXiv 1803.02155).
        by_key: whether the keys are multiplied by the vectors as well (Huang et al., arXiv 2009.13658).
        start: place of the first query among the keys.
    """
    own, places = jnp.arange(query.shape[1]) + start, jnp.arange(key.shape[1])
    vectors = table.astype(query.dtype)[own[:, None] - places + table.shape[0] // 2]
    bias = jnp.einsum("bqhd,qkd->bhqk", query, vectors)
    return bias + jnp.einsum("bkhd,qkd->bhqk", key, vectors) if by_key else bias


def updated(past: tuple[Array, Array], key: Array, value: Array, start: Array) -> tuple[Array, Array]:
    """Keys and values `(batch, length, groups, head_dim)` of a preallocated cache with new ones written at `start`."""
    keys, values = past
    zero = jnp.zeros((), start.dtype)
    place = (zero, start, zero, zero)
    return (
        lax.dynamic_update_slice(keys, key.astype(keys.dtype), place),
        lax.dynamic_update_slice(values, value.astype(values.dtype), place),
    )
