"""Wav2Vec2 in JAX as it is trained without text: to tell what was masked from other sounds of the recording."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from ...errors import ConfigError
from ...flax.kinds import Normal, Uniform, fan_in
from ...flax.layers import Linear, Module, dropout, folded, parameter
from ...flax.module_config import ModuleConfig
from ...flax.outputs import FlaxWav2Vec2ForPreTrainingOutput
from .modeling_flax_wav2vec2 import FlaxWav2Vec2Module, FlaxWav2Vec2PreTrainedModel

__all__ = ["FlaxWav2Vec2ForPreTraining"]

Array = jax.Array


class FlaxWav2Vec2GumbelVectorQuantizer(Module):
    """One vector of each group's codebook for every frame: the best one, in training a drawn one (arXiv 1611.01144)."""

    def __init__(self, config: ModuleConfig) -> None:
        self.num_groups, self.num_vars = config.num_codevector_groups, config.num_codevectors_per_group
        if config.codevector_dim % self.num_groups:
            sizes = f"codevector_dim={config.codevector_dim}, num_codevector_groups={self.num_groups}"
            raise ConfigError(f"groups must divide the codevectors: {sizes}", key="num_codevector_groups")
        num, size = self.num_groups * self.num_vars, config.codevector_dim // self.num_groups
        self.codevectors = parameter((1, num, size), Uniform(1.0, low=0.0))
        self.weight_proj = Linear(config.conv_dim[-1], num, init=Normal(1.0))

    def __call__(
        self, features: Array, mask_time_indices: Array | None, temperature: Any, rng: Array | None
    ) -> tuple[Array, Array]:
        """`(batch, frames, codevector_dim)` and the perplexity `()`, taken over the masked frames if any are.

        With a key the codes are drawn, the more evenly the higher the temperature; gradients are those of the shares.
        """
        scores = self.weight_proj(features)
        scores = scores.reshape(*scores.shape[:-1], self.num_groups, self.num_vars)
        wide = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        if rng is None:
            chosen = probs = jax.nn.one_hot(wide.argmax(-1), self.num_vars, dtype=wide.dtype)
        else:
            shares = jax.nn.softmax((wide + jax.random.gumbel(rng, wide.shape, wide.dtype)) / temperature)
            hard = jax.nn.one_hot(shares.argmax(-1), self.num_vars, dtype=wide.dtype)
            chosen, probs = hard - jax.lax.stop_gradient(shares) + shares, jax.nn.softmax(wide)
        table = self.codevectors[...].reshape(self.num_groups, self.num_vars, -1).astype(scores.dtype)
        vectors = jnp.einsum("bfgv,gvd->bfgd", chosen.astype(scores.dtype), table)
        counts = jnp.ones(probs.shape[:2]) if mask_time_indices is None else mask_time_indices != 0
        mean = jnp.where(counts[..., None, None], probs, 0).sum((0, 1)) / counts.sum()
        perplexity = jnp.exp(-xlogy(mean, mean).sum(-1)).sum()
        return vectors.reshape(*vectors.shape[:2], -1), perplexity


class FlaxWav2Vec2ForPreTrainingModule(Module):
    """Wav2Vec2 with a quantizer, and the two projections that are compared."""

    inputs_like = FlaxWav2Vec2Module

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        self.wav2vec2 = FlaxWav2Vec2Module(config)
        self.quantizer = FlaxWav2Vec2GumbelVectorQuantizer(config)
        # These two were trained from torch's own initialisation.
        size, hidden, codes = config.proj_codevector_dim, config.hidden_size, config.codevector_dim
        self.project_hid = Linear(hidden, size, bias_init=fan_in(hidden))
        self.project_q = Linear(codes, size, bias_init=fan_in(codes))

    def __call__(
        self,
        input_values: Array | None = None,
        attention_mask: Array | None = None,
        mask_time_indices: Array | None = None,
        gumbel_temperature: Any = 2.0,
        gumbel_rng: Array | None = None,
        rng: Array | None = None,
        **inputs: Any,
    ) -> FlaxWav2Vec2ForPreTrainingOutput:
        """Predictions and quantized features, each `(batch, frames, proj_codevector_dim)`, and the perplexity.

        Args:
            input_values: `(batch, samples)`.
            attention_mask: `(batch, samples)`, 1 for sound and then 0 for padding.
            mask_time_indices: `(batch, frames)`, true for the frames that are hidden and have to be found.
            gumbel_temperature: how evenly codes are drawn in training; lowered while training.
            gumbel_rng: the key they are drawn with; by default one that follows from that for dropout.
            rng: a key for dropout; None outside of training, where the best codes are taken.
            inputs: as `FlaxWav2Vec2Module` has them.
        """
        outputs = self.wav2vec2(input_values, attention_mask, mask_time_indices, rng=rng, **inputs)
        drawn = folded(rng, 3) if gumbel_rng is None else gumbel_rng
        features = dropout(outputs.extract_features, self.config.feat_quantizer_dropout, folded(rng, 2))
        vectors, perplexity = self.quantizer(
            features, mask_time_indices, gumbel_temperature, None if rng is None else drawn
        )
        return FlaxWav2Vec2ForPreTrainingOutput(
            projected_states=self.project_hid(outputs.last_hidden_state),
            projected_quantized_states=self.project_q(vectors),
            codevector_perplexity=perplexity,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class FlaxWav2Vec2ForPreTraining(FlaxWav2Vec2PreTrainedModel):
    """Wav2Vec2 with a quantizer, and the two projections that are compared."""

    module_class = FlaxWav2Vec2ForPreTrainingModule
