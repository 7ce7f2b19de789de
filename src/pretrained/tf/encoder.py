"""Encoders as BERT is one (arXiv 1810.04805): each part of a block adds to its input and normalises after.

A stack is a decoder where the config says so. Modules and parameters have the names of torch's checkpoints.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ..errors import ConfigError, unknown_name
from ..module_config import ModuleConfig
from . import masks, tasks
from .attention import attend, distance_bias, merge_heads, split_heads
from .blocks import AddNorm, FirstTokenPooler, Widening, run_blocks
from .kinds import TABLE, Normal
from .kv_cache import KVCache, Writing, extended, num_keys
from .layers import Embedding, LayerNorm, Linear, Module, chunked, dropout, folded, shape_of
from .outputs import TFBaseModelOutputWithPoolingAndCrossAttentions

__all__ = ["Encoder", "EncoderEmbeddings"]

Tensor: TypeAlias = tf.Tensor
POSITIONS = ("absolute", "relative_key", "relative_key_query")


class EncoderEmbeddings(Module):
    """Sum of word, segment and position embeddings, normalised.

    Args:
        config: has their sizes.
        position_padding: a row of the table of positions that stands for no token.
    """

    def __init__(self, config: ModuleConfig, position_padding: int | None = None) -> None:
        super().__init__()
        self.config = config
        std, size, dtype = config.initializer_range, config.hidden_size, config.compute_dtype
        word_init, position_init = Normal(std, config.pad_token_id), Normal(std, position_padding)
        self.word_embeddings = Embedding(config.vocab_size, size, init=word_init, dtype=dtype, kind=TABLE)
        # Relative types do not use this table, but their checkpoints have it.
        self.position_embeddings = Embedding(config.max_position_embeddings, size, init=position_init, dtype=dtype)
        self.token_type_embeddings = Embedding(config.type_vocab_size, size, init=Normal(std), dtype=dtype)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps)

    def call(
        self,
        input_ids: Any,
        token_type_ids: Tensor | None,
        position_ids: Tensor,
        inputs_embeds: Tensor | None,
        rng: Tensor | None = None,
    ) -> Tensor:
        """`(batch, seq, hidden)` of `(batch, seq)` ids, segments (0 by default) and `(batch or 1, seq)` positions."""
        embeddings = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = tf.zeros_like(position_ids)
        embeddings = embeddings + self.token_type_embeddings(token_type_ids)
        if self.config.position_embedding_type == "absolute":
            embeddings = embeddings + self.position_embeddings(position_ids)
        return dropout(self.LayerNorm(embeddings), self.config.hidden_dropout_prob, rng)

    def positions(self, input_ids: Tensor | None, num_new: Any, start: Tensor | int) -> Tensor:
        """`(batch or 1, seq)` positions of tokens of which nobody said any: those after the first `start`."""
        return (tf.range(num_new) + start)[None]


class SelfAttention(Module):
    """Attention to the sequence itself, or to an encoder's output."""

    def __init__(self, config: ModuleConfig, layer_idx: int, position_embedding_type: str) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            sizes = f"hidden_size={config.hidden_size}, num_attention_heads={config.num_attention_heads}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="num_attention_heads")
        if position_embedding_type not in POSITIONS:
            raise unknown_name("position_embedding_type", position_embedding_type, POSITIONS)
        self.config, self.layer_idx = config, layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        init, size = Normal(config.initializer_range), self.head_dim * config.num_heads(layer_idx)
        self.query = Linear(config.hidden_size, size, init=init)
        self.key = Linear(config.hidden_size, size, init=init)
        self.value = Linear(config.hidden_size, size, init=init)
        self.position_embedding_type = position_embedding_type
        if position_embedding_type != "absolute":
            # One vector for each distance from -(positions - 1) to positions - 1.
            self.distance_embedding = Embedding(2 * config.max_position_embeddings - 1, self.head_dim, init=init)

    def call(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        cache: Writing | None = None,
        need_weights: bool = False,
        rng: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            split_heads(layer(states), self.head_dim)
            for layer, states in ((self.query, hidden_states), (self.key, source), (self.value, source))
        )
        if encoder_hidden_states is None:
            key, value = extended(cache, self.layer_idx, key, value)
        scale, bias = self.head_dim**-0.5, None
        if self.position_embedding_type != "absolute":
            both, table = self.position_embedding_type == "relative_key_query", self.distance_embedding.weight
            start = 0 if cache is None else cache.start
            bias = distance_bias(query, key, table, by_key=both, start=start) * scale
        out, weights = attend(
            self.config._attn_implementation,
            query,
            key,
            value,
            mask,
            scale=scale,
            bias=bias,
            rate=self.config.attention_probs_dropout_prob,
            rng=rng,
            head_mask=head_mask,
            need_weights=need_weights,
        )
        return merge_heads(out), weights


