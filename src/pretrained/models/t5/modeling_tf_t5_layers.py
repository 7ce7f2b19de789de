"""The blocks of T5 (arXiv 1910.10683) and of its version 1.1 in TensorFlow, and stacks of them.

No position is added to the embeddings: a learned bias for each bucket of distances is added to the scores, in every
layer the one that the first layer holds. Scores are not scaled; the initial weights make up for it. Modules and
parameters have the names and layouts of torch's checkpoints. Shapes have the axes batch, seq, hidden.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...module_config import ModuleConfig
from ...tf.attention import attend, merge_heads, split_heads
from ...tf.blocks import Passed, run_blocks
from ...tf.kinds import Constant, Normal
from ...tf.kv_cache import Pair, Writing, extended, num_keys
from ...tf.layers import Embedding, Linear, Module, activation, dropout, folded, parameter, shape_of, value, wide_dtype
from ...tf.masks import split_head_mask
from .buckets import bucket_table
from .configuration_t5 import check_buckets

__all__ = ["TFT5Attention", "TFT5Block", "TFT5LayerNorm", "TFT5Stack", "relative_buckets"]

Tensor: TypeAlias = tf.Tensor


def relative_buckets(distance: Tensor, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """The bucket of each distance (place of the key less that of the query), in the shape of `distance`.

    Bidirectional attention has one half of the buckets for each side, any other has all for the past.
    """
    if bidirectional:
        num_buckets //= 2
    table = tf.constant(bucket_table(num_buckets, max_distance))
    past = tf.abs(distance) if bidirectional else tf.maximum(-distance, 0)
    bucket = tf.gather(table, tf.minimum(past, max_distance))
    return bucket + tf.where(distance > 0, num_buckets, 0) if bidirectional else bucket


class TFT5LayerNorm(Module):
    """Division by the root mean square, then a learned scale; no bias, no mean."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.weight = parameter((config.d_model,), Constant(config.initializer_factor))
        self.eps = config.layer_norm_epsilon

    def call(self, x: Tensor, dtype: Any) -> Tensor:
        """`(…, hidden)` normalised, in `dtype`; the statistics are float32 or better."""
        wide = tf.cast(x, wide_dtype(x))
        wide = wide * tf.math.rsqrt(tf.reduce_mean(tf.square(wide), -1, keepdims=True) + self.eps)
        return value(self.weight, dtype) * tf.cast(wide, dtype)


class TFT5DenseActDense(Module):
    """The feed-forward part; in a gated one (arXiv 2002.05202) one projection is multiplied by another."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        factor, size, wide = config.initializer_factor, config.d_model, config.d_ff
        init = Normal(factor * size**-0.5)
        if config.is_gated_act:
            self.wi_0 = Linear(size, wide, bias=False, init=init)
            self.wi_1 = Linear(size, wide, bias=False, init=init)
        else:
            self.wi = Linear(size, wide, bias=False, init=init)
        self.wo = Linear(wide, size, bias=False, init=Normal(factor * wide**-0.5))
        self.act = activation(config.dense_act_fn)

    def call(self, x: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, seq, hidden)`; float32 of float16, in which the last projection overflows."""
        inner = self.act(self.wi_0(x)) * self.wi_1(x) if self.config.is_gated_act else self.act(self.wi(x))
        return self.wo(_roomy(dropout(inner, self.config.dropout_rate, rng)))


def _roomy(x: Tensor) -> Tensor:
    """`x`, as float32 if it is float16: sums of what T5's layers give leave that dtype's range."""
    return tf.cast(x, tf.float32) if x.dtype == tf.float16 else x


