"""RoBERTa (arXiv 1907.11692): an encoder as BERT is one, which counts positions from the padding index on.

It is a decoder when the config says so. Heads are in modeling_roberta_heads and modeling_roberta_tasks. Modules and
parameters have the names of the checkpoints. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...pt import masks, tasks
from ...pt.attention import attend, distance_bias, merge_heads, split_heads
from ...pt.blocks import AddNorm, FirstTokenPooler, Widening
from ...pt.heads import prune_linears
from ...pt.kv_cache import as_cache, extended, like_given, next_positions, of_encoder
from ...pt.layers import chunked, init_normal, unknown_name
from ...pt.modeling import PreTrainedModel
from ...pt.outputs import BaseModelOutputWithCrossAttentions, BaseModelOutputWithPoolingAndCrossAttentions
from ...pt.training import checkpointed, may_cache
from .configuration_roberta import RobertaConfig

__all__ = ["RobertaModel", "RobertaPreTrainedModel"]

POSITIONS = ("absolute", "relative_key", "relative_key_query")


class RobertaEmbeddings(nn.Module):
    """Sum of word, segment and position embeddings, normalised; padding has a position of its own."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        padding, limit = config.pad_token_id, min(config.vocab_size, config.max_position_embeddings)
        if padding is None or not 0 <= padding < limit:
            raise ConfigError(
                f"positions are counted from pad_token_id on, which must be in [0, {limit}); found {padding}",
                key="pad_token_id",
            )
        self.config = config
        self.padding_idx = padding
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=padding)
        # Relative types do not use this table, but their checkpoints have it.
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size, padding_idx=padding)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """`(batch, seq, hidden)` of `(batch, seq)` ids, segments (0 by default) and `(batch or 1, seq)` positions."""
        embeddings = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        embeddings = embeddings + self.token_type_embeddings(token_type_ids)
        if self.config.position_embedding_type == "absolute":
            embeddings = embeddings + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings))

    def positions(self, input_ids: Tensor | None, cache_position: Tensor) -> Tensor:
        """`(batch or 1, seq)`: `padding_idx` for padding; tokens are counted from `padding_idx + 1` on.

        Args:
            input_ids: `(batch, seq)`; in embeddings, without ids, padding cannot be seen and is counted.
            cache_position: `(seq,)` places of the tokens; the first one tells how many came before.

        Raises:
            ValueError: there are more tokens than positions.
        """
        first = self.padding_idx + 1
        if cache_position.shape[0] + first > (rows := self.config.max_position_embeddings):
            found = f"{cache_position.shape[0]} tokens are more than {rows - first}"
            raise ValueError(f"{found}, which max_position_embeddings={rows} leaves after pad_token_id={first - 1}")
        if input_ids is None:
            return cache_position[None] + first
        real = torch.ne(input_ids, self.padding_idx).long()
        return (real.cumsum(1) + cache_position[0]) * real + self.padding_idx


class RobertaSelfAttention(nn.Module):
    """Attention to the sequence itself, or to an encoder's output."""

    def __init__(self, config: RobertaConfig, layer_idx: int, position_embedding_type: str) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            sizes = f"hidden_size={config.hidden_size}, num_attention_heads={config.num_attention_heads}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="num_attention_heads")
        if position_embedding_type not in POSITIONS:
            raise unknown_name("position_embedding_type", position_embedding_type, POSITIONS)
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.pruned_heads: set[int] = set()
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.position_embedding_type = position_embedding_type
        if position_embedding_type != "absolute":
            # One vector for each distance from -(positions - 1) to positions - 1.
            self.distance_embedding = nn.Embedding(2 * config.max_position_embeddings - 1, self.head_dim)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        query = split_heads(self.query(hidden_states), self.head_dim)
        past, index = past_key_values, self.layer_idx
        if encoder_hidden_states is None:
            key, value = extended(past, index, *self._keys_and_values(hidden_states), cache_position)
        else:
            key, value = of_encoder(past, index, lambda: self._keys_and_values(encoder_hidden_states))
        scale = self.head_dim**-0.5
        if self.position_embedding_type != "absolute":
            both = self.position_embedding_type == "relative_key_query"
            bias = distance_bias(query, key, self.distance_embedding, by_key=both, positions=cache_position)
            mask = masks.add_bias(mask, bias * scale)
        out, weights = attend(
            self.config._attn_implementation,
            query,
            key,
            value,
            mask,
            scale=scale,
            dropout=self.dropout.p if self.training else 0.0,
            causal=causal,
            need_weights=need_weights,
            head_mask=head_mask,
        )
        return merge_heads(out), weights

    def _keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.key(states), self.head_dim), split_heads(self.value(states), self.head_dim)


