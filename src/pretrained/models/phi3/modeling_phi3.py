"""Phi-3 (arXiv 2404.14219): a decoder with one projection for queries, keys and values and one for gate and value.

Modules and parameters have the names of the checkpoints. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from torch import Tensor, nn

from ...errors import ConfigError
from ...pt import tasks
from ...pt.attention import attend, merge_heads, split_heads
from ...pt.decoder import decode
from ...pt.heads import prune_grouped_linear, prune_groups
from ...pt.layers import RMSNorm, activation, init_normal, keep_places
from ...pt.modeling import PreTrainedModel
from ...pt.rope import RotaryEmbedding, rotate
from ...pt.step_inputs import step_inputs
from .._rope import rope_parameters
from .configuration_phi3 import Phi3Config

__all__ = ["Phi3ForCausalLM", "Phi3Model", "Phi3PreTrainedModel"]


class Phi3Attention(nn.Module):
    """Causal attention in which several query heads share one head of keys and values."""

    def __init__(self, config: Phi3Config, layer_idx: int) -> None:
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
        self.o_proj = nn.Linear(heads * self.head_dim, config.hidden_size, bias=False)
        self.qkv_proj = nn.Linear(config.hidden_size, (heads + 2 * groups) * self.head_dim, bias=False)

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
        groups = self.num_heads // self.group_size
        heads = split_heads(self.qkv_proj(hidden_states), self.head_dim)
        query, key, value = heads.split((self.num_heads, groups, groups), 1)
        query, key = rotate(query, *position_embeddings), rotate(key, *position_embeddings)
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
        prune_grouped_linear(self, heads, self.qkv_proj, self.o_proj, group_size=self.group_size)


class Phi3MLP(nn.Module):
    """A gated feed-forward half (arXiv 2002.05202) whose gate and value come out of one projection."""

    def __init__(self, config: Phi3Config) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.activation_fn = activation(config.hidden_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, seq, hidden)`."""
        gate, value = self.gate_up_proj(hidden_states).chunk(2, -1)
        return self.down_proj(self.activation_fn(gate) * value)


class Phi3DecoderLayer(nn.Module):
    """One block; each half is normalised first and added to its input."""

    def __init__(self, config: Phi3Config, layer_idx: int) -> None:
        super().__init__()
        self.window = config.sliding_window
        self.self_attn = Phi3Attention(config, layer_idx)
        self.mlp = Phi3MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.resid_attn_dropout = nn.Dropout(config.resid_pdrop)
        self.resid_mlp_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden_states: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or `None`; keywords as `Phi3Attention.forward` has them."""
        attended, weights = self.self_attn(self.input_layernorm(hidden_states), **inputs)
        hidden_states = hidden_states + self.resid_attn_dropout(attended)
        widened = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + self.resid_mlp_dropout(widened), weights


def rope_settings(config: Phi3Config) -> dict[str, Any]:
    """The rotary settings in the spelling of `pt.rope`."""
    settings = rope_parameters(config)
    if settings["rope_type"] == "yarn":  # what this family means by it has two lists of factors
        settings["rope_type"] = "longrope"
    return settings


class Phi3PreTrainedModel(PreTrainedModel):
    """Base of all Phi-3 models."""

    config: Phi3Config
    config_class = Phi3Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Phi3DecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]

    def _init_weights(self, module: nn.Module) -> None:
        init_normal(module, self.config.initializer_range)


class Phi3Model(Phi3PreTrainedModel):
    """The decoder: embeddings, blocks and a last norm."""

    gradient_checkpointing = False

    def __init__(self, config: Phi3Config) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(Phi3DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(
            rope_settings(config), cast(int, config.head_dim), config.max_position_embeddings
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
            {layer: cast(Phi3DecoderLayer, self.layers[layer]).self_attn for layer in heads_to_prune}, heads_to_prune
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


class Phi3ForCausalLM(Phi3PreTrainedModel):
    """Phi-3 with next-token logits."""

    loss_type = "ForCausalLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: Phi3Config) -> None:
        super().__init__(config)
        self.model = Phi3Model(config)
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
        """Logits `(batch, seq, vocab)`; inputs that are not described here are those of `Phi3Model`.

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
        return tasks.causal_lm(self.config, outputs, logits, labels, return_dict, num_items_in_batch)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, past_key_values: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The inputs of one step of generation: of `input_ids` `(batch, seq)` what the cache does not hold yet.

        A text that grows beyond the trained length has other frequencies from then on (longrope), and keys that were
        turned by the shorter ones do not fit: the cache is emptied, and all of `input_ids` is computed anew.
        """
        settings = self.model.rotary_emb.settings
        if past_key_values is not None and settings["rope_type"] == "longrope":
            past, trained = past_key_values.get_seq_length(), settings["original_max_position_embeddings"]
            if 0 < past <= trained < input_ids.shape[1]:
                past_key_values.crop(0)
        return step_inputs(input_ids, past_key_values=past_key_values, **kwargs)
