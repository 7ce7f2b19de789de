"""Scaled dot-product attention: one signature, several ways to compute it, each tested against "eager"."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import soft_cap, unknown_name

__all__ = [
    "ATTENTION",
    "AttentionFunction",
    "attend",
    "distance_bias",
    "eager",
    "merge_heads",
    "register",
    "sdpa",
    "split_heads",
]


class AttentionFunction(Protocol):
    """What `register` takes.

    Shapes: `query` `(batch, heads, queries, head_dim)`; `key` and `value` `(batch, groups, keys, head_dim)`, where
    groups divides heads and head `h` reads group `h // (heads / groups)`; `mask` `None` or additive, broadcastable to
    `(batch, heads, queries, keys)`. `dropout` is the probability to apply now, 0 outside of training. `causal` comes
    only without a mask and with as many queries as keys.

    Returns the result `(batch, heads, queries, head_dim)` and the weights `(batch, heads, queries, keys)` or `None`.
    """

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        scale: float,
        dropout: float,
        causal: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The result and the weights, or `None` for those."""
        ...


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """`(batch, seq, heads * head_dim)` as `(batch, heads, seq, head_dim)`, without a copy."""
    return x.unflatten(-1, (x.shape[-1] // head_dim, head_dim)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """`(batch, heads, seq, head_dim)` as `(batch, seq, heads * head_dim)`."""
    return x.transpose(1, 2).flatten(2)


def eager(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
    causal: bool = False,
    head_mask: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention as "Attention Is All You Need" writes it (arXiv 1706.03762); the weights are returned.

    `head_mask` multiplies the weights after dropout, as the reference has it; it broadcasts to their shape. `softcap`
    bends the scores before they are masked.
    """
    batch, heads, queries, _ = query.shape
    groups, keys = key.shape[1], key.shape[2]
    # The heads of one group share their keys: as more rows of one product, rather than as copies of the keys.
    rows = query.reshape(batch, groups, heads // groups * queries, -1)
    scores = (rows @ key.transpose(2, 3) * scale).view(batch, heads, queries, keys)
    scores = soft_cap(scores, softcap)
    if mask is not None:
        scores = scores + mask
    if causal:
        future = torch.ones(queries, keys, dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(future, torch.finfo(scores.dtype).min)
    wide = torch.promote_types(query.dtype, torch.float32)
    weights = F.dropout(scores.softmax(-1, dtype=wide).to(query.dtype), dropout)
    if head_mask is not None:
        weights = weights * head_mask
    out = weights.reshape(batch, groups, -1, keys) @ value
    return out.view(batch, heads, queries, -1), weights


def sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
    causal: bool = False,
) -> tuple[Tensor, None]:
    """Attention by torch's fused kernels, whichever fits; no weights."""
    grouped = key.shape[1] != query.shape[1]
    if grouped and query.shape[2] == 1:
        return _of_one_query(query, key, value, mask, scale, dropout), None
    if grouped and mask is not None and query.is_cuda:
        # On CUDA torch documents groups for the flash kernel, which takes no mask, and for the unfused one. With the
        # keys repeated the other fused kernels are candidates again.
        repeats = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )
    return out, None


def _of_one_query(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """`sdpa` of one token whose heads share keys: the heads of a group as so many queries.

    With groups of its own the kernel for the CPU takes 5 times as long in bfloat16, and that for CUDA wants no mask.
    """
    batch, heads, _, size = query.shape
    groups = key.shape[1]
    rows = query.reshape(batch, groups, heads // groups, size)
    if mask is not None and mask.shape[1] != 1:
        mask = mask.reshape(mask.shape[0], groups, heads // groups, mask.shape[-1])
    out = F.scaled_dot_product_attention(rows, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    return out.reshape(query.shape)


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
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
    causal: bool = False,
    need_weights: bool = False,
    head_mask: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Attention by the function called `name`, "sdpa" if there is none; shapes as in `AttentionFunction`.

    A call that needs the weights, multiplies them by a `head_mask` or bends scores by a `softcap` is computed by
    `eager` whatever the name: nothing else knows these.

    Raises:
        ConfigError: no attention function has this name.
    """
    assert mask is None or not causal
    name = name or "sdpa"
    if name not in ATTENTION:
        raise unknown_name("attn_implementation", name, ATTENTION)
    if query.shape[1] == 0:  # all heads of the layer were pruned
        return query, query.new_empty(query.shape[0], 0, query.shape[2], key.shape[2]) if need_weights else None
    settings: dict[str, Any] = {"scale": scale, "dropout": dropout, "causal": causal}
    if need_weights or head_mask is not None or softcap is not None:
        out, weights = eager(query, key, value, mask, **settings, head_mask=head_mask, softcap=softcap)
        return out, weights if need_weights or head_mask is not None else None
    return ATTENTION[name](query, key, value, mask, **settings)


def distance_bias(
    query: Tensor, key: Tensor, table: nn.Embedding, *, by_key: bool = False, positions: Tensor | None = None
) -> Tensor:
    """What a learned vector for each distance adds to the unscaled scores, `(batch, heads, queries, keys)`.

    Args:
        query: `(batch, heads, queries, head_dim)`.
        key: `(batch, heads, keys, head_dim)`.
        table: one row for each distance, the middle one for 0 (Shaw et al., arXiv 1803.02155).
        by_key: whether the keys are multiplied by the vectors as well (Huang et al., arXiv 2009.13658).
        positions: `(queries,)` places of the queries among the keys; `None`: they are the last ones.
    """
    places = torch.arange(key.shape[2], device=key.device)
    own = places[key.shape[2] - query.shape[2] :] if positions is None else positions
    vectors = table(own[:, None] - places + table.num_embeddings // 2)
    bias = torch.einsum("bhqd,qkd->bhqk", query, vectors)
    return bias + torch.einsum("bhkd,qkd->bhqk", key, vectors) if by_key else bias
