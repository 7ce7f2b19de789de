"""BERT (arXiv 1810.04805): the encoder, which is a decoder when the config says so.

The blocks are in modeling_bert_layers, the heads in modeling_bert_heads and modeling_bert_tasks.

Modules and parameters have the names of the checkpoints. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...pt import masks, tasks
from ...pt.blocks import FirstTokenPooler
from ...pt.kv_cache import as_cache, like_given, next_positions
from ...pt.layers import init_normal
from ...pt.modeling import PreTrainedModel
from ...pt.outputs import BaseModelOutputWithCrossAttentions, BaseModelOutputWithPoolingAndCrossAttentions
from ...pt.training import checkpointed, may_cache
from .configuration_bert import BertConfig
from .modeling_bert_layers import BertLayer

__all__ = ["BertLayer", "BertModel", "BertPreTrainedModel"]


class BertEmbeddings(nn.Module):
    """Sum of word, segment and position embeddings, normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        # Relative types do not use this table, but their checkpoints have it.
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
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
        if position_ids.shape[-1] > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise ValueError(f"{position_ids.shape[-1]} tokens are more than max_position_embeddings={limit}")
        embeddings = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        embeddings = embeddings + self.token_type_embeddings(token_type_ids)
        if self.config.position_embedding_type == "absolute":
            embeddings = embeddings + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings))


class BertEncoder(nn.Module):
    """The stack of blocks."""

    gradient_checkpointing = False

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config, index) for index in range(config.num_hidden_layers))

    def forward(
        self,
        hidden_states: Tensor,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        **inputs: Any,
    ) -> BaseModelOutputWithCrossAttentions:
        """Result of the last block, and what was asked for of the others; keywords as `BertLayer.forward` has them."""
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


class BertPreTrainedModel(PreTrainedModel):
    """Base of all BERT models."""

    config: BertConfig
    config_class = BertConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["BertEmbeddings", "BertLayer"]
    _position_embeddings = "embeddings.position_embeddings"
    # Releases before 4.31 saved this buffer.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]

    def _init_weights(self, module: nn.Module) -> None:
        init_normal(module, self.config.initializer_range)


class BertModel(BertPreTrainedModel):
    """The blocks with their embeddings and, unless it is left out, the pooler.

    With `config.is_decoder` no token sees a later one, and `past_key_values` holds the past; with
    `config.add_cross_attention` each block attends to `encoder_hidden_states` too.
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
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
            cast(BertLayer, self.encoder.layer[layer]).attention.prune_heads(heads)

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
            position_ids: `(batch or 1, seq)`, those after the past by default.
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
            position_ids = cache_position[None]
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
