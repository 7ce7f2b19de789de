"""Mixtral (arXiv 2401.04088): Mistral with a mixture of experts for each feed-forward half.

Modules and parameters have the names of the checkpoints, but for what rules.py says of experts. Shapes are written with
the axes batch, seq, hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...pt import tasks
from ...pt.attention import attend, merge_heads, split_heads
from ...pt.decoder import decode
from ...pt.experts import Experts, Router, init_normal_experts
from ...pt.generation.mixin import GenerationMixin
from ...pt.heads import prune_grouped_linears, prune_groups
from ...pt.layers import RMSNorm, init_normal, keep_places
from ...pt.modeling import PreTrainedModel
from ...pt.rope import RotaryEmbedding, rotate
from .._rope import rope_parameters
from .configuration_mixtral import MixtralConfig
from .rules import RULES

__all__ = ["MixtralForCausalLM", "MixtralModel", "MixtralPreTrainedModel"]


class MixtralAttention(nn.Module):
    """Causal attention in which several query heads share one head of keys and values."""

    def __init__(self, config: MixtralConfig, layer_idx: int) -> None:
        super().__init__()
        heads, groups = config.num_attention_heads, cast(int, config.num_key_value_heads)
        if heads % groups:
            sizes = f"num_attention_heads={heads}, num_key_value_heads={groups}"
            raise ConfigError(f"key heads must divide the query heads: {sizes}", key="num_key_value_heads")
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = cast(int, config.head_dim)
        self.num_heads = heads
        self.group_size = heads // groups
        self.pruned_heads: set[int] = set()
        self.q_proj = nn.Linear(config.hidden_size, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, groups * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, groups * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, config.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        causal: bool = False,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        query = rotate(split_heads(self.q_proj(hidden_states), self.head_dim), *position_embeddings)
        key = rotate(split_heads(self.k_proj(hidden_states), self.head_dim), *position_embeddings)
        value = split_heads(self.v_proj(hidden_states), self.head_dim)
        if past_key_values is not None:
            key, value = past_key_values.update(self.layer_idx, key, value, cache_position)
        out, weights = attend(
            self.config._attn_implementation,
            query,
            key,
            value,
            mask,
            scale=self.head_dim**-0.5,
            dropout=self.config.attention_dropout if self.training else 0.0,
            causal=causal,
            need_weights=need_weights,
        )
        return self.o_proj(merge_heads(out)), weights

    def prune_heads(self, heads: Collection[int]) -> None:
        """Takes heads of queries out, and the head of keys and values that they share."""
        shared = (self.k_proj, self.v_proj)
        prune_grouped_linears(self, heads, self.q_proj, shared, self.o_proj, group_size=self.group_size)


class MixtralSparseMoeBlock(nn.Module):
    """The feed-forward half: the sum of what the chosen experts make of a token."""

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__()
        self.jitter_noise = config.router_jitter_noise
        self.gate = Router(config.hidden_size, config.num_local_experts, config.num_experts_per_tok)
        self.experts = Experts(
            config.num_local_experts, config.hidden_size, config.intermediate_size, config.hidden_act
        )

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, seq, hidden)` and the logits of the router `(batch * seq, experts)`."""
        if self.training and self.jitter_noise > 0:
            noise = torch.empty_like(hidden_states).uniform_(1.0 - self.jitter_noise, 1.0 + self.jitter_noise)
            hidden_states = hidden_states * noise
        tokens = hidden_states.flatten(0, 1)
        logits, weights, chosen = self.gate(tokens)
        return self.experts(tokens, weights, chosen).view_as(hidden_states), logits


class MixtralDecoderLayer(nn.Module):
    """One block; each half is normalised first and added to its input."""

    def __init__(self, config: MixtralConfig, layer_idx: int) -> None:
        super().__init__()
        self.window = config.sliding_window
        self.self_attn = MixtralAttention(config, layer_idx)
        self.mlp = MixtralSparseMoeBlock(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None, Tensor]:
        """`(batch, seq, hidden)`, the weights or `None`, and router logits `(batch * seq, experts)`.

        Keywords are as `MixtralAttention.forward` has them.
        """
        attended, weights = self.self_attn(self.input_layernorm(hidden_states), **inputs)
        hidden_states = hidden_states + attended
        mixed, logits = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + mixed, weights, logits


class MixtralPreTrainedModel(PreTrainedModel):
    """Base of all Mixtral models."""

    config: MixtralConfig
    config_class = MixtralConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["MixtralDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]

    _rules = RULES

    def _init_weights(self, module: nn.Module) -> None:
        init_normal(module, self.config.initializer_range)
        init_normal_experts(module, self.config.initializer_range)


class MixtralModel(MixtralPreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    gradient_checkpointing = False

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(MixtralDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(
            rope_parameters(config), cast(int, config.head_dim), config.max_position_embeddings
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.embed_tokens = cast(nn.Embedding, value)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        prune_groups(
            {layer: cast(MixtralDecoderLayer, self.layers[layer]).self_attn for layer in heads_to_prune}, heads_to_prune
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        output_router_logits: bool | None = None,
    ) -> tasks.Output:
        """Hidden states `(batch, seq, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, past + seq)`, 1 for tokens and 0 for padding on either side; masks of 3 and 4
                axes as `masks.causal` has them.
            position_ids: `(batch or 1, seq)`, those after the past by default.
            past_key_values: a cache, or legacy tuples; what is returned is of the same kind.
            inputs_embeds: `(batch, seq, hidden)` instead of looking `input_ids` up.
            use_cache: whether to return a cache; by default what the config says.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the embeddings and the results of all layers, the last normalised.
            return_dict: `False` for a plain tuple.
            cache_position: `(seq,)` places of the new tokens in the cache, after the past by default.
            output_router_logits: whether to return the logits of all routers; by default what the config says.
        """
        wanted = self.config.output_router_logits if output_router_logits is None else output_router_logits
        return decode(
            self,
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            output_attentions,
            output_hidden_states,
            return_dict,
            cache_position,
            output_router_logits=wanted,
        )


class MixtralForCausalLM(MixtralPreTrainedModel, GenerationMixin):
    """Mixtral with next-token logits."""

    loss_type = "ForCausalLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: MixtralConfig) -> None:
        super().__init__(config)
        self.model = MixtralModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The projection onto the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replaces the projection onto the vocabulary."""
        self.lm_head = cast(nn.Linear, new_embeddings)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        output_router_logits: bool | None = None,
    ) -> tasks.Output:
        """Logits `(batch, seq, vocab)`; inputs that are not described here are those of `MixtralModel`.

        Args:
            labels: `(batch, seq)`, the tokens themselves: each is predicted at the place before it; -100 is skipped.
            logits_to_keep: how many of the last places get logits (0: all), or which ones, as a 1-D tensor.
            num_items_in_batch: the loss is divided by this rather than by the number of labels in the call.
            output_router_logits: as for the base model; `aux_loss` is returned with them, and is part of the loss.
        """
        outputs = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            cache_position=cache_position,
            output_router_logits=output_router_logits,
        )
        logits = self.lm_head(keep_places(outputs.last_hidden_state, logits_to_keep))
        return tasks.routed_causal_lm(
            self.config,
            outputs,
            logits,
            labels,
            return_dict,
            num_items_in_batch,
            num_experts=self.config.num_local_experts,
            attention_mask=attention_mask,
        )
