"""Gemma 2 (arXiv 2408.00118): sliding and full layers in turn, norms on both sides of each half, capped scores.

Modules and parameters have the names of the checkpoints. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from torch import Tensor, nn

from ...errors import ConfigError
from ...pt import tasks
from ...pt.attention import attend, merge_heads, split_heads
from ...pt.blocks import GatedMLP
from ...pt.decoder import decode
from ...pt.generation.mixin import GenerationMixin
from ...pt.heads import prune_grouped_linears, prune_groups
from ...pt.layers import OffsetRMSNorm, ScaledEmbedding, init_normal, keep_places, soft_cap
from ...pt.modeling import PreTrainedModel
from ...pt.rope import RotaryEmbedding, rotate
from .._rope import rope_parameters
from .._windows import alternating_types, windows_of_types
from .configuration_gemma2 import Gemma2Config

__all__ = ["Gemma2ForCausalLM", "Gemma2Model", "Gemma2PreTrainedModel"]


class Gemma2Attention(nn.Module):
    """Causal attention in which several query heads share one head of keys and values."""

    def __init__(self, config: Gemma2Config, layer_idx: int) -> None:
        super().__init__()
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        if heads % groups:
            sizes = f"num_attention_heads={heads}, num_key_value_heads={groups}"
            raise ConfigError(f"key heads must divide the query heads: {sizes}", key="num_key_value_heads")
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_heads = heads
        self.group_size = heads // groups
        self.pruned_heads: set[int] = set()
        self.q_proj = nn.Linear(config.hidden_size, heads * self.head_dim, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, groups * self.head_dim, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, groups * self.head_dim, bias=config.attention_bias)
        self.o_proj = nn.Linear(heads * self.head_dim, config.hidden_size, bias=config.attention_bias)

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
            scale=self.config.query_pre_attn_scalar**-0.5,
            dropout=(self.config.attention_dropout or 0.0) if self.training else 0.0,
            causal=causal,
            need_weights=need_weights,
            softcap=self.config.attn_logit_softcapping,
        )
        return self.o_proj(merge_heads(out)), weights

    def prune_heads(self, heads: Collection[int]) -> None:
        """Takes heads of queries out, and the head of keys and values that they share."""
        shared = (self.k_proj, self.v_proj)
        prune_grouped_linears(self, heads, self.q_proj, shared, self.o_proj, group_size=self.group_size)


class Gemma2DecoderLayer(nn.Module):
    """One block; each half is normalised before and after, and added to its input."""

    def __init__(self, config: Gemma2Config, layer_idx: int, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.self_attn = Gemma2Attention(config, layer_idx)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_activation)
        self.input_layernorm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.pre_feedforward_layernorm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or `None`; keywords as `Gemma2Attention.forward` has them."""
        attended, weights = self.self_attn(self.input_layernorm(hidden_states), **inputs)
        hidden_states = hidden_states + self.post_attention_layernorm(attended)
        widened = self.mlp(self.pre_feedforward_layernorm(hidden_states))
        return hidden_states + self.post_feedforward_layernorm(widened), weights


class Gemma2PreTrainedModel(PreTrainedModel):
    """Base of all Gemma 2 models."""

    config: Gemma2Config
    config_class = Gemma2Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = False  # torch has no kernel that caps scores
    _no_split_modules = ["Gemma2DecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]

    def _init_weights(self, module: nn.Module) -> None:
        init_normal(module, self.config.initializer_range)


class Gemma2Model(Gemma2PreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    gradient_checkpointing = False

    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        if config.use_bidirectional_attention:
            message = "use_bidirectional_attention=True is not supported by Gemma 2; Gemma 3 has it"
            raise ConfigError(message, key="use_bidirectional_attention")
        self.embed_tokens = ScaledEmbedding(
            config.vocab_size, config.hidden_size, config.pad_token_id, config.hidden_size**0.5
        )
        windows = windows_of_types(config, alternating_types(config, 2), config.sliding_window)
        self.layers = nn.ModuleList(Gemma2DecoderLayer(config, index, window) for index, window in enumerate(windows))
        self.norm = OffsetRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(rope_parameters(config), config.head_dim, config.max_position_embeddings)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.embed_tokens = cast(ScaledEmbedding, value)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        prune_groups(
            {layer: cast(Gemma2DecoderLayer, self.layers[layer]).self_attn for layer in heads_to_prune}, heads_to_prune
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
        """
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
        )


class Gemma2ForCausalLM(Gemma2PreTrainedModel, GenerationMixin):
    """Gemma 2 with next-token logits."""

    loss_type = "ForCausalLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: Gemma2Config) -> None:
        super().__init__(config)
        self.model = Gemma2Model(config)
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
    ) -> tasks.Output:
        """Logits `(batch, seq, vocab)`; inputs that are not described here are those of `Gemma2Model`.

        Args:
            labels: `(batch, seq)`, the tokens themselves: each is predicted at the place before it; -100 is skipped.
            logits_to_keep: how many of the last places get logits (0: all), or which ones, as a 1-D tensor.
            num_items_in_batch: the loss is divided by this rather than by the number of labels in the call.
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
        )
        logits = self.lm_head(keep_places(outputs.last_hidden_state, logits_to_keep))
        logits = soft_cap(logits, self.config.final_logit_softcapping)
        return tasks.causal_lm(self.config, outputs, logits, labels, return_dict, num_items_in_batch)