class RobertaAttention(nn.Module):
    """Attention and what follows it."""

    def __init__(self, config: RobertaConfig, layer_idx: int, position_embedding_type: str) -> None:
        super().__init__()
        hidden_size = config.hidden_size
        self.self = RobertaSelfAttention(config, layer_idx, position_embedding_type)
        self.output = AddNorm(hidden_size, hidden_size, config.layer_norm_eps, config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or `None`; keywords as `RobertaSelfAttention.forward` has them."""
        attended, weights = self.self(hidden_states, **inputs)
        return self.output(attended, hidden_states), weights

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Takes heads out; they keep the numbers they had at first."""
        own = self.self
        prune_linears(own, heads, (own.query, own.key, own.value), self.output.dense)


class RobertaLayer(nn.Module):
    """One block: attention, attention to an encoder if there is one, feed-forward."""

    def __init__(self, config: RobertaConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.attention = RobertaAttention(config, layer_idx, config.position_embedding_type)
        self.crossattention: RobertaAttention | None = None
        if config.add_cross_attention:
            if not config.is_decoder:
                raise ConfigError("add_cross_attention=True needs is_decoder=True", key="add_cross_attention")
            # Distances between two different sequences mean nothing.
            self.crossattention = RobertaAttention(config, layer_idx, "absolute")
        hidden_size, wide = config.hidden_size, config.intermediate_size
        self.intermediate = Widening(hidden_size, wide, config.hidden_act)
        self.output = AddNorm(wide, hidden_size, config.layer_norm_eps, config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`(batch, seq, hidden)`, the weights of self-attention and those of cross-attention, or `None`."""
        hidden_states, weights = self.attention(
            hidden_states,
            mask=mask,
            causal=causal,
            head_mask=head_mask,
            past_key_values=past_key_values,
            cache_position=cache_position,
            need_weights=need_weights,
        )
        cross_weights = None
        if self.config.is_decoder and encoder_hidden_states is not None:
            if self.crossattention is None:
                raise ValueError("encoder_hidden_states need a model with add_cross_attention=True")
            hidden_states, cross_weights = self.crossattention(
                hidden_states,
                mask=encoder_mask,
                head_mask=head_mask,
                encoder_hidden_states=encoder_hidden_states,
                past_key_values=past_key_values,
                need_weights=need_weights,
            )
        return chunked(self.feed_forward, self.config.chunk_size_feed_forward, hidden_states), weights, cross_weights

    def feed_forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`; each token by itself, so that it can be done in pieces."""
        return self.output(self.intermediate(hidden_states), hidden_states)


class RobertaEncoder(nn.Module):
    """The stack of blocks."""

    gradient_checkpointing = False

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(RobertaLayer(config, index) for index in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_states: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        **inputs: Any,
    ) -> BaseModelOutputWithCrossAttentions:
        """Result of the last block, and what was asked for of the others; keywords as `RobertaLayer.forward` has."""
        states, attentions, cross_attentions = [hidden_states], [], []
        head_masks = masks.split_head_mask(head_mask, len(self.layer))
        for layer, layer_head_mask in zip(self.layer, head_masks, strict=True):
            hidden_states, weights, cross_weights = checkpointed(
                self, layer, hidden_states, head_mask=layer_head_mask, need_weights=output_attentions, **inputs
            )
            if output_hidden_states:  # kept only where somebody asked: they are most of a forward pass's memory
                states.append(hidden_states)
            attentions.append(weights)
            cross_attentions.append(cross_weights)
        crossed = output_attentions and inputs.get("encoder_hidden_states") is not None
        return BaseModelOutputWithCrossAttentions(
            last_hidden_state=hidden_states,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            cross_attentions=tuple(cross_attentions) if crossed else None,
        )


class RobertaPreTrainedModel(PreTrainedModel):
    """Base of all RoBERTa models."""

    config: RobertaConfig
    config_class = RobertaConfig
    base_model_prefix = "roberta"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["RobertaEmbeddings", "RobertaLayer"]
    _position_embeddings = "embeddings.position_embeddings"
    # Releases before 4.31 saved this buffer.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]

    def _init_weights(self, module: nn.Module) -> None:
        init_normal(module, self.config.initializer_range)


class RobertaModel(RobertaPreTrainedModel):
    """The blocks with their embeddings and, unless it is left out, the pooler.

    With `config.is_decoder` no token sees a later one, and `past_key_values` holds the past; with
    `config.add_cross_attention` each block attends to `encoder_hidden_states` too.
    """

    def __init__(self, config: RobertaConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = RobertaEmbeddings(config)
        self.encoder = RobertaEncoder(config)
        self.pooler = FirstTokenPooler(config.hidden_size) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.embeddings.word_embeddings = cast(nn.Embedding, value)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            cast(RobertaLayer, self.encoder.layer[layer]).attention.prune_heads(heads)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> tasks.Output:
        """Hidden states `(batch, seq, hidden)` and their summary `(batch, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, past + seq)`, 1 for tokens and 0 for padding; masks of 3 and 4 axes as
                `masks.bidirectional` has them.
            token_type_ids: `(batch, seq)` segments, 0 by default.
            position_ids: `(batch or 1, seq)`, by default counted as `RobertaEmbeddings.positions` does.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            inputs_embeds: `(batch, seq, hidden)` instead of looking `input_ids` up.
            encoder_hidden_states: `(batch, encoder seq, hidden)` to attend to.
            encoder_attention_mask: `(batch, encoder seq)` for these.
            past_key_values: a cache, or legacy tuples; what is returned is of the same kind.
            use_cache: whether to return one; by default a decoder does if its config says so.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the results of all layers.
            return_dict: `False` for a plain tuple.
            cache_position: `(seq,)` places of the new tokens in a preallocated cache.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        config = self.config
        self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        use_cache = config.is_decoder and (config.use_cache if use_cache is None else use_cache)
        use_cache = may_cache(self, self.encoder, use_cache)
        cache = None
        if use_cache or past_key_values is not None:
            cache = as_cache(past_key_values, crossed=encoder_hidden_states is not None)
        given = cast(Tensor, input_ids if inputs_embeds is None else inputs_embeds)
        if cache_position is None:
            cache_position = next_positions(cache, given.shape[1], given.device)
        if position_ids is None:
            position_ids = self.embeddings.positions(input_ids, cache_position)
        states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        causal, mask = False, None
        if config.is_decoder:
            explicit = config.position_embedding_type != "absolute"
            mask, causal = masks.causal_over(cache, attention_mask, states, cache_position, explicit=explicit)
        else:
            mask = masks.bidirectional(attention_mask, states.dtype)
        outputs = self.encoder(
            states,
            head_mask,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            mask=mask,
            causal=causal,
            encoder_hidden_states=encoder_hidden_states,
            encoder_mask=masks.bidirectional(encoder_attention_mask, states.dtype),
            past_key_values=cache,
            cache_position=cache_position,
        )
        outputs = BaseModelOutputWithPoolingAndCrossAttentions(
            pooler_output=None if self.pooler is None else self.pooler(outputs.last_hidden_state),
            past_key_values=like_given(cache, past_key_values) if use_cache else None,
            **outputs,
        )
        return tasks.as_asked(outputs, config, return_dict)