class TFT5LayerFF(Module):
    """The feed-forward part with its norm, added to its input."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.DenseReluDense = TFT5DenseActDense(config)
        self.layer_norm = TFT5LayerNorm(config)

    def call(self, hidden_states: Tensor, dtype: Any, rng: Tensor | None = None) -> Tensor:
        """`(batch, seq, hidden)`."""
        made = self.DenseReluDense(self.layer_norm(hidden_states, dtype), folded(rng, 0))
        return hidden_states + dropout(made, self.config.dropout_rate, rng, 1)


class TFT5Attention(Module):
    """Attention to the sequence itself, where heads may be pruned, or to an encoder's output.

    The first layer of a stack has the bias of distances, of all heads it had at first.
    """

    def __init__(self, config: ModuleConfig, layer_idx: int, is_decoder: bool, is_crossed: bool = False) -> None:
        super().__init__()
        self.config, self.layer_idx, self.is_decoder = config, layer_idx, is_decoder
        total, factor, size = config.num_attention_heads, config.initializer_factor, config.d_model
        gone = () if is_crossed else tuple((config.pruned_heads or {}).get(layer_idx, ()))
        self.kept = tuple(head for head in range(total) if head not in gone)
        inner, init = len(self.kept) * config.d_kv, Normal(factor * size**-0.5)
        self.q = Linear(size, inner, bias=False, init=Normal(factor * (size * config.d_kv) ** -0.5))
        self.k = Linear(size, inner, bias=False, init=init)
        self.v = Linear(size, inner, bias=False, init=init)
        self.o = Linear(inner, size, bias=False, init=Normal(factor * (total * config.d_kv) ** -0.5))
        if layer_idx == 0 and not is_crossed:
            check_buckets(config, is_decoder)
            self.relative_attention_bias = Embedding(config.relative_attention_num_buckets, total, init=init)

    def keys_and_values(self, states: Tensor) -> Pair:
        """Both `(batch, seq, heads, head_dim)`."""
        return split_heads(self.k(states), self.config.d_kv), split_heads(self.v(states), self.config.d_kv)

    def position_bias(self, num_queries: Any, num_keys: Any, start: Tensor | int) -> Tensor:
        """What is added to the scores, `(1, heads, queries, keys)`, for queries from `start` on."""
        config = self.config
        distance = tf.range(num_keys) - (tf.range(num_queries) + start)[:, None]
        sizes = config.relative_attention_num_buckets, config.relative_attention_max_distance
        bias = self.relative_attention_bias(relative_buckets(distance, not self.is_decoder, *sizes))
        return tf.transpose(bias, (2, 0, 1))[None]

    def call(
        self,
        hidden_states: Tensor,
        pair: Pair,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        head_mask: Tensor | None = None,
        need_weights: bool = False,
        rng: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights; `pair` is what `keys_and_values` gave."""
        if bias is not None and len(self.kept) < bias.shape[1]:
            bias = tf.gather(bias, tf.constant(self.kept, tf.int32), axis=1)
        out, weights = attend(
            self.config._attn_implementation,
            split_heads(self.q(hidden_states), self.config.d_kv),
            *pair,
            mask,
            scale=1.0,
            bias=bias,
            rate=self.config.dropout_rate,
            rng=rng,
            head_mask=head_mask,
            need_weights=need_weights,
        )
        return self.o(merge_heads(out)), weights


