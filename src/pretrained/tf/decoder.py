"""Decoders as Llama is one: rotary positions, RMS norm, gated feed-forward, grouped heads. Families say what differs.

A family's module is a `Decoder` that is built with the family's `Wiring`; its heads are those of `headed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from ..module_config import ModuleConfig
from . import masks, tasks
from .attention import attend, merge_heads, split_heads
from .blocks import GatedMLP, run_blocks
from .headed import TokenClassification
from .kinds import Normal
from .kv_cache import KVCache, Writing, extended, num_keys
from .layers import Embedding, Linear, Module, RMSNorm, folded, shape_of
from .outputs import TFBaseModelOutputWithPast
from .rope import Rotary, rotate

__all__ = ["HEAD_ROWS", "Decoder", "ScoredTokens", "Wiring"]

Tensor: TypeAlias = tf.Tensor

# What a facade says of these modules: heads of keys and values go with their group.
HEAD_ROWS: Mapping[str, Any] = {r"\.[kv]_proj\.": "groups"}


@dataclass(frozen=True)
class Wiring:
    """What a family does its own way.

    Attributes:
        rope: the rotary settings, with `rope_type` and `rope_theta`.
        windows: how many tokens each layer sees, its own included, None for all; None: all layers see all.
        qkv_bias: whether queries, keys and values have biases. out_bias: whether what follows attention has one.
        mlp_bias: whether the feed-forward part has any.
        head_norms: whether queries and keys are normalised in each head before they are rotated.
    """

    rope: Mapping[str, Any]
    windows: Sequence[int | None] | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False


class GroupedAttention(Module):
    """Causal attention in which several query heads share one head of keys and values."""

    def __init__(self, config: ModuleConfig, layer_idx: int, wiring: Wiring) -> None:
        super().__init__()
        self.config, self.layer_idx, self.head_dim = config, layer_idx, config.head_dim
        heads, groups = config.num_heads(layer_idx), config.num_groups(layer_idx)
        init = Normal(config.initializer_range)
        self.q_proj = Linear(config.hidden_size, heads * self.head_dim, wiring.qkv_bias, init=init)
        self.k_proj = Linear(config.hidden_size, groups * self.head_dim, wiring.qkv_bias, init=init)
        self.v_proj = Linear(config.hidden_size, groups * self.head_dim, wiring.qkv_bias, init=init)
        self.o_proj = Linear(heads * self.head_dim, config.hidden_size, wiring.out_bias, init=init)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if wiring.head_norms else None
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if wiring.head_norms else None

    def call(
        self,
        hidden_states: Tensor,
        rotations: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        cache: Writing | None = None,
        need_weights: bool = False,
        rng: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        query, key, value = (
            split_heads(layer(hidden_states), self.head_dim) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        key, value = extended(cache, self.layer_idx, rotate(key, *rotations), value)
        out, weights = attend(
            self.config._attn_implementation,
            rotate(query, *rotations),
            key,
            value,
            mask,
            scale=self.head_dim**-0.5,
            rate=self.config.attention_dropout,
            rng=rng,
            need_weights=need_weights,
        )
        return self.o_proj(merge_heads(out)), weights


class DecoderLayer(Module):
    """One block; each half is normalised first and added to its input."""

    def __init__(self, config: ModuleConfig, layer_idx: int, wiring: Wiring, mask_index: int) -> None:
        super().__init__()
        self.mask_index = mask_index
        sizes = (config.hidden_size, config.intermediate_size)
        self.self_attn = GroupedAttention(config, layer_idx, wiring)
        self.mlp = GatedMLP(sizes, config.hidden_act, Normal(config.initializer_range), wiring.mlp_bias)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def call(self, hidden_states: Tensor, seen: Sequence[Tensor], **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or None; keywords as `GroupedAttention` has them."""
        mask = seen[self.mask_index]
        attended, weights = self.self_attn(self.input_layernorm(hidden_states), mask=mask, **inputs)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)), weights


class Decoder(Module):
    """Embeddings, blocks and a last norm."""

    def __init__(self, config: ModuleConfig, wiring: Wiring) -> None:
        super().__init__()
        self.config = config
        init = Normal(config.initializer_range, padding=config.pad_token_id)
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, init=init, dtype=config.compute_dtype)
        windows = tuple(wiring.windows or [None] * config.num_hidden_layers)
        self.windows = tuple(dict.fromkeys(windows))  # one mask for all layers of a window
        self.layers = [DecoderLayer(config, i, wiring, self.windows.index(window)) for i, window in enumerate(windows)]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(wiring.rope, config.head_dim, config.max_position_embeddings)

    @property
    def input_embeddings(self) -> Embedding:
        """The word embeddings."""
        return self.embed_tokens

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Tensor | None = None,
    ) -> TFBaseModelOutputWithPast:
        """Hidden states `(batch, seq, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, past + seq)`, 1 for tokens and 0 for padding on either side; one with 3 or 4 axes
                is the whole mask, for all layers alike.
            position_ids: `(batch or 1, seq)`, those after the past by default.
            past_key_values: a preallocated cache; the output has it with the new tokens.
            inputs_embeds: `(batch, seq, hidden)` in place of `input_ids`.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the embeddings and the results of all layers, the last normalised.
            rng: a seed for dropout.
        """
        tasks.require_one(input_ids, inputs_embeds)
        states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        num_new = shape_of(states)[1]
        cache = None if past_key_values is None else Writing(past_key_values)
        start = 0 if cache is None else cache.start
        if position_ids is None:
            position_ids = (tf.range(num_new) + start)[None]
        given = (attention_mask, num_new, num_keys(cache, num_new), start)
        passed = run_blocks(
            self.config,
            self.layers,
            states,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            rng=folded(rng, 1),
            seen=tuple(masks.causal(*given, window=window) for window in self.windows),
            rotations=self.rotary(position_ids, states.dtype),
            cache=cache,
        )
        last = self.norm(passed.last)
        return TFBaseModelOutputWithPast(
            last_hidden_state=last,
            past_key_values=None if cache is None else cache.after(num_new),
            hidden_states=None if passed.states is None else (*passed.states[:-1], last),
            attentions=passed.attentions,
        )


class ScoredTokens(TokenClassification):
    """Logits for each token, by the layer and after the dropout that these decoders have."""

    layer_name = "score"

    @property
    def rate(self) -> float:
        """`classifier_dropout`, 0.1 where the config says nothing."""
        rate: float | None = self.config.classifier_dropout
        return 0.1 if rate is None else rate
