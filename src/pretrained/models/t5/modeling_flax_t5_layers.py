"""The blocks of T5 (arXiv 1910.10683) and of its version 1.1 in JAX, and stacks of them.

No position is added to the embeddings: a learned bias for each bucket of distances is added to the scores, in every
layer the one that the first layer holds. Scores are not scaled; the initial weights make up for it. Modules and
parameters have the names and layouts of torch's checkpoints. Shapes have the axes batch, seq, hidden.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...flax.attention import attend, merge_heads, split_heads
from ...flax.blocks import Passed, run_blocks
from ...flax.kinds import Constant, Normal
from ...flax.kv_cache import Pair, Writing, extended, num_keys
from ...flax.layers import Embedding, Linear, Module, Modules, activation, dropout, folded, parameter
from ...flax.masks import split_head_mask
from ...flax.module_config import ModuleConfig
from .buckets import bucket_table
from .configuration_t5 import check_buckets

__all__ = ["FlaxT5Attention", "FlaxT5Block", "FlaxT5LayerNorm", "FlaxT5Stack", "relative_buckets"]

Array = jax.Array


def relative_buckets(distance: Array, bidirectional: bool, num_buckets: int, max_distance: int) -> Array:
    """The bucket of each distance (place of the key less that of the query), in the shape of `distance`.

    Bidirectional attention has one half of the buckets for each side, any other has all for the past.
    """
    if bidirectional:
        num_buckets //= 2
    table = jnp.asarray(bucket_table(num_buckets, max_distance))
    past = jnp.abs(distance) if bidirectional else jnp.maximum(-distance, 0)
    bucket = table[jnp.minimum(past, max_distance)]
    return bucket + jnp.where(distance > 0, num_buckets, 0) if bidirectional else bucket


class FlaxT5LayerNorm(Module):
    """Division by the root mean square, then a learned scale; no bias, no mean."""

    def __init__(self, config: ModuleConfig) -> None:
        self.weight = parameter((config.d_model,), Constant(config.initializer_factor))
        self.eps = config.layer_norm_epsilon

    def __call__(self, x: Array, dtype: Any) -> Array:
        """`(…, hidden)` normalised, in `dtype`; the statistics are float32 or better."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.eps)
        return self.weight[...].astype(dtype) * wide.astype(dtype)


class FlaxT5DenseActDense(Module):
    """The feed-forward part; in a gated one (arXiv 2002.05202) one projection is multiplied by another."""

    def __init__(self, config: ModuleConfig) -> None:
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

    def __call__(self, x: Array, rng: Array | None = None) -> Array:
        """`(batch, seq, hidden)`; float32 of float16, in which the last projection overflows."""
        inner = self.act(self.wi_0(x)) * self.wi_1(x) if self.config.is_gated_act else self.act(self.wi(x))
        return self.wo(_roomy(dropout(inner, self.config.dropout_rate, rng)))


def _roomy(x: Array) -> Array:
    """`x`, as float32 if it is float16: sums of what T5's layers give leave that dtype's range."""
    return x.astype(jnp.float32) if x.dtype == jnp.float16 else x


class FlaxT5LayerFF(Module):
    """The feed-forward part with its norm, added to its input."""

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        self.DenseReluDense = FlaxT5DenseActDense(config)
        self.layer_norm = FlaxT5LayerNorm(config)

    def __call__(self, hidden_states: Array, dtype: Any, rng: Array | None = None) -> Array:
        """`(batch, seq, hidden)`."""
        made = self.DenseReluDense(self.layer_norm(hidden_states, dtype), folded(rng, 0))
        return hidden_states + dropout(made, self.config.dropout_rate, rng, 1)


