"""GPT-2 (Radford et al., Language Models are Unsupervised Multitask Learners, 2019) in TensorFlow: the decoder.

Heads are in modeling_tf_gpt2_heads. Modules and parameters have the names and layouts of torch's checkpoints; the
linear layers are `Conv1D`, whose weights are `(in, out)`. Shapes are written with the axes batch, seq, hidden.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import ConfigError
from ...module_config import ModuleConfig
from ...tf import masks, tasks
from ...tf.attention import attend, merge_heads, split_heads
from ...tf.blocks import run_blocks
from ...tf.kinds import Normal
from ...tf.kv_cache import KVCache, Writing, extended, num_keys
from ...tf.layers import Conv1D, Embedding, LayerNorm, Module, activation, dropout, folded, shape_of, wide_dtype
from ...tf.modeling import TFPreTrainedModel
from ...tf.outputs import TFBaseModelOutputWithPastAndCrossAttentions
from .configuration_gpt2 import GPT2Config

__all__ = ["TFGPT2Model", "TFGPT2Module", "TFGPT2PreTrainedModel"]

Tensor: TypeAlias = tf.Tensor


def _into_the_stream(config: ModuleConfig) -> Normal:
    """How layers are drawn that add to the residual stream: smaller the more of them there are (section 2.3)."""
    return Normal(config.initializer_range / math.sqrt(2 * config.n_layer))


class TFGPT2Attention(Module):
    """Causal attention to the sequence itself, or attention to an encoder's output."""

    def __init__(self, config: ModuleConfig, layer_idx: int, is_cross_attention: bool = False) -> None:
        super().__init__()
        if config.n_embd % config.n_head:
            sizes = f"n_embd={config.n_embd}, n_head={config.n_head}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="n_head")
        self.config, self.layer_idx, self.head_dim = config, layer_idx, config.n_embd // config.n_head
        scale = self.head_dim**-0.5 if config.scale_attn_weights else 1.0
        self.scale = scale / (layer_idx + 1) if config.scale_attn_by_inverse_layer_idx else scale
        heads = config.n_head if is_cross_attention else config.num_heads(layer_idx)
        width, init = heads * self.head_dim, Normal(config.initializer_range)
        # One layer makes queries, keys and values; of an encoder's output only the last two are made.
        self.c_attn = Conv1D((2 if is_cross_attention else 3) * width, config.n_embd, init=init)
        self.q_attn = Conv1D(width, config.n_embd, init=init) if is_cross_attention else None
        self.c_proj = Conv1D(config.n_embd, width, init=_into_the_stream(config))

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
        if self.q_attn is None:
            query, key, value = self._split(self.c_attn(hidden_states), 3)
            key, value = extended(cache, self.layer_idx, key, value)
        else:
            query = split_heads(self.q_attn(hidden_states), self.head_dim)
            assert encoder_hidden_states is not None
            key, value = self._split(self.c_attn(encoder_hidden_states), 2)
        dtype = value.dtype
        wide = wide_dtype(value) if self.config.reorder_and_upcast_attn else dtype
        out, weights = attend(
            self.config._attn_implementation,
            tf.cast(query, wide),
            tf.cast(key, wide),
            tf.cast(value, wide),
            mask,
            scale=self.scale,
            rate=self.config.attn_pdrop,
            rng=rng,
            head_mask=head_mask,
            need_weights=need_weights,
        )
        projected = self.c_proj(tf.cast(merge_heads(out), dtype))
        weights = None if weights is None else tf.cast(weights, dtype)
        return dropout(projected, self.config.resid_pdrop, folded(rng, 1)), weights

    def _split(self, projected: Tensor, parts: int) -> list[Tensor]:
        return [split_heads(part, self.head_dim) for part in tf.split(projected, parts, -1)]


class TFGPT2MLP(Module):
    """The feed-forward part."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        width = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.c_fc = Conv1D(width, config.n_embd, init=Normal(config.initializer_range))
        self.c_proj = Conv1D(config.n_embd, width, init=_into_the_stream(config))
        self.act = activation(config.activation_function, "activation_function")

    def call(self, hidden_states: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, seq, hidden)`."""
        return dropout(self.c_proj(self.act(self.c_fc(hidden_states))), self.config.resid_pdrop, rng)


