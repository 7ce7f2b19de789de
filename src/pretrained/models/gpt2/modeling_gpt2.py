"""GPT-2 (Radford et al., Language Models are Unsupervised Multitask Learners, 2019): the decoder.

Heads are in modeling_gpt2_heads and modeling_gpt2_tasks. Modules and parameters have the names of the checkpoints; the
linear layers are `Conv1D`, whose weights are `(in, out)`. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...pt import masks
from ...pt.attention import attend, merge_heads, split_heads
from ...pt.heads import prune_conv1ds
from ...pt.kv_cache import EncoderDecoderKVCache, as_cache, like_given, next_positions
from ...pt.layers import Conv1D, activation, init_normal
from ...pt.modeling import PreTrainedModel
from ...pt.outputs import BaseModelOutputWithPastAndCrossAttentions
from ...pt.training import checkpointed, may_cache
from .configuration_gpt2 import GPT2Config

__all__ = ["GPT2Block", "GPT2Model", "GPT2PreTrainedModel"]


class GPT2Attention(nn.Module):
    """Causal attention to the sequence itself, or attention to an encoder's output."""

    def __init__(self, config: GPT2Config, layer_idx: int, is_cross_attention: bool = False) -> None:
        super().__init__()
        if config.n_embd % config.n_head:
            sizes = f"n_embd={config.n_embd}, n_head={config.n_head}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="n_head")
        self.config = config
        self.layer_idx = layer_idx
        self.is_cross_attention = is_cross_attention
        self.num_heads = config.n_head
        self.head_dim = config.n_embd // config.n_head
        self.pruned_heads: set[int] = set()
        self.scale = self.head_dim**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer_idx + 1
        # One layer makes queries, keys and values; of an encoder's output only the last two are made.
        self.c_attn = Conv1D((2 if is_cross_attention else 3) * config.n_embd, config.n_embd)
        if is_cross_attention:
            self.q_attn = Conv1D(config.n_embd, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.attn_pdrop)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

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
        if encoder_hidden_states is None:
            query, key, value = self._split(self.c_attn(hidden_states), 3)
            if isinstance(past_key_values, EncoderDecoderKVCache):
                past_key_values = past_key_values.self_attention
            if past_key_values is not None:
                key, value = past_key_values.update(self.layer_idx, key, value, cache_position)
        else:
            query = split_heads(self.q_attn(hidden_states), self.head_dim)
            key, value = self._encoder_keys_and_values(encoder_hidden_states, past_key_values)
        out, weights = self._attend(
            query, key, value, mask, causal=causal, need_weights=need_weights, head_mask=head_mask
        )
        return self.resid_dropout(self.c_proj(merge_heads(out))), weights

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Takes heads out; they keep the numbers they had at first."""
        prune_conv1ds(self, heads, self.c_attn, self.c_proj)

    def _split(self, projected: Tensor, parts: int) -> list[Tensor]:
        return [split_heads(part, self.head_dim) for part in projected.chunk(parts, -1)]

    def _encoder_keys_and_values(self, states: Tensor, past: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output, computed once for all steps that share a cache."""
        if past is not None and self.layer_idx < len(past.cross_attention):
            return past.cross_attention[self.layer_idx]
        key, value = self._split(self.c_attn(states), 2)
        return (key, value) if past is None else past.cross_attention.update(self.layer_idx, key, value)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **how: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attention as the config has it; with `reorder_and_upcast_attn` in float32, under autocast too."""
        name, dtype = self.config._attn_implementation, value.dtype
        dropout = self.attn_dropout.p if self.training else 0.0
        if not self.config.reorder_and_upcast_attn:
            return attend(name, query, key, value, mask, scale=self.scale, dropout=dropout, **how)
        wide = torch.promote_types(dtype, torch.float32)
        mask = None if mask is None else mask.to(wide)
        with torch.autocast(query.device.type, enabled=False):
            out, weights = attend(
                name, query.to(wide), key.to(wide), value.to(wide), mask, scale=self.scale, dropout=dropout, **how
            )
        return out.to(dtype), None if weights is None else weights.to(dtype)


class GPT2MLP(nn.Module):
    """The feed-forward part."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        width = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.c_fc = Conv1D(width, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, width)
        self.act = activation(config.activation_function)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`."""
        return self.dropout(self.c_proj(self.act(self.c_fc(hidden_states))))


class GPT2Block(nn.Module):
    """One block: attention, attention to an encoder if there is one, feed-forward; each normalises its own input."""

    def __init__(self, config: GPT2Config, layer_idx: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = GPT2Attention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.crossattention: GPT2Attention | None = None
        if config.add_cross_attention:
            self.crossattention = GPT2Attention(config, layer_idx, is_cross_attention=True)
            self.ln_cross_attn = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = GPT2MLP(config)

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
        attended, weights = self.attn(
            self.ln_1(hidden_states),
            mask=mask,
            causal=causal,
            head_mask=head_mask,
            past_key_values=past_key_values,
            cache_position=cache_position,
            need_weights=need_weights,
        )
        hidden_states = hidden_states + attended
        cross_weights = None
        if encoder_hidden_states is not None:
            if self.crossattention is None:
                raise ValueError("encoder_hidden_states need a model with add_cross_attention=True")
            attended, cross_weights = self.crossattention(
                self.ln_cross_attn(hidden_states),
                mask=encoder_mask,
                head_mask=head_mask,
                encoder_hidden_states=encoder_hidden_states,
                past_key_values=past_key_values,
                need_weights=need_weights,
            )
            hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.ln_2(hidden_states)), weights, cross_weights


class GPT2PreTrainedModel(PreTrainedModel):
    """Base of all GPT-2 models."""

    config: GPT2Config
    config_class = GPT2Config
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _position_embeddings = "wpe"
    _no_split_modules = ["GPT2Block"]
    _skip_keys_device_placement = ["past_key_values"]
    # The causal mask and the number put in masked places: older releases, and the published files, have them.
    _keys_to_ignore_on_load_unexpected = [r"(^|\.)(attn|crossattention)\.(bias|masked_bias)$"]

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        init_normal(module, std)
        # What is added to the residual stream is smaller the more of it there is: section 2.3 of the paper.
        if isinstance(module, GPT2Attention | GPT2MLP):
            nn.init.normal_(module.c_proj.weight, std=std / math.sqrt(2 * self.config.n_layer))


class GPT2Model(GPT2PreTrainedModel):
    """The decoder: embeddings, blocks and a last norm.

    With `config.add_cross_attention` each block attends to `encoder_hidden_states` too.
    """

    gradient_checkpointing = False

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(GPT2Block(config, index) for index in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.wte = cast(nn.Embedding, value)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            cast(GPT2Block, self.h[layer]).attn.prune_heads(heads)

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Hidden states `(batch, seq, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            past_key_values: a cache, or legacy tuples; what is returned is of the same kind.
            attention_mask: `(batch, past + seq)`, 1 for tokens and 0 for padding; masks of 3 and 4 axes as
                `masks.causal` has them.
            token_type_ids: `(batch, seq)` of tokens whose embeddings are added.
            position_ids: `(batch or 1, seq)`, those after the past by default, whatever the mask: a batch that is
                padded on the left needs them.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            inputs_embeds: `(batch, seq, hidden)` instead of looking `input_ids` up.
            encoder_hidden_states: `(batch, encoder seq, hidden)` to attend to.
            encoder_attention_mask: `(batch, encoder seq)` for these.
            use_cache: whether to return a cache; by default what the config says.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the embeddings and the results of all layers, the last normalised.
            return_dict: `False` for a plain tuple.
            cache_position: `(seq,)` places of the new tokens in the cache, after the past by default.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        config = self.config
        self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        use_cache = may_cache(self, self, config.use_cache if use_cache is None else use_cache)
        crossed = encoder_hidden_states is not None
        cache = as_cache(past_key_values, crossed) if use_cache or past_key_values is not None else None
        hidden_states = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        if cache_position is None:
            cache_position = next_positions(cache, hidden_states.shape[1], hidden_states.device)
        hidden_states = hidden_states + self._embed_positions(position_ids, cache, cache_position)
        if token_type_ids is not None:
            hidden_states = hidden_states + self.wte(token_type_ids)
        mask, causal = masks.causal_over(cache, attention_mask, hidden_states, cache_position)
        outputs = self._blocks(
            self.drop(hidden_states),
            head_mask,
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            mask=mask,
            causal=causal,
            encoder_hidden_states=encoder_hidden_states,
            encoder_mask=masks.bidirectional(encoder_attention_mask, hidden_states.dtype),
            past_key_values=cache,
            cache_position=cache_position,
        )
        if use_cache:
            outputs.past_key_values = like_given(cache, past_key_values)
        return outputs if (config.return_dict if return_dict is None else return_dict) else outputs.to_tuple()

    def _embed_positions(self, position_ids: Tensor | None, cache: Any, cache_position: Tensor) -> Tensor:
        num_new, limit = cache_position.shape[0], self.config.n_positions
        # A preallocated cache has its full length from the start: of that it is no sign how many tokens it holds.
        total = num_new if cache is None or cache.preallocated else cache.key_length(num_new)
        if position_ids is None:
            if total > limit:
                raise ValueError(f"{total} tokens are more than n_positions={limit}")
            position_ids = cache_position[None]
        return self.wpe(position_ids)

    def _blocks(
        self,
        hidden_states: Tensor,
        head_mask: Tensor | None,
        need_weights: bool,
        need_states: bool,
        **inputs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Result of the last block, normalised, and what was asked for of the others."""
        states, attentions, cross_attentions = [], [], []
        head_masks = masks.split_head_mask(head_mask, len(self.h))
        for layer, layer_head_mask in zip(self.h, head_masks, strict=True):
            if need_states:  # kept only where somebody asked: they are most of a forward pass's memory
                states.append(hidden_states)
            hidden_states, weights, cross_weights = checkpointed(
                self, layer, hidden_states, head_mask=layer_head_mask, need_weights=need_weights, **inputs
            )
            attentions.append(weights)
            cross_attentions.append(cross_weights)
        hidden_states = self.ln_f(hidden_states)
        crossed = need_weights and inputs["encoder_hidden_states"] is not None
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden_states,
            hidden_states=(*states, hidden_states) if need_states else None,
            attentions=tuple(attentions) if need_weights else None,
            cross_attentions=tuple(cross_attentions) if crossed else None,
        )
