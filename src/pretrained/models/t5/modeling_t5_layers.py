"""The blocks of T5 (arXiv 1910.10683) and of its version 1.1; stacks of them are in modeling_t5_stacks.

No position is added to the embeddings: a learned bias for each bucket of distances is added to the scores, in every
layer the one that the first layer holds. Scores are not scaled; the initial weights make up for it. Modules and
parameters have the names of the checkpoints. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...pt import masks
from ...pt.attention import attend, merge_heads, split_heads
from ...pt.heads import prune_linears
from ...pt.kv_cache import EncoderDecoderKVCache
from ...pt.layers import activation
from .configuration_t5 import T5Config, check_buckets

__all__ = ["T5Attention", "T5Block", "T5LayerNorm", "relative_buckets"]


def relative_buckets(distance: Tensor, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """The bucket of each distance (place of the key less that of the query), in the shape of `distance`.

    Half of the buckets are for single distances, the other half for ranges that grow with the logarithm; the last has
    all from `max_distance` on. Bidirectional attention has one such set for each side, any other only for the past.

    Source: Mesh TensorFlow, `_relative_position_bucket`.
    """
    if bidirectional:
        num_buckets //= 2
        side = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        side = torch.zeros_like(distance)
        distance = (-distance).clamp(min=0)
    exact = num_buckets // 2
    # In this order, and in float32: at the edges of the ranges another rounding is another bucket.
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    ranged = exact + (growth * (num_buckets - exact)).long()
    return side + torch.where(distance < exact, distance, ranged.clamp(max=num_buckets - 1))


def _finite(x: Tensor) -> Tensor:
    """`x` with its infinities brought back: sums of a float16 model may leave the dtype's range. Others as they are."""
    if x.dtype != torch.float16:
        return x
    largest = torch.finfo(x.dtype).max
    limit = torch.where(x.isinf().any(), largest - 1000, largest)
    return x.clamp(min=-limit, max=limit)


class T5LayerNorm(nn.Module):
    """Division by the root mean square, then a learned scale; no bias, no mean. Its dtype is that of the scale.

    So a stream that is float32 because `wo` is (see `_keep_in_fp32_modules`) is float16 again before the next layer.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.variance_epsilon = eps
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the scale to 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`(…, size)` normalised; the statistics are float32 or better."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(self.weight.dtype)


class T5DenseActDense(nn.Module):
    """The feed-forward part."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.act = activation(cast(str, config.dense_act_fn))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`, in the dtype of `wo`."""
        return _project(self.wo, self.dropout(self.act(self.wi(hidden_states))))


class T5DenseGatedActDense(nn.Module):
    """The feed-forward part, one projection gating the other (arXiv 2002.05202)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.act = activation(cast(str, config.dense_act_fn))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`, in the dtype of `wo`."""
        return _project(self.wo, self.dropout(self.act(self.wi_0(hidden_states)) * self.wi_1(hidden_states)))


