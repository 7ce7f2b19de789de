"""Wav2Vec2 in TensorFlow as it is trained without text: to tell what was masked from other sounds of the recording."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import ConfigError
from ...module_config import ModuleConfig
from ...tf.headed import asked
from ...tf.kinds import Normal, Uniform, fan_in
from ...tf.layers import Linear, Module, dropout, folded, parameter, shape_of, value, wide_dtype
from ...tf.outputs import TFWav2Vec2ForPreTrainingOutput
from .modeling_tf_wav2vec2 import TFWav2Vec2Module, TFWav2Vec2PreTrainedModel
from .modeling_tf_wav2vec2_losses import contrastive_loss

__all__ = ["TFWav2Vec2ForPreTraining"]

Tensor: TypeAlias = tf.Tensor


class TFWav2Vec2GumbelVectorQuantizer(Module):
    """One vector of each group's codebook for every frame: the best one, in training a drawn one (arXiv 1611.01144)."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.num_groups, self.num_vars = config.num_codevector_groups, config.num_codevectors_per_group
        if config.codevector_dim % self.num_groups:
            sizes = f"codevector_dim={config.codevector_dim}, num_codevector_groups={self.num_groups}"
            raise ConfigError(f"groups must divide the codevectors: {sizes}", key="num_codevector_groups")
        num, size = self.num_groups * self.num_vars, config.codevector_dim // self.num_groups
        self.codevectors = parameter((1, num, size), Uniform(1.0, low=0.0))
        self.weight_proj = Linear(config.conv_dim[-1], num, init=Normal(1.0))

    def call(
        self, features: Tensor, mask_time_indices: Tensor | None, temperature: Any, rng: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`(batch, frames, codevector_dim)` and the perplexity `()`, taken over the masked frames if any are.

        With a key the codes are drawn, the more evenly the higher the temperature; gradients are those of the shares.
        """
        scores = self.weight_proj(features)
        batch, frames = shape_of(scores)[:2]
        scores = tf.reshape(scores, (batch, frames, self.num_groups, self.num_vars))
        wide = tf.cast(scores, wide_dtype(scores))
        if rng is None:
            chosen = probs = tf.one_hot(tf.argmax(wide, -1), self.num_vars, dtype=wide.dtype)
        else:
            tiny = tf.constant(wide.dtype.as_numpy_dtype(1e-20))
            uniform = tf.random.stateless_uniform(tf.shape(wide), rng, tiny, 1, wide.dtype)
            shares = tf.nn.softmax((wide - tf.math.log(-tf.math.log(uniform))) / temperature)
            hard = tf.one_hot(tf.argmax(shares, -1), self.num_vars, dtype=wide.dtype)
            chosen, probs = hard - tf.stop_gradient(shares) + shares, tf.nn.softmax(wide)
        table = tf.reshape(value(self.codevectors, scores.dtype), (self.num_groups, self.num_vars, -1))
        vectors = tf.einsum("bfgv,gvd->bfgd", tf.cast(chosen, scores.dtype), table)
        counts = tf.ones((batch, frames)) if mask_time_indices is None else mask_time_indices
        weights = tf.cast(tf.cast(counts, tf.bool), probs.dtype)
        mean = tf.einsum("bfgv,bf->gv", probs, weights) / tf.reduce_sum(weights)
        perplexity = tf.reduce_sum(tf.exp(-tf.reduce_sum(tf.math.xlogy(mean, mean), -1)))
        return tf.reshape(vectors, (batch, frames, self.codevectors.shape[-1] * self.num_groups)), perplexity


class TFWav2Vec2ForPreTrainingModule(Module):
    """Wav2Vec2 with a quantizer, and the two projections that are compared."""

    inputs_like = TFWav2Vec2Module

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.wav2vec2 = TFWav2Vec2Module(config)
        self.quantizer = TFWav2Vec2GumbelVectorQuantizer(config)
        # These two were trained from torch's own initialisation.
        size, hidden, codes = config.proj_codevector_dim, config.hidden_size, config.codevector_dim
        self.project_hid = Linear(hidden, size, bias_init=fan_in(hidden))
        self.project_q = Linear(codes, size, bias_init=fan_in(codes))

    def call(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        sampled_negative_indices: Tensor | None = None,
        gumbel_temperature: Any = 2.0,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFWav2Vec2ForPreTrainingOutput:
        """Predictions and quantized features, each `(batch, frames, proj_codevector_dim)`, and the perplexity.

        Args:
            input_values: `(batch, samples)`.
            attention_mask: `(batch, samples)`, 1 for sound and then 0 for padding.
            mask_time_indices: `(batch, frames)`, true for the frames that are hidden and have to be found.
            sampled_negative_indices: `(batch, frames, negatives)`, places in `(batch * frames)` of the sounds to tell
                each from; with them there is a loss.
            gumbel_temperature: how evenly codes are drawn in training; lowered while training.
            rng: a seed for dropout and for codes; None outside of training, where the best codes are taken.
            inputs: as `TFWav2Vec2Module` has them.
        """
        outputs = self.wav2vec2(input_values, attention_mask, mask_time_indices, rng=rng, **inputs)
        features = dropout(outputs.extract_features, self.config.feat_quantizer_dropout, folded(rng, 2))
        vectors, perplexity = self.quantizer(features, mask_time_indices, gumbel_temperature, folded(rng, 3))
        found, wanted = self.project_hid(outputs.last_hidden_state), self.project_q(vectors)
        loss = contrastive = diversity = None
        if sampled_negative_indices is not None:
            if mask_time_indices is None:
                raise ValueError("sampled_negative_indices need mask_time_indices: which frames are to be found")
            masked, temperature = tf.cast(mask_time_indices, tf.bool), self.config.contrastive_logits_temperature
            contrastive = contrastive_loss(found, wanted, masked, sampled_negative_indices, temperature)
            num = self.quantizer.num_groups * self.quantizer.num_vars
            diversity = (num - perplexity) / num * tf.reduce_sum(tf.cast(masked, perplexity.dtype))
            loss = contrastive + self.config.diversity_loss_weight * diversity
        return TFWav2Vec2ForPreTrainingOutput(
            loss=loss,
            projected_states=found,
            projected_quantized_states=wanted,
            codevector_perplexity=perplexity,
            contrastive_loss=contrastive,
            diversity_loss=diversity,
            **asked(outputs),
        )


class TFWav2Vec2ForPreTraining(TFWav2Vec2PreTrainedModel):
    """Wav2Vec2 with a quantizer, and the two projections that are compared."""

    module_class = TFWav2Vec2ForPreTrainingModule
