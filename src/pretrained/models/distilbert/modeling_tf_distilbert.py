"""DistilBERT (arXiv 1910.01108) in TensorFlow: BERT with half the layers, no segments and no pooler.

Heads are in another file. Modules and parameters have the names of torch's checkpoints. Shapes are written with the
axes batch, seq, hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import tensorflow as tf

from ..._types import Shape
from ...errors import ConfigError
from ...module_config import ModuleConfig
from ...tf import masks, tasks
from ...tf.attention import attend, merge_heads, split_heads
from ...tf.blocks import run_blocks
from ...tf.kinds import TABLE, Normal
from ...tf.layers import Embedding, LayerNorm, Linear, Module, activation, chunked, dropout, folded, shape_of
from ...tf.modeling import TFPreTrainedModel
from ...tf.outputs import TFBaseModelOutput
from .configuration_distilbert import DistilBertConfig
from .sinusoids import sinusoid_table

__all__ = ["EPSILON", "TFDistilBertModel", "TFDistilBertModule", "TFDistilBertPreTrainedModel"]

Tensor: TypeAlias = tf.Tensor
EPSILON = 1e-12  # of all norms; no config says otherwise


@dataclass(frozen=True)
class Sinusoids:
    """Sines and cosines, nothing random, of as many positions as there are rows."""

    def draw(self, seed: Any, shape: Shape, dtype: Any) -> Tensor:
        """The table `(positions, dim)`."""
        return tf.cast(sinusoid_table(*shape), dtype)


class TFDistilBertEmbeddings(Module):
    """Sum of word and position embeddings, normalised."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        init, size, dtype = Normal(config.initializer_range, config.pad_token_id), config.dim, config.compute_dtype
        places = Sinusoids() if config.sinusoidal_pos_embds else Normal(config.initializer_range)
        self.word_embeddings = Embedding(config.vocab_size, size, init=init, dtype=dtype, kind=TABLE)
        self.position_embeddings = Embedding(config.max_position_embeddings, size, init=places, dtype=dtype)
        if config.sinusoidal_pos_embds:
            self.position_embeddings.weight = replace(self.position_embeddings.weight, is_trainable=False)
        self.LayerNorm = LayerNorm(size, EPSILON)

    def call(
        self, input_ids: Any, position_ids: Tensor | None, inputs_embeds: Tensor | None, rng: Tensor | None = None
    ) -> Tensor:
        """`(batch, seq, hidden)` of `(batch, seq)` ids and `(batch or 1, seq)` positions, 0, 1, … by default."""
        embeddings = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        length, limit = shape_of(embeddings)[1], self.config.max_position_embeddings
        if isinstance(length, int) and length > limit:
            raise ValueError(f"{length} tokens are more than max_position_embeddings={limit}")
        if position_ids is None:
            position_ids = tf.range(length)[None]
        embeddings = embeddings + self.position_embeddings(position_ids)
        return dropout(self.LayerNorm(embeddings), self.config.dropout, rng)


class TFDistilBertAttention(Module):
    """Attention of every token to every token."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        if config.dim % config.n_heads:
            raise ConfigError(
                f"heads must divide the hidden size: dim={config.dim}, n_heads={config.n_heads}", key="n_heads"
            )
        self.config, self.head_dim = config, config.dim // config.n_heads
        size, init = self.head_dim * config.num_heads(layer_idx), Normal(config.initializer_range)
        self.q_lin = Linear(config.dim, size, init=init)
        self.k_lin = Linear(config.dim, size, init=init)
        self.v_lin = Linear(config.dim, size, init=init)
        self.out_lin = Linear(size, config.dim, init=init)

    def call(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        need_weights: bool = False,
        rng: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        query, key, value = (
            split_heads(layer(hidden_states), self.head_dim) for layer in (self.q_lin, self.k_lin, self.v_lin)
        )
        out, weights = attend(
            self.config._attn_implementation,
            query,
            key,
            value,
            mask,
            scale=self.head_dim**-0.5,
            rate=self.config.attention_dropout,
            rng=rng,
            head_mask=head_mask,
            need_weights=need_weights,
        )
        return self.out_lin(merge_heads(out)), weights


class TFFFN(Module):
    """The feed-forward part."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config, init = config, Normal(config.initializer_range)
        self.lin1 = Linear(config.dim, config.hidden_dim, init=init)
        self.lin2 = Linear(config.hidden_dim, config.dim, init=init)
        self.act = activation(config.activation, "activation")

    def call(self, hidden_states: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, seq, hidden)`."""
        size = self.config.chunk_size_feed_forward if rng is None else 0
        out = chunked(lambda x: self.lin2(self.act(self.lin1(x))), size, hidden_states)
        return dropout(out, self.config.dropout, rng)


class TFTransformerBlock(Module):
    """One block: attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        self.attention = TFDistilBertAttention(config, layer_idx)
        self.sa_layer_norm = LayerNorm(config.dim, EPSILON)
        self.ffn = TFFFN(config)
        self.output_layer_norm = LayerNorm(config.dim, EPSILON)

    def call(self, hidden_states: Tensor, rng: Tensor | None = None, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, seq, hidden)` and the weights or None; keywords as `TFDistilBertAttention` has them."""
        attended, weights = self.attention(hidden_states, rng=folded(rng, 0), **inputs)
        hidden_states = self.sa_layer_norm(attended + hidden_states)
        return self.output_layer_norm(self.ffn(hidden_states, folded(rng, 1)) + hidden_states), weights


class TFTransformer(Module):
    """The stack of blocks."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.layer = [TFTransformerBlock(config, index) for index in range(config.n_layers)]


class TFDistilBertModule(Module):
    """The blocks with their embeddings."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TFDistilBertEmbeddings(config)
        self.transformer = TFTransformer(config)

    @property
    def input_embeddings(self) -> Embedding:
        """The word embeddings."""
        return self.embeddings.word_embeddings

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        rng: Tensor | None = None,
    ) -> TFBaseModelOutput:
        """Hidden states `(batch, seq, hidden)`.

        Args:
            input_ids: `(batch, seq)`; or give `inputs_embeds`.
            attention_mask: `(batch, seq)`, 1 for tokens and 0 for padding; `(batch, queries, keys)` too.
            head_mask: `(heads,)` or `(layers, heads)`, 0 for heads that are switched off.
            inputs_embeds: `(batch, seq, hidden)` in place of `input_ids`.
            position_ids: `(batch or 1, seq)`, 0, 1, … by default.
            output_attentions: whether to return the weights of all layers; computed by "eager".
            output_hidden_states: whether to return the embeddings and the results of all layers.
            rng: a seed for dropout.
        """
        tasks.require_one(input_ids, inputs_embeds)
        passed = run_blocks(
            self.config,
            self.transformer.layer,
            self.embeddings(input_ids, position_ids, inputs_embeds, folded(rng, 0)),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            head_mask=head_mask,
            rng=folded(rng, 1),
            mask=masks.bidirectional(attention_mask),
        )
        return TFBaseModelOutput(passed.last, passed.states, passed.attentions)


class TFDistilBertPreTrainedModel(TFPreTrainedModel):
    """Base of all DistilBERT models in TensorFlow."""

    config: DistilBertConfig
    config_class = DistilBertConfig
    base_model_prefix = "distilbert"
    # Releases before 4.31 saved this buffer.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]
    _input_embeddings = "distilbert.embeddings.word_embeddings.weight"


class TFDistilBertModel(TFDistilBertPreTrainedModel):
    """DistilBERT without a head."""

    module_class = TFDistilBertModule
    _input_embeddings = "embeddings.word_embeddings.weight"