class FlaxT5Attention(Module):
    """Attention to the sequence itself, where heads may be pruned, or to an encoder's output.

    The first layer of a stack has the bias of distances, of all heads it had at first.
    """

    def __init__(self, config: ModuleConfig, layer_idx: int, is_decoder: bool, is_crossed: bool = False) -> None:
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

    def keys_and_values(self, states: Array) -> Pair:
        """Both `(batch, seq, heads, head_dim)`."""
        return split_heads(self.k(states), self.config.d_kv), split_heads(self.v(states), self.config.d_kv)

    def position_bias(self, num_queries: int, num_keys: int, start: Array | int) -> Array:
        """What is added to the scores, `(1, heads, queries, keys)`, for queries from `start` on."""
        config = self.config
        distance = jnp.arange(num_keys) - (jnp.arange(num_queries) + start)[:, None]
        sizes = config.relative_attention_num_buckets, config.relative_attention_max_distance
        bias = self.relative_attention_bias(relative_buckets(distance, not self.is_decoder, *sizes))
        return bias.transpose(2, 0, 1)[None]

    def __call__(
        self,
        hidden_states: Array,
        pair: Pair,
        mask: Array | None = None,
        bias: Array | None = None,
        head_mask: Array | None = None,
        need_weights: bool = False,
        rng: Array | None = None,
    ) -> tuple[Array, Array | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights; `pair` is what `keys_and_values` gave."""
        if bias is not None and len(self.kept) < bias.shape[1]:
            bias = bias[:, np.array(self.kept, np.int32)]
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


class FlaxT5LayerSelfAttention(Module):
    """Attention to the sequence itself with its norm, added to its input."""

    def __init__(self, config: ModuleConfig, layer_idx: int, is_decoder: bool) -> None:
        self.config = config
        self.SelfAttention = FlaxT5Attention(config, layer_idx, is_decoder)
        self.layer_norm = FlaxT5LayerNorm(config)

    def __call__(
        self, hidden_states: Array, dtype: Any, cache: Writing | None, rng: Array | None = None, **inputs: Any
    ) -> tuple[Array, Array | None]:
        """`(batch, seq, hidden)` and weights; keywords as `FlaxT5Attention` has them."""
        own, normed = self.SelfAttention, self.layer_norm(hidden_states, dtype)
        pair = extended(cache, own.layer_idx, *own.keys_and_values(normed))
        attended, weights = own(normed, pair, rng=folded(rng, 0), **inputs)
        return hidden_states + dropout(attended, self.config.dropout_rate, rng, 1), weights


class FlaxT5LayerCrossAttention(Module):
    """Attention to the encoder's output with its norm, added to its input."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        self.config = config
        self.EncDecAttention = FlaxT5Attention(config, layer_idx, is_decoder=True, is_crossed=True)
        self.layer_norm = FlaxT5LayerNorm(config)

    def __call__(
        self,
        hidden_states: Array,
        encoder_hidden_states: Array | None,
        dtype: Any,
        cache: Writing | None,
        rng: Array | None = None,
        **inputs: Any,
    ) -> tuple[Array, Array | None]:
        """`(batch, seq, hidden)` and weights; keywords as `FlaxT5Attention` has them."""
        own = self.EncDecAttention
        make = self._pair_of(encoder_hidden_states)
        pair = make() if cache is None else cache.crossed(own.layer_idx, make)
        attended, weights = own(self.layer_norm(hidden_states, dtype), pair, rng=folded(rng, 0), **inputs)
        return hidden_states + dropout(attended, self.config.dropout_rate, rng, 1), weights

    def _pair_of(self, states: Array | None) -> Any:
        def make() -> Pair:
            if states is None:
                raise ValueError("give encoder_outputs: the decoder attends to them, and the cache has none of them")
            return self.EncDecAttention.keys_and_values(states)

        return make


class FlaxT5Block(Module):
    """One block: attention, in a decoder attention to the encoder, feed-forward."""

    def __init__(self, config: ModuleConfig, layer_idx: int, is_decoder: bool) -> None:
        self.layer_idx, self.is_decoder = layer_idx, is_decoder
        crossed = [FlaxT5LayerCrossAttention(config, layer_idx)] if is_decoder else []
        own = FlaxT5LayerSelfAttention(config, layer_idx, is_decoder)
        self.layer: Any = Modules([own, *crossed, FlaxT5LayerFF(config)])

    def __call__(
        self,
        hidden_states: Array,
        mask: Array | None = None,
        bias: Array | None = None,
        head_mask: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_mask: Array | None = None,
        cross_head_masks: Any = (),
        cache: Writing | None = None,
        dtype: Any = None,
        need_weights: bool = False,
        rng: Array | None = None,
    ) -> tuple[Array, Array | None, Array | None]:
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


class FlaxT5Stack(Module):
    """An encoder, or a decoder that attends to one."""

    def __init__(self, config: ModuleConfig, is_decoder: bool = False) -> None:
        self.config = config
        num_layers = config.num_decoder_layers if is_decoder else config.num_layers
        self.block = Modules([FlaxT5Block(config, index, is_decoder) for index in range(num_layers)])
        self.final_layer_norm = FlaxT5LayerNorm(config)

    def __call__(
        self,
        embeddings: Array,
        cross_attn_head_mask: Array | None = None,
        cache: Writing | None = None,
        output_hidden_states: bool = False,
        rng: Array | None = None,
        **inputs: Any,
    ) -> Passed:
        """Hidden states `(batch, seq, hidden)`, the last of them normalised, in the dtype of the embeddings.

        `inputs` are those of `run_blocks` and of `FlaxT5Block`.
        """
        dtype, num_new, rate = embeddings.dtype, embeddings.shape[1], self.config.dropout_rate
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
