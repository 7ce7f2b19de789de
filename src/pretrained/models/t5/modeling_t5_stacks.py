"""The encoder and the decoder of T5, each a stack of blocks, and the base of all its models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from ...pt import masks
from ...pt.kv_cache import as_cache, like_given, next_positions
from ...pt.modeling import PreTrainedModel
from ...pt.outputs import BaseModelOutputWithPastAndCrossAttentions
from ...pt.training import checkpointed, may_cache
from .configuration_t5 import T5Config
from .modeling_t5_layers import T5Attention, T5Block, T5LayerNorm

__all__ = ["T5PreTrainedModel", "T5Stack"]


class T5PreTrainedModel(PreTrainedModel):
    """Base of all T5 models."""

    config: T5Config
    config_class = T5Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["T5Block"]
    _skip_keys_device_placement = ["past_key_values"]
    # In float16 this projection overflows.
    _keep_in_fp32_modules = ["wo"]
    # The first release had a bias here too, which nothing used.
    _keys_to_ignore_on_load_unexpected = [r"EncDecAttention\.relative_attention_bias\.weight$"]

    def _init_weights(self, module: nn.Module) -> None:
        """Scores are not scaled, so queries start smaller by the root of a head's size; Mesh TensorFlow has it so."""
        factor = self.config.initializer_factor
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=factor)
        elif isinstance(module, T5LayerNorm):
            nn.init.constant_(module.weight, factor)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=factor * module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, T5Attention):
            nn.init.normal_(module.q.weight, std=factor * (self.config.d_model * module.head_dim) ** -0.5)
            if module.has_relative_attention_bias:
                nn.init.normal_(module.relative_attention_bias.weight, std=factor * self.config.d_model**-0.5)

    def _shift_right(self, input_ids: Tensor) -> Tensor:
        """What the decoder is given to predict `input_ids` `(batch, seq)`: the start token and all but the last."""
        start, padding = self.config.decoder_start_token_id, self.config.pad_token_id
        for name, value in (("decoder_start_token_id", start), ("pad_token_id", padding)):
            if not isinstance(value, int):
                raise ValueError(f"the decoder's inputs are made with config.{name}, which is {value}; T5 has 0")
        shifted = input_ids.roll(1, -1)
        shifted[..., 0] = cast(int, start)
        return shifted.masked_fill(shifted == -100, cast(int, padding))


class T5Stack(T5PreTrainedModel):
    """An encoder, or a decoder that may attend to one.

    Args:
        config: of the whole model; `num_layers` is the encoder's number of blocks, `num_decoder_layers` the decoder's.
        embed_tokens: the word embeddings, which a model has once.
        is_decoder: which of both to be.
    """

    gradient_checkpointing = False

    def __init__(self, config: T5Config, embed_tokens: nn.Module, is_decoder: bool = False) -> None:
        super().__init__(config)
        self.is_decoder = is_decoder
        self.embed_tokens = embed_tokens
        num_layers = cast(int, config.num_decoder_layers) if is_decoder else config.num_layers
        self.block = nn.ModuleList(T5Block(config, index, is_decoder) for index in range(num_layers))
        self.final_layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.embed_tokens = value

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Refuses: a model and its stacks have one config, which could not say that one stack lacks the heads."""
        raise NotImplementedError("a T5Stack is pruned with its model: call prune_heads of that")

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            if layer < len(self.block):  # a decoder may have fewer blocks
                cast(T5Block, self.block[layer]).prune_heads(heads)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Hidden states `(batch, seq, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, past + seq)`, 1 for tokens and 0 for padding on either side; masks of 3 and 4
                axes as `masks.bidirectional` and `masks.causal` have them.
            encoder_hidden_states: `(batch, encoder seq, hidden)` for a decoder to attend to.
            encoder_attention_mask: `(batch, encoder seq)` for these.
            inputs_embeds: `(batch, seq, hidden)` instead of looking `input_ids` up.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            cross_attn_head_mask: the same for attention to the encoder.
            past_key_values: a cache, or legacy tuples; what is returned is of the same kind. An encoder has none.
            use_cache: whether to return one; by default a decoder does if the config says so.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the embeddings and the results of all layers, the last normalised.
            return_dict: `False` for a plain tuple.
            cache_position: `(seq,)` places of the new tokens in the cache, after the past by default.
        """
        if (input_ids is None) == (inputs_embeds is None):
            prefix = "decoder_" if self.is_decoder else ""
            raise ValueError(f"give either {prefix}input_ids or {prefix}inputs_embeds")
        config = self.config
        use_cache = self.is_decoder and (config.use_cache if use_cache is None else use_cache)
        use_cache = may_cache(self, self, use_cache)
        cache = None
        if self.is_decoder and (use_cache or past_key_values is not None):
            cache = as_cache(past_key_values, crossed=encoder_hidden_states is not None)
        states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if cache_position is None:
            cache_position = next_positions(cache, states.shape[1], states.device)
        if self.is_decoder:
            # Always by the mask: the bias of distances is added to it.
            mask, _ = masks.causal_over(cache, attention_mask, states, cache_position, explicit=True)
        else:
            mask = masks.bidirectional(attention_mask, states.dtype)
        outputs = self._blocks(
            self.dropout(states),
            mask,
            masks.split_head_mask(head_mask, len(self.block)),
            masks.split_head_mask(cross_attn_head_mask, len(self.block)),
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            encoder_mask=masks.bidirectional(encoder_attention_mask, states.dtype),
            past_key_values=cache,
            cache_position=cache_position,
        )
        if use_cache:
            outputs.past_key_values = like_given(cache, past_key_values)
        return outputs if (config.return_dict if return_dict is None else return_dict) else outputs.to_tuple()

    def _blocks(
        self,
        hidden_states: Tensor,
        mask: Tensor | None,
        head_masks: Any,
        cross_head_masks: Any,
        need_weights: bool,
        need_states: bool,
        **inputs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Result of the last block, normalised, and what was asked for of the others."""
        states, attentions, cross_attentions = [], [], []
        for layer, head_mask, cross_head_mask in zip(self.block, head_masks, cross_head_masks, strict=True):
            if need_states:  # kept only where somebody asked: they are most of a forward pass's memory
                states.append(hidden_states)
            hidden_states, weights, cross_weights, mask = checkpointed(
                self,
                layer,
                hidden_states,
                mask=mask,
                head_mask=head_mask,
                cross_head_mask=cross_head_mask,
                need_weights=need_weights,
                **inputs,
            )
            attentions.append(weights)
            cross_attentions.append(cross_weights)
        hidden_states = self.dropout(self.final_layer_norm(hidden_states))
        crossed = need_weights and self.is_decoder and inputs["encoder_hidden_states"] is not None
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden_states,
            hidden_states=(*states, hidden_states) if need_states else None,
            attentions=tuple(attentions) if need_weights else None,
            cross_attentions=tuple(cross_attentions) if crossed else None,
        )