class TFGPT2Block(Module):
    """One block: attention, attention to an encoder if there is one, feed-forward; each normalises its own input."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        is_crossed, size, eps = config.add_cross_attention, config.n_embd, config.layer_norm_epsilon
        self.ln_1 = LayerNorm(size, eps)
        self.attn = TFGPT2Attention(config, layer_idx)
        self.ln_2 = LayerNorm(size, eps)
        self.crossattention = TFGPT2Attention(config, layer_idx, is_cross_attention=True) if is_crossed else None
        self.ln_cross_attn = LayerNorm(size, eps) if is_crossed else None
        self.mlp = TFGPT2MLP(config)

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
        shared: dict[str, Any] = {"head_mask": head_mask, "need_weights": need_weights}
        attended, weights = self.attn(self.ln_1(hidden_states), mask=mask, cache=cache, rng=folded(rng, 0), **shared)
        hidden_states = hidden_states + attended
        cross_weights = None
        if encoder_hidden_states is not None:
            if self.crossattention is None or self.ln_cross_attn is None:
                raise ValueError("encoder_hidden_states need a model with add_cross_attention=True")
            attended, cross_weights = self.crossattention(
                self.ln_cross_attn(hidden_states),
                mask=encoder_mask,
                encoder_hidden_states=encoder_hidden_states,
                rng=folded(rng, 1),
                **shared,
            )
            hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.ln_2(hidden_states), folded(rng, 2)), weights, cross_weights


class TFGPT2Module(Module):
    """Embeddings, blocks and a last norm."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        init, dtype = Normal(config.initializer_range), config.compute_dtype
        self.wte = Embedding(config.vocab_size, config.n_embd, init=init, dtype=dtype)
        self.wpe = Embedding(config.n_positions, config.n_embd, init=init, dtype=dtype)
        self.h = [TFGPT2Block(config, index) for index in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)

    @property
    def input_embeddings(self) -> Embedding:
        """The word embeddings."""
        return self.wte

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: KVCache | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Tensor | None = None,
    ) -> TFBaseModelOutputWithPastAndCrossAttentions:
        """Hidden states `(batch, seq, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, past + seq)`, 1 for tokens and 0 for padding; one with 3 or 4 axes is the whole.
            position_ids: `(batch or 1, seq)`, those after the past by default, whatever the mask: a batch that is
                padded on the left needs them.
            encoder_hidden_states: `(batch, encoder seq, hidden)` to attend to.
            encoder_attention_mask: `(batch, encoder seq)` for these.
            token_type_ids: `(batch, seq)` of tokens whose embeddings are added.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            inputs_embeds: `(batch, seq, hidden)` in place of `input_ids`.
            past_key_values: a preallocated cache; the output has it with the new tokens.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the embeddings and the results of all layers, the last normalised.
            rng: a seed for dropout.
        """
        tasks.require_one(input_ids, inputs_embeds)
        states = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        num_new = shape_of(states)[1]
        cache = None if past_key_values is None else Writing(past_key_values)
        start = 0 if cache is None else cache.start
        states = states + self._embed_positions(position_ids, num_new, start)
        if token_type_ids is not None:
            states = states + self.wte(token_type_ids)
        passed = run_blocks(
            self.config,
            self.h,
            dropout(states, self.config.embd_pdrop, folded(rng, 0)),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            head_mask=head_mask,
            rng=folded(rng, 1),
            mask=masks.causal(attention_mask, num_new, num_keys(cache, num_new), start),
            encoder_hidden_states=encoder_hidden_states,
            encoder_mask=masks.bidirectional(encoder_attention_mask),
            cache=cache,
        )
        last = self.ln_f(passed.last)
        return TFBaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=last,
            past_key_values=None if cache is None else cache.after(num_new),
            hidden_states=None if passed.states is None else (*passed.states[:-1], last),
            attentions=passed.attentions,
            cross_attentions=passed.crossed,
        )

    def _embed_positions(self, position_ids: Any, num_new: int, start: Any) -> Tensor:
        if position_ids is None:
            if isinstance(num_new, int) and num_new > (limit := self.config.n_positions):
                raise ValueError(f"{num_new} tokens are more than n_positions={limit}")
            position_ids = (tf.range(num_new) + start)[None]
        return self.wpe(position_ids)


class TFGPT2PreTrainedModel(TFPreTrainedModel):
    """Base of all GPT-2 models in TensorFlow."""

    config: GPT2Config
    config_class = GPT2Config
    base_model_prefix = "transformer"
    # The causal mask and the number put in masked places: older releases, and the published files, have them.
    _keys_to_ignore_on_load_unexpected = [r"(^|\.)(attn|crossattention)\.(bias|masked_bias)$"]
    _input_embeddings = "transformer.wte.weight"
    _head_rows = {r"c_attn": 3}


class TFGPT2Model(TFGPT2PreTrainedModel):
    """GPT-2 without a head."""

    module_class = TFGPT2Module
    _input_embeddings = "wte.weight"