class TFT5LayerSelfAttention(Module):
    """Attention to the sequence itself with its norm, added to its input."""

    def __init__(self, config: ModuleConfig, layer_idx: int, is_decoder: bool) -> None:
        super().__init__()
        self.config = config
        self.SelfAttention = TFT5Attention(config, layer_idx, is_decoder)
        self.layer_norm = TFT5LayerNorm(config)

    def call(
        self, hidden_states: Tensor, dtype: Any, cache: Writing | None, rng: Tensor | None = None, **inputs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and weights; keywords as `TFT5Attention` has them."""
        own, normed = self.SelfAttention, self.layer_norm(hidden_states, dtype)
        pair = extended(cache, own.layer_idx, *own.keys_and_values(normed))
        attended, weights = own(normed, pair, rng=folded(rng, 0), **inputs)
        attended = tf.cast(attended, hidden_states.dtype)
        return hidden_states + dropout(attended, self.config.dropout_rate, rng, 1), weights


class TFT5LayerCrossAttention(Module):
    """Attention to the encoder's output with its norm, added to its input."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.EncDecAttention = TFT5Attention(config, layer_idx, is_decoder=True, is_crossed=True)
        self.layer_norm = TFT5LayerNorm(config)

    def call(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None,
        dtype: Any,
        cache: Writing | None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and weights; keywords as `TFT5Attention` has them."""
        own = self.EncDecAttention
        make = self._pair_of(encoder_hidden_states)
        pair = make() if cache is None else cache.crossed(own.layer_idx, make)
        attended, weights = own(self.layer_norm(hidden_states, dtype), pair, rng=folded(rng, 0), **inputs)
        attended = tf.cast(attended, hidden_states.dtype)
        return hidden_states + dropout(attended, self.config.dropout_rate, rng, 1), weights

    def _pair_of(self, states: Tensor | None) -> Any:
        def make() -> Pair:
            if states is None:
                raise ValueError("give encoder_outputs: the decoder attends to them, and the cache has none of them")
            return self.EncDecAttention.keys_and_values(states)

        return make


class TFT5Block(Module):
    """One block: attention, in a decoder attention to the encoder, feed-forward."""

    def __init__(self, config: ModuleConfig, layer_idx: int, is_decoder: bool) -> None:
        super().__init__()
        self.layer_idx, self.is_decoder = layer_idx, is_decoder
        crossed = [TFT5LayerCrossAttention(config, layer_idx)] if is_decoder else []
        own = TFT5LayerSelfAttention(config, layer_idx, is_decoder)
        self.layer = [own, *crossed, TFT5LayerFF(config)]

    def call(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_mask: Tensor | None = None,
        cross_head_masks: Any = (),
        cache: Writing | None = None,
        dtype: Any = None,
        need_weights: bool = False,
        rng: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`(batch, seq, hidden)`, the weights of self-attention and those of cross-attention, or None."""
        shared = {"dtype": dtype, "cache": cache, "need_weights": need_weights}
        hidden_states, weights = self.layer[0](
            hidden_states, mask=mask, bias=bias, head_mask=head_mask, rng=folded(rng, 0), **shared
        )
        cross_weights = None
        if self.is_decoder:
            hidden_states, cross_weights = self.layer[1](
                hidden_states,
                encoder_hidden_states,
                mask=encoder_mask,
                head_mask=cross_head_masks[self.layer_idx],
                rng=folded(rng, 1),
                **shared,
            )
        return self.layer[-1](hidden_states, dtype, folded(rng, 2)), weights, cross_weights


class TFT5Stack(Module):
    """An encoder, or a decoder that attends to one."""

    def __init__(self, config: ModuleConfig, is_decoder: bool = False) -> None:
        super().__init__()
        self.config = config
        num_layers = config.num_decoder_layers if is_decoder else config.num_layers
        self.block = [TFT5Block(config, index, is_decoder) for index in range(num_layers)]
        self.final_layer_norm = TFT5LayerNorm(config)

    def call(
        self,
        embeddings: Tensor,
        cross_attn_head_mask: Tensor | None = None,
        cache: Writing | None = None,
        output_hidden_states: bool = False,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> Passed:
        """Hidden states `(batch, seq, hidden)`, the last of them normalised, in the dtype of the embeddings.

        `inputs` are those of `run_blocks` and of `TFT5Block`.
        """
        dtype, num_new, rate = embeddings.dtype, shape_of(embeddings)[1], self.config.dropout_rate
        start = 0 if cache is None else cache.start
        bias = self.block[0].layer[0].SelfAttention.position_bias(num_new, num_keys(cache, num_new), start)
        passed = run_blocks(
            self.config,
            self.block,
            _roomy(dropout(embeddings, rate, rng, 0)),
            output_hidden_states=output_hidden_states,
            rng=folded(rng, 1),
            bias=bias,
            cross_head_masks=tuple(split_head_mask(cross_attn_head_mask, len(self.block))),
            cache=cache,
            dtype=dtype,
            **inputs,
        )
        last = dropout(self.final_layer_norm(passed.last, dtype), rate, rng, 2)
        states = None if passed.states is None else (*passed.states[:-1], last)
        return passed._replace(last=last, states=states)
