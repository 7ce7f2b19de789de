"""BERT (arXiv 1810.04805) in JAX: the encoder, which is a decoder when the config says so, and its heads.

Modules and parameters have the names and layouts of torch's checkpoints. Shapes have the axes batch, seq, hidden.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...errors import ConfigError, unknown_name
from ...flax import masks, tasks
from ...flax.attention import attend, distance_bias, merge_heads, split_heads
from ...flax.blocks import AddNorm, FirstTokenPooler, Widening, run_blocks
from ...flax.kinds import Normal
from ...flax.kv_cache import KVCache, Writing, extended, num_keys
from ...flax.layers import Embedding, LayerNorm, Linear, Module, Modules, chunked, dropout, folded
from ...flax.modeling import FlaxPreTrainedModel
from ...flax.module_config import ModuleConfig
from ...flax.outputs import FlaxBaseModelOutputWithPoolingAndCrossAttentions
from .configuration_bert import BertConfig

__all__ = ["FlaxBertModel", "FlaxBertModule", "FlaxBertPreTrainedModel"]

Array = jax.Array
POSITIONS = ("absolute", "relative_key", "relative_key_query")


class FlaxBertEmbeddings(Module):
    """Sum of word, segment and position embeddings, normalised."""

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        init, size, dtype = Normal(config.initializer_range), config.hidden_size, config.compute_dtype
        word_init = Normal(config.initializer_range, padding=config.pad_token_id)
        self.word_embeddings = Embedding(config.vocab_size, size, init=word_init, dtype=dtype)
        # Relative types do not use this table, but their checkpoints have it.
        self.position_embeddings = Embedding(config.max_position_embeddings, size, init=init, dtype=dtype)
        self.token_type_embeddings = Embedding(config.type_vocab_size, size, init=init, dtype=dtype)
        self.LayerNorm = LayerNorm(size, config.layer_norm_eps)

    def __call__(
        self,
        input_ids: Any,
        token_type_ids: Array | None,
        position_ids: Array,
        inputs_embeds: Array | None,
        rng: Array | None = None,
    ) -> Array:
        """`(batch, seq, hidden)` of `(batch, seq)` ids, segments (0 by default) and `(batch or 1, seq)` positions."""
        embeddings = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(position_ids)
        embeddings = embeddings + self.token_type_embeddings(token_type_ids)
        if self.config.position_embedding_type == "absolute":
            embeddings = embeddings + self.position_embeddings(position_ids)
        return dropout(self.LayerNorm(embeddings), self.config.hidden_dropout_prob, rng)


class FlaxBertSelfAttention(Module):
    """Attention to the sequence itself, or to an encoder's output."""

    def __init__(self, config: ModuleConfig, layer_idx: int, position_embedding_type: str) -> None:
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

    def __call__(
        self,
        hidden_states: Array,
        mask: Array | None = None,
        head_mask: Array | None = None,
        encoder_hidden_states: Array | None = None,
        cache: Writing | None = None,
        need_weights: bool = False,
        rng: Array | None = None,
    ) -> tuple[Array, Array | None]:
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
            both, table = self.position_embedding_type == "relative_key_query", self.distance_embedding.weight[...]
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


class FlaxBertAttention(Module):
    """Attention and what follows it."""

    def __init__(self, config: ModuleConfig, layer_idx: int, position_embedding_type: str) -> None:
        init = Normal(config.initializer_range)
        own = FlaxBertSelfAttention(config, layer_idx, position_embedding_type)
        setattr(self, "self", own)  # noqa: B010 - its name on disk
        size = own.head_dim * config.num_heads(layer_idx)
        eps, rate = config.layer_norm_eps, config.hidden_dropout_prob
        self.output = AddNorm(size, config.hidden_size, eps, rate, init)

    def __call__(self, hidden_states: Array, rng: Array | None = None, **inputs: Any) -> tuple[Array, Array | None]:
        """`(batch, seq, hidden)` and the weights or None; keywords as `FlaxBertSelfAttention` has them."""
        attended, weights = vars(self)["self"](hidden_states, rng=folded(rng, 0), **inputs)
        return self.output(attended, hidden_states, folded(rng, 1)), weights