def _project(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)`; a layer that was kept in float32 takes float32. One whose weights are integers takes what comes."""
    weight = layer.weight
    return layer(x.to(weight.dtype) if weight.dtype.is_floating_point else x)


class T5LayerFF(nn.Module):
    """The feed-forward part with its norm, added to its input."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = (T5DenseGatedActDense if config.is_gated_act else T5DenseActDense)(config)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`."""
        return hidden_states + self.dropout(self.DenseReluDense(self.layer_norm(hidden_states)))


class T5Attention(nn.Module):
    """Attention to the sequence itself or to an encoder's output; in a first layer with the bias of distances."""

    def __init__(self, config: T5Config, layer_idx: int, is_decoder: bool, has_bias: bool = False) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_decoder = is_decoder
        self.num_heads = config.num_heads
        self.head_dim = config.d_kv
        self.pruned_heads: set[int] = set()
        inner = config.num_heads * config.d_kv
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        self.has_relative_attention_bias = has_bias
        if has_bias:
            check_buckets(config, is_decoder)
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`(batch, seq, hidden)`, the weights `(batch, heads, queries, keys)` if asked for, and the mask.

        The mask that comes back has the bias of distances in it, for the layers that have none of their own.
        """
        query = split_heads(self.q(hidden_states), self.head_dim)
        if encoder_hidden_states is None:
            key, value = self._keys_and_values(hidden_states)
            if isinstance(past_key_values, EncoderDecoderKVCache):
                past_key_values = past_key_values.self_attention
            if past_key_values is not None:
                key, value = past_key_values.update(self.layer_idx, key, value, cache_position)
        else:
            key, value = self._encoder_keys_and_values(encoder_hidden_states, past_key_values)
        if self.has_relative_attention_bias:
            mask = masks.add_bias(mask, self.position_bias(key.shape[2], cast(Tensor, cache_position)))
        out, weights = attend(
            self.config._attn_implementation,
            query,
            key,
            value,
            self._of_kept_heads(mask),
            scale=1.0,
            dropout=self.config.dropout_rate if self.training else 0.0,
            need_weights=need_weights,
            head_mask=head_mask,
        )
        return self.o(merge_heads(out)), weights, mask

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Takes heads out; they keep the numbers they had at first. The bias of distances stays that of all."""
        prune_linears(self, heads, (self.q, self.k, self.v), self.o)

    def position_bias(self, num_keys: int, positions: Tensor) -> Tensor:
        """What is added to the scores, `(1, heads, queries, keys)`, for queries at `positions` `(queries,)`."""
        distance = torch.arange(num_keys, device=positions.device) - positions[:, None]
        config = self.config
        buckets = relative_buckets(
            distance,
            not self.is_decoder,
            config.relative_attention_num_buckets,
            config.relative_attention_max_distance,
        )
        # Every layer reads it: in the order in which attention does.
        return self.relative_attention_bias(buckets).permute(2, 0, 1).contiguous()[None]

    def _of_kept_heads(self, mask: Tensor | None) -> Tensor | None:
        """The part of a mask that concerns the heads left here: the bias of distances is that of all heads."""
        total = self.num_heads + len(self.pruned_heads)
        if mask is None or not self.pruned_heads or mask.shape[1] != total:
            return mask
        return mask[:, [head for head in range(total) if head not in self.pruned_heads]]

    def _keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.k(states), self.head_dim), split_heads(self.v(states), self.head_dim)

    def _encoder_keys_and_values(self, states: Tensor, past: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output, computed once for all steps that share a cache."""
        if past is not None and self.layer_idx < len(past.cross_attention):
            return past.cross_attention[self.layer_idx]
        key, value = self._keys_and_values(states)
        return (key, value) if past is None else past.cross_attention.update(self.layer_idx, key, value)


class T5LayerSelfAttention(nn.Module):
    """Attention to the sequence itself with its norm, added to its input."""

    def __init__(self, config: T5Config, layer_idx: int, is_decoder: bool, has_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(config, layer_idx, is_decoder, has_bias)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`(batch, seq, hidden)`, weights and mask; keywords as `T5Attention.forward` has them."""
        attended, weights, mask = self.SelfAttention(self.layer_norm(hidden_states), **inputs)
        return hidden_states + self.dropout(attended), weights, mask


class T5LayerCrossAttention(nn.Module):
    """Attention to the encoder's output with its norm, added to its input."""

    def __init__(self, config: T5Config, layer_idx: int) -> None:
        super().__init__()
        self.EncDecAttention = T5Attention(config, layer_idx, is_decoder=True)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and weights; keywords as `T5Attention.forward` has them."""
        attended, weights, _ = self.EncDecAttention(self.layer_norm(hidden_states), **inputs)
        return hidden_states + self.dropout(attended), weights


class T5Block(nn.Module):
    """One block: attention, in a decoder attention to the encoder, feed-forward."""

    def __init__(self, config: T5Config, layer_idx: int, is_decoder: bool) -> None:
        super().__init__()
        self.is_decoder = is_decoder
        self.layer = nn.ModuleList([T5LayerSelfAttention(config, layer_idx, is_decoder, has_bias=layer_idx == 0)])
        if is_decoder:
            self.layer.append(T5LayerCrossAttention(config, layer_idx))
        self.layer.append(T5LayerFF(config))

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Takes heads out of the attention to the sequence itself; attention to the encoder keeps its own."""
        cast(T5LayerSelfAttention, self.layer[0]).SelfAttention.prune_heads(heads)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_mask: Tensor | None = None,
        cross_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """`(batch, seq, hidden)`, weights of self-attention and of cross-attention, and the mask with the bias."""
        hidden_states, weights, mask = self.layer[0](
            hidden_states,
            mask=mask,
            head_mask=head_mask,
            past_key_values=past_key_values,
            cache_position=cache_position,
            need_weights=need_weights,
        )
        hidden_states = _finite(hidden_states)
        cross_weights = None
        if self.is_decoder and encoder_hidden_states is not None:
            hidden_states, cross_weights = self.layer[1](
                hidden_states,
                mask=encoder_mask,
                head_mask=cross_head_mask,
                encoder_hidden_states=encoder_hidden_states,
                past_key_values=past_key_values,
                need_weights=need_weights,
            )
            hidden_states = _finite(hidden_states)
        return _finite(self.layer[-1](hidden_states)), weights, cross_weights, mask