class Attention(Module):
    """Attention and what follows it."""

    def __init__(self, config: ModuleConfig, layer_idx: int, position_embedding_type: str) -> None:
        super().__init__()
        init = Normal(config.initializer_range)
        own = SelfAttention(config, layer_idx, position_embedding_type)
        setattr(self, "self", own)  # noqa: B010 - its name on disk
        size = own.head_dim * config.num_heads(layer_idx)
        eps, rate = config.layer_norm_eps, config.hidden_dropout_prob
        self.output = AddNorm(size, config.hidden_size, eps, rate, init)

    def call(self, hidden_states: Tensor, rng: Tensor | None = None, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or None; keywords as `SelfAttention` has them."""
        attended, weights = self.self(hidden_states, rng=folded(rng, 0), **inputs)
        return self.output(attended, hidden_states, folded(rng, 1)), weights


class Layer(Module):
    """One block: attention, attention to an encoder if there is one, feed-forward."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.attention = Attention(config, layer_idx, config.position_embedding_type)
        if config.add_cross_attention:
            if not config.is_decoder:
                raise ConfigError("add_cross_attention=True needs is_decoder=True", key="add_cross_attention")
            # Distances between two different sequences mean nothing.
            self.crossattention = Attention(config, layer_idx, "absolute")
        init, size, wide = Normal(config.initializer_range), config.hidden_size, config.intermediate_size
        self.intermediate = Widening(size, wide, config.hidden_act, init)
        self.output = AddNorm(wide, size, config.layer_norm_eps, config.hidden_dropout_prob, init)

    def call(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_mask: Tensor | None = None,
        cache: Writing | None = None,
        need_weights: bool = False,
        rng: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`(batch, seq, hidden)`, the weights of self-attention and those of cross-attention, or None."""
        shared = {"head_mask": head_mask, "need_weights": need_weights}
        hidden_states, weights = self.attention(hidden_states, mask=mask, cache=cache, rng=folded(rng, 0), **shared)
        cross_weights = None
        if self.config.is_decoder and encoder_hidden_states is not None:
            if not self.config.add_cross_attention:
                raise ValueError("encoder_hidden_states need a model with add_cross_attention=True")
            hidden_states, cross_weights = self.crossattention(
                hidden_states,
                mask=encoder_mask,
                encoder_hidden_states=encoder_hidden_states,
                rng=folded(rng, 1),
                **shared,
            )
        size = self.config.chunk_size_feed_forward if rng is None else 0
        out = chunked(lambda x: self.output(self.intermediate(x), x, folded(rng, 2)), size, hidden_states)
        return out, weights, cross_weights


class Layers(Module):
    """The stack of blocks."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.layer = [Layer(config, index) for index in range(config.num_hidden_layers)]


class Encoder(Module):
    """The blocks with their embeddings and, unless it is left out, the pooler."""

    def __init__(self, config: ModuleConfig, embeddings: EncoderEmbeddings, add_pooling_layer: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = embeddings
        self.encoder = Layers(config)
        init = Normal(config.initializer_range)
        self.pooler = FirstTokenPooler(config.hidden_size, init) if add_pooling_layer else None

    @property
    def input_embeddings(self) -> Embedding:
        """The word embeddings."""
        return self.embeddings.word_embeddings

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: KVCache | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Tensor | None = None,
    ) -> TFBaseModelOutputWithPoolingAndCrossAttentions:
        """Hidden states `(batch, seq, hidden)` and their summary `(batch, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds` `(batch, seq, hidden)`.
            attention_mask: `(batch, past + seq)`, 1 for tokens and 0 for padding; `(batch, queries, keys)` too.
            token_type_ids: `(batch, seq)` segments, 0 by default.
            position_ids: `(batch or 1, seq)`; by default as the embeddings count them, after the past.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            encoder_hidden_states: `(batch, encoder seq, hidden)` to attend to.
            encoder_attention_mask: `(batch, encoder seq)` for these.
            inputs_embeds: in place of `input_ids`.
            past_key_values: a preallocated cache; the output has it with the new tokens.
            output_attentions: whether to return the weights of all layers.
            output_hidden_states: whether to return the results of all layers.
            rng: a seed for dropout.
        """
        tasks.require_one(input_ids, inputs_embeds)
        given = input_ids if inputs_embeds is None else inputs_embeds
        assert given is not None
        num_new = shape_of(given)[1]
        cache = None if past_key_values is None else Writing(past_key_values)
        start = 0 if cache is None else cache.start
        if position_ids is None:
            position_ids = self.embeddings.positions(input_ids, num_new, start)
        states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, folded(rng, 0))
        mask = masks.bidirectional(attention_mask)
        if self.config.is_decoder:
            mask = masks.causal(attention_mask, num_new, num_keys(cache, num_new), start)
        passed = run_blocks(
            self.config,
            self.encoder.layer,
            states,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            head_mask=head_mask,
            rng=folded(rng, 1),
            mask=mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_mask=masks.bidirectional(encoder_attention_mask),
            cache=cache,
        )
        return TFBaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=passed.last,
            pooler_output=None if self.pooler is None else self.pooler(passed.last),
            past_key_values=None if cache is None else cache.after(num_new),
            hidden_states=passed.states,
            attentions=passed.attentions,
            cross_attentions=passed.crossed,
        )