class FlaxBertLayer(Module):
    """One block: attention, attention to an encoder if there is one, feed-forward."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        self.config = config
        self.attention = FlaxBertAttention(config, layer_idx, config.position_embedding_type)
        if config.add_cross_attention:
            if not config.is_decoder:
                raise ConfigError("add_cross_attention=True needs is_decoder=True", key="add_cross_attention")
            # Distances between two different sequences mean nothing.
            self.crossattention = FlaxBertAttention(config, layer_idx, "absolute")
        init, size, wide = Normal(config.initializer_range), config.hidden_size, config.intermediate_size
        self.intermediate = Widening(size, wide, config.hidden_act, init)
        self.output = AddNorm(wide, size, config.layer_norm_eps, config.hidden_dropout_prob, init)

    def __call__(
        self,
        hidden_states: Array,
        mask: Array | None = None,
        head_mask: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_mask: Array | None = None,
        cache: Writing | None = None,
        need_weights: bool = False,
        rng: Array | None = None,
    ) -> tuple[Array, Array | None, Array | None]:
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


class FlaxBertEncoder(Module):
    """The stack of blocks."""

    def __init__(self, config: ModuleConfig) -> None:
        self.layer = Modules([FlaxBertLayer(config, index) for index in range(config.num_hidden_layers)])


class FlaxBertModule(Module):
    """The blocks with their embeddings and, unless it is left out, the pooler."""

    def __init__(self, config: ModuleConfig, add_pooling_layer: bool = True) -> None:
        self.config = config
        self.embeddings = FlaxBertEmbeddings(config)
        self.encoder = FlaxBertEncoder(config)
        init = Normal(config.initializer_range)
        self.pooler = FirstTokenPooler(config.hidden_size, init) if add_pooling_layer else None

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        past_key_values: KVCache | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Array | None = None,
    ) -> FlaxBaseModelOutputWithPoolingAndCrossAttentions:
        """Hidden states `(batch, seq, hidden)` and their summary `(batch, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds` `(batch, seq, hidden)`.
            attention_mask: `(batch, past + seq)`, 1 for tokens and 0 for padding; `(batch, queries, keys)` too.
            token_type_ids: `(batch, seq)` segments, 0 by default.
            position_ids: `(batch or 1, seq)`, those after the past by default.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            encoder_hidden_states: `(batch, encoder seq, hidden)` to attend to.
            encoder_attention_mask: `(batch, encoder seq)` for these.
            inputs_embeds: in place of `input_ids`.
            past_key_values: what `init_cache` gave, or a call before.
            output_attentions: whether to return the weights of all layers.
            output_hidden_states: whether to return the results of all layers.
            rng: a key for dropout.
        """
        tasks.require_one(input_ids, inputs_embeds)
        given = input_ids if inputs_embeds is None else inputs_embeds
        assert given is not None
        num_new = given.shape[1]
        cache = None if past_key_values is None else Writing(past_key_values)
        start = 0 if cache is None else cache.start
        if position_ids is None:
            position_ids = (jnp.arange(num_new) + start)[None]
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
        return FlaxBaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=passed.last,
            pooler_output=None if self.pooler is None else self.pooler(passed.last),
            past_key_values=None if cache is None else cache.after(num_new),
            hidden_states=passed.states,
            attentions=passed.attentions,
            cross_attentions=passed.crossed,
        )


class FlaxBertPreTrainedModel(FlaxPreTrainedModel):
    """Base of all BERT models in JAX."""

    config: BertConfig
    config_class = BertConfig
    base_model_prefix = "bert"
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]
    _input_embeddings = "bert.embeddings.word_embeddings.weight"
    _sharding_rules = {
        r"word_embeddings\.weight|predictions\.decoder\.weight": ("model", None),
        r"predictions\.(decoder\.)?bias": ("model",),
        r"(query|key|value|intermediate\.dense)\.weight": ("model", None),
        r"(query|key|value|intermediate\.dense)\.bias": ("model",),
        r"(attention\.output|layer\.\d+\.output)\.dense\.weight": (None, "model"),
    }


class FlaxBertModel(FlaxBertPreTrainedModel):
    """BERT without a head."""

    module_class = FlaxBertModule
    _input_embeddings = "embeddings.word_embeddings.weight"
