"""Attention masks: from what callers pass to what attention adds to its scores, or to nothing where nothing is masked.

Masks are combined as booleans (true: may look) and become numbers once, at the end, so that two of them never add up
to an infinity. The number is the least finite one of the dtype: a row in which everything is masked has equal weights
instead of NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["add_bias", "additive", "bidirectional", "causal", "causal_over", "is_trivial", "split_head_mask"]


def additive(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `keep` is true and the least finite number of `dtype` where it is false, in the shape of `keep`."""
    return torch.zeros_like(keep, dtype=dtype).masked_fill(keep.logical_not(), torch.finfo(dtype).min)


def add_bias(mask: Tensor | None, bias: Tensor) -> Tensor:
    """A mask and another term of the scores as one, finite still: a row of infinities would become NaN."""
    return bias if mask is None else (bias + mask).clamp(min=torch.finfo(bias.dtype).min)


def is_trivial(mask: Tensor) -> bool:
    """Whether a mask is seen to mask nothing. While a graph is being recorded values are unknown: then false."""
    recording = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if recording or type(mask) is not Tensor or mask.is_meta:
        return False
    return bool(mask.all())


def _given(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A caller's 3-D or 4-D mask as an additive one; a floating 4-D mask is additive already."""
    if mask.dim() == 4 and mask.is_floating_point():
        return mask.to(dtype)
    if mask.dim() not in (3, 4):
        raise ValueError(f"attention_mask must have 2, 3 or 4 axes; its shape is {tuple(mask.shape)}")
    keep = mask != 0
    return additive(keep if mask.dim() == 4 else keep[:, None], dtype)


def bidirectional(attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The mask of an encoder, or of attention to an encoder.

    Args:
        attention_mask: `(batch, keys)` or `(batch, queries, keys)`, nonzero where a key may be looked at;
            `(batch, 1 or heads, queries, keys)` likewise, or additive when it is floating.
        dtype: that of the scores.

    Returns:
        An additive mask that broadcasts to `(batch, heads, queries, keys)`, or `None` when nothing is masked.
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2:
        return _given(attention_mask, dtype)
    if is_trivial(attention_mask):
        return None
    return additive((attention_mask != 0)[:, None, None], dtype)


def causal(
    attention_mask: Tensor | None,
    *,
    query_length: int,
    key_length: int,
    dtype: torch.dtype,
    device: torch.device,
    positions: Tensor | None = None,
    explicit: bool = False,
    window: int | None = None,
    both_ways: bool = False,
) -> tuple[Tensor | None, bool]:
    """The mask of a decoder's self-attention: no token looks at a later one, nor at padding.

    Args:
        attention_mask: as for `bidirectional`; a 2-D one covers the past as well as the new tokens. One with 3 or 4
            axes is the whole mask: nothing is added to it.
        query_length: number of new tokens.
        key_length: number of keys attention will see, past ones included.
        dtype: that of the scores.
        device: where the mask is to be.
        positions: `(queries,)` places of the new tokens among the keys. `None`: they are the last ones.
        explicit: whether the future is always masked by the mask, for attention that adds something to it.
        window: how many tokens one sees, itself included; `None`: all.
        both_ways: whether a token sees as many later ones too, as an encoder's do.

    Returns:
        An additive mask that broadcasts to `(batch, heads, queries, keys)` or `None`, and whether attention is to
        mask the future itself (then there is no mask, and there are as many queries as keys).
    """
    if attention_mask is not None and attention_mask.dim() != 2:
        return _given(attention_mask, dtype), False
    if attention_mask is not None:
        attention_mask = _fit(attention_mask, key_length, may_grow=positions is not None)
        if is_trivial(attention_mask):
            attention_mask = None
    if window is not None and window >= key_length:
        window = None
    if attention_mask is None and positions is None and window is None:
        if query_length == 1 or both_ways:
            return None, False
        if query_length == key_length and not explicit:
            return None, True
    places = torch.arange(key_length, device=device)
    own = places[key_length - query_length :] if positions is None else positions
    keep = (places <= own.max() if both_ways else places <= own[:, None])[None, None]
    if window is not None:
        keep = keep & (places > own[:, None] - window)
        if both_ways:
            keep = keep & (places < own[:, None] + window)
    if attention_mask is not None:
        keep = keep & (attention_mask != 0)[:, None, None].to(device)
    return additive(keep, dtype), False


def causal_over(
    cache: Any,
    attention_mask: Tensor | None,
    states: Tensor,
    cache_position: Tensor,
    explicit: bool = False,
    window: int | None = None,
    both_ways: bool = False,
) -> tuple[Tensor | None, bool]:
    """`causal` for new tokens `states` `(batch, new, hidden)` at `cache_position` `(new,)` of a cache, or of none."""
    num_new = states.shape[1]
    key_length = num_new if cache is None else cache.key_length(num_new, window)
    if window is not None and attention_mask is not None and attention_mask.dim() == 2:
        attention_mask = attention_mask[:, -key_length:]  # a sliding cache has forgotten what came before
    return causal(
        attention_mask,
        query_length=num_new,
        key_length=key_length,
        dtype=states.dtype,
        device=states.device,
        positions=cache_position if cache is not None and cache.preallocated else None,
        explicit=explicit,
        window=window,
        both_ways=both_ways,
    )


def _fit(mask: Tensor, key_length: int, may_grow: bool) -> Tensor:
    """A 2-D mask as long as the keys. Of a preallocated cache the unused rest may be left out."""
    missing = key_length - mask.shape[1]
    if missing == 0:
        return mask
    if missing > 0 and may_grow:
        return torch.nn.functional.pad(mask, (0, missing))
    raise ValueError(
        f"attention_mask is {mask.shape[1]} long, expected {key_length}: it covers the cached tokens and the new ones"
    )


def split_head_mask(head_mask: Tensor | None, num_layers: int) -> Sequence[Tensor | None]:
    """One mask per layer from `(heads,)` or `(layers, heads)`, each `(1, heads, 1, 1)`; 5-D ones are indexed only."""
    if head_mask is None:
        return [None] * num_layers
    if head_mask.dim() == 1:
        head_mask = head_mask.expand(num_layers, -1)
    if head_mask.dim() == 2:
        head_mask = head_mask[:, None, :, None, None]
    if head_mask.dim() != 5 or len(head_mask) != num_layers:
        raise ValueError(f"head_mask must be (heads,) or ({num_layers}, heads); its shape is {tuple(head_mask.shape)}")
    return list(head_mask)
