"""Wav2Vec2 (arXiv 2006.11477) in TensorFlow: features of a waveform through an encoder.

Heads are in modeling_tf_wav2vec2_heads. Modules and parameters have the names and layouts of torch's checkpoints.
Shapes have the axes batch, frames, hidden.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import ConfigError
from ...module_config import ModuleConfig
from ...tf import masks
from ...tf.attention import attend, merge_heads, split_heads
from ...tf.blocks import Passed, run_blocks
from ...tf.kinds import Normal, Uniform
from ...tf.layers import LayerNorm, Linear, Module, activation, dropout, folded, parameter, shape_of, value
from ...tf.modeling import TFPreTrainedModel
from ...tf.outputs import TFWav2Vec2BaseModelOutput
from .configuration_wav2vec2 import Wav2Vec2Config
from .frames import dummy_samples, num_frames
from .modeling_tf_wav2vec2_features import (
    TFWav2Vec2Adapter,
    TFWav2Vec2AttnAdapterLayer,
    TFWav2Vec2FeatureEncoder,
    TFWav2Vec2FeatureProjection,
    TFWav2Vec2PositionalConvEmbedding,
)

__all__ = ["TFWav2Vec2Model", "TFWav2Vec2Module", "TFWav2Vec2PreTrainedModel", "frame_mask", "num_samples"]

Tensor: TypeAlias = tf.Tensor


def frame_mask(config: Any, length: Any, attention_mask: Tensor, add_adapter: bool | None = None) -> Tensor:
    """`(batch, length)`, true for frames of sound, from `(batch, samples)` that is 1 for sound, then 0."""
    frames = num_frames(config, num_samples(attention_mask), add_adapter)
    return tf.range(length) < frames[:, None]


def num_samples(attention_mask: Tensor) -> Tensor:
    """`(batch,)`: how much of each row of `(batch, samples)` is sound."""
    return tf.reduce_sum(tf.cast(attention_mask, tf.int32), -1)


class TFWav2Vec2Attention(Module):
    """Attention of every frame to every frame."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            sizes = f"hidden_size={config.hidden_size}, num_attention_heads={config.num_attention_heads}"
            raise ConfigError(f"heads must divide the hidden size: {sizes}", key="num_attention_heads")
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        init, size = Normal(config.initializer_range), self.head_dim * config.num_heads(layer_idx)
        self.k_proj = Linear(config.hidden_size, size, init=init)
        self.v_proj = Linear(config.hidden_size, size, init=init)
        self.q_proj = Linear(config.hidden_size, size, init=init)
        self.out_proj = Linear(size, config.hidden_size, init=init)

    def call(
        self, hidden_states: Tensor, mask: Tensor | None = None, need_weights: bool = False, rng: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, frames, hidden)` and, if asked for, the weights `(batch, heads, queries, keys)`."""
        out, weights = attend(
            self.config._attn_implementation,
            split_heads(self.q_proj(hidden_states), self.head_dim),
            split_heads(self.k_proj(hidden_states), self.head_dim),
            split_heads(self.v_proj(hidden_states), self.head_dim),
            mask,
            scale=self.head_dim**-0.5,
            rate=self.config.attention_dropout,
            rng=rng,
            need_weights=need_weights,
        )
        return self.out_proj(merge_heads(out)), weights


class TFWav2Vec2FeedForward(Module):
    """The feed-forward part of a block."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config, init = config, Normal(config.initializer_range)
        self.intermediate_dense = Linear(config.hidden_size, config.intermediate_size, init=init)
        self.output_dense = Linear(config.intermediate_size, config.hidden_size, init=init)
        self.act = activation(config.hidden_act)

    def call(self, hidden_states: Tensor, rng: Tensor | None = None) -> Tensor:
        """`(batch, frames, hidden)`."""
        inner = dropout(self.act(self.intermediate_dense(hidden_states)), self.config.activation_dropout, rng, 0)
        return dropout(self.output_dense(inner), self.config.hidden_dropout, rng, 1)


class TFWav2Vec2EncoderLayer(Module):
    """One block. With `do_stable_layer_norm` each half is normalised first, otherwise last."""

    def __init__(self, config: ModuleConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, size, eps = config, config.hidden_size, config.layer_norm_eps
        self.attention = TFWav2Vec2Attention(config, layer_idx)
        self.layer_norm = LayerNorm(size, eps)
        self.feed_forward = TFWav2Vec2FeedForward(config)
        self.final_layer_norm = LayerNorm(size, eps)
        has_adapter = config.adapter_attn_dim is not None and config.do_stable_layer_norm
        self.adapter_layer = TFWav2Vec2AttnAdapterLayer(config) if has_adapter else None

    def call(self, hidden_states: Tensor, rng: Tensor | None = None, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """`(batch, frames, hidden)` and the weights or None; keywords as `TFWav2Vec2Attention` has them.

        In training the block is left out with the probability `layerdrop` (LayerDrop, arXiv 1909.11556).
        """
        before, norm_first, rate = hidden_states, self.config.do_stable_layer_norm, self.config.hidden_dropout
        given = self.layer_norm(hidden_states) if norm_first else hidden_states
        attended, weights = self.attention(given, rng=folded(rng, 0), **inputs)
        hidden_states = hidden_states + dropout(attended, rate, rng, 1)
        if norm_first:
            hidden_states = hidden_states + self.feed_forward(self.final_layer_norm(hidden_states), folded(rng, 2))
        else:
            hidden_states = self.layer_norm(hidden_states)
            hidden_states = self.final_layer_norm(hidden_states + self.feed_forward(hidden_states, folded(rng, 2)))
        if self.adapter_layer is not None:
            hidden_states = hidden_states + self.adapter_layer(hidden_states)
        if rng is not None and self.config.layerdrop > 0:
            is_kept = tf.random.stateless_uniform((), folded(rng, 3)) >= self.config.layerdrop
            hidden_states = tf.where(is_kept, hidden_states, before)
        return hidden_states, weights


class TFWav2Vec2Encoder(Module):
    """Positions and the stack of blocks."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv_embed = TFWav2Vec2PositionalConvEmbedding(config)
        self.layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = [TFWav2Vec2EncoderLayer(config, index) for index in range(config.num_hidden_layers)]

    def call(
        self, hidden_states: Tensor, is_sound: Tensor | None = None, rng: Tensor | None = None, **wanted: Any
    ) -> Passed:
        """Result of the last block, normalised, and what was asked for of the others.

        `is_sound` `(batch, frames)` is true where there is sound.
        """
        if is_sound is not None:  # the convolution looks at padding too
            hidden_states = tf.where(is_sound[..., None], hidden_states, tf.zeros_like(hidden_states))
        norm_first = self.config.do_stable_layer_norm
        hidden_states = hidden_states + self.pos_conv_embed(hidden_states)
        hidden_states = hidden_states if norm_first else self.layer_norm(hidden_states)
        passed = run_blocks(
            self.config,
            self.layers,
            dropout(hidden_states, self.config.hidden_dropout, rng, 0),
            rng=folded(rng, 1),
            mask=masks.bidirectional(is_sound),
            **wanted,
        )
        if not norm_first:
            return passed
        last = self.layer_norm(passed.last)
        return passed._replace(last=last, states=None if passed.states is None else (*passed.states[:-1], last))


class TFWav2Vec2Module(Module):
    """The convolutions, the blocks and, if the config says so, the adapter."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = TFWav2Vec2FeatureEncoder(config)
        self.feature_projection = TFWav2Vec2FeatureProjection(config)
        # Checkpoints of models that mask nothing do not have it.
        has_mask = config.mask_time_prob > 0 or config.mask_feature_prob > 0
        self.masked_spec_embed = parameter((config.hidden_size,), Uniform(1.0, low=0.0)) if has_mask else None
        self.encoder = TFWav2Vec2Encoder(config)
        self.adapter = TFWav2Vec2Adapter(config) if config.add_adapter else None

    def call(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        freeze_feature_encoder: bool = False,
        rng: Tensor | None = None,
    ) -> TFWav2Vec2BaseModelOutput:
        """Hidden states `(batch, frames, hidden)` and the features `(batch, frames, channels)` they are made of.

        Args:
            input_values: `(batch, samples)`, normalised as the model was trained.
            attention_mask: `(batch, samples)`, 1 for sound and then 0 for padding.
            mask_time_indices: `(batch, frames)`, true for frames to hide; None hides nothing, in training too.
            output_attentions: whether to return the weights of all layers.
            output_hidden_states: whether to return what enters the first layer and the results of all, the last
                normalised.
            freeze_feature_encoder: whether the convolutions over the waveform are no part of the gradient.
            rng: a seed for dropout and for blocks that are left out.
        """
        if input_values is None:
            raise ValueError("give input_values")
        features = self.feature_extractor(input_values)
        if freeze_feature_encoder:
            features = tf.stop_gradient(features)
        is_sound = None
        if attention_mask is not None:
            is_sound = frame_mask(self.config, shape_of(features)[1], attention_mask, add_adapter=False)
        hidden_states, features = self.feature_projection(features, folded(rng, 0))
        passed = self.encoder(
            self._masked(hidden_states, mask_time_indices),
            is_sound,
            folded(rng, 1),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return TFWav2Vec2BaseModelOutput(
            last_hidden_state=passed.last if self.adapter is None else self.adapter(passed.last),
            extract_features=features,
            hidden_states=passed.states,
            attentions=passed.attentions,
        )

    def _masked(self, hidden_states: Tensor, mask_time_indices: Tensor | None) -> Tensor:
        """`(batch, frames, hidden)` with the given frames hidden."""
        if mask_time_indices is None or not self.config.apply_spec_augment:
            return hidden_states
        if self.masked_spec_embed is None:
            raise ValueError("mask_time_indices need mask_time_prob or mask_feature_prob above 0 in the config")
        is_hidden = tf.cast(mask_time_indices, tf.bool)[..., None]
        return tf.where(is_hidden, value(self.masked_spec_embed, hidden_states.dtype), hidden_states)


class TFWav2Vec2PreTrainedModel(TFPreTrainedModel):
    """Base of all Wav2Vec2 models in TensorFlow."""

    config: Wav2Vec2Config
    config_class = Wav2Vec2Config
    base_model_prefix = "wav2vec2"
    main_input_name = "input_values"
    _keras_list_mark = "."

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two recordings of silence, long enough for every mask and head."""
        return {"input_values": tf.zeros((2, dummy_samples(self.config)))}

    def _get_feat_extract_output_lengths(self, input_lengths: Any, add_adapter: bool | None = None) -> Any:
        """Number of frames of recordings with that many samples; after the adapter, if there is one."""
        return num_frames(self.config, input_lengths, add_adapter)


class TFWav2Vec2Model(TFWav2Vec2PreTrainedModel):
    """Wav2Vec2 without a head."""

    module_class = TFWav2Vec2Module
