"""Wav2Vec2 in JAX with its heads. Inputs that are not described here are those of `FlaxWav2Vec2Module`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...errors import ConfigError
from ...flax.kinds import Constant, Normal
from ...flax.layers import Linear, Module, Modules, convolve, dropout, folded, parameter
from ...flax.module_config import ModuleConfig
from ...flax.outputs import (
    FlaxMaskedLMOutput,
    FlaxSequenceClassifierOutput,
    FlaxTokenClassifierOutput,
    FlaxXVectorOutput,
)
from .frames import conv_length, num_frames, refuse_adapter
from .modeling_flax_wav2vec2 import FlaxWav2Vec2Module, FlaxWav2Vec2PreTrainedModel, frame_mask

__all__ = [
    "FlaxWav2Vec2ForAudioFrameClassification",
    "FlaxWav2Vec2ForCTC",
    "FlaxWav2Vec2ForSequenceClassification",
    "FlaxWav2Vec2ForXVector",
]

Array = jax.Array


class FlaxWav2Vec2ForCTCModule(Module):
    """Wav2Vec2 with token logits for each frame."""

    inputs_like = FlaxWav2Vec2Module

    def __init__(self, config: ModuleConfig) -> None:
        if config.vocab_size is None:
            raise ConfigError("vocab_size is not set: how many tokens is each frame to be one of?", key="vocab_size")
        self.rate = config.final_dropout
        self.wav2vec2 = FlaxWav2Vec2Module(config)
        size = config.output_hidden_size if config.add_adapter else config.hidden_size
        self.lm_head = Linear(size, config.vocab_size, init=Normal(config.initializer_range))

    def __call__(
        self, input_values: Array | None = None, rng: Array | None = None, **inputs: Any
    ) -> FlaxMaskedLMOutput:
        """Logits `(batch, frames, vocab)`."""
        outputs = self.wav2vec2(input_values, rng=rng, **inputs)
        return FlaxMaskedLMOutput(
            logits=self.lm_head(dropout(outputs.last_hidden_state, self.rate, folded(rng, 2))),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class _Mixing(Module):
    """A head that may read all layers: what enters the first and the result of each, by learned weights."""

    inputs_like = FlaxWav2Vec2Module

    def __init__(self, config: ModuleConfig) -> None:
        self.config = config
        self.wav2vec2 = FlaxWav2Vec2Module(config)
        num = config.num_hidden_layers + 1
        self.layer_weights = parameter((num,), Constant(1 / num)) if config.use_weighted_layer_sum else None

    def mixed(
        self, input_values: Array | None, output_hidden_states: bool = False, **inputs: Any
    ) -> tuple[Array, dict[str, Any]]:
        """Hidden states `(batch, frames, hidden)`, and what was asked for of the layers."""
        is_mixed = self.layer_weights is not None
        outputs = self.wav2vec2(input_values, output_hidden_states=output_hidden_states or is_mixed, **inputs)
        states, layers = outputs.last_hidden_state, outputs.hidden_states
        if self.layer_weights is not None:
            weights = jax.nn.softmax(self.layer_weights[...]).astype(states.dtype)
            assert layers is not None
            states = jnp.einsum("l,lbfh->bfh", weights, jnp.stack(layers))
        return states, {
            "hidden_states": layers if output_hidden_states else None,
            "attentions": outputs.attentions,
        }


class FlaxWav2Vec2ForSequenceClassificationModule(_Mixing):
    """Wav2Vec2 with logits for the whole recording, from the mean of its frames."""

    def __init__(self, config: ModuleConfig) -> None:
        refuse_adapter(config, "FlaxWav2Vec2ForSequenceClassification")
        super().__init__(config)
        init, size = Normal(config.initializer_range), config.classifier_proj_size
        self.projector = Linear(config.hidden_size, size, init=init)
        self.classifier = Linear(size, config.num_labels, init=init)

    def __call__(
        self, input_values: Array | None = None, attention_mask: Array | None = None, **inputs: Any
    ) -> FlaxSequenceClassifierOutput:
        """Logits `(batch, labels)`."""
        states, asked = self.mixed(input_values, attention_mask=attention_mask, **inputs)
        states = self.projector(states)
        if attention_mask is None:
            pooled = states.mean(1)
        else:
            mask = frame_mask(self.config, states.shape[1], attention_mask)[..., None]
            pooled = jnp.where(mask, states, 0).sum(1) / mask.sum(1).astype(states.dtype)
        return FlaxSequenceClassifierOutput(logits=self.classifier(pooled), **asked)


class FlaxWav2Vec2ForAudioFrameClassificationModule(_Mixing):
    """Wav2Vec2 with logits for each frame."""

    def __init__(self, config: ModuleConfig) -> None:
        refuse_adapter(config, "FlaxWav2Vec2ForAudioFrameClassification")
        super().__init__(config)
        self.classifier = Linear(config.hidden_size, config.num_labels, init=Normal(config.initializer_range))

    def __call__(self, input_values: Array | None = None, **inputs: Any) -> FlaxTokenClassifierOutput:
        """Logits `(batch, frames, labels)`."""
        states, asked = self.mixed(input_values, **inputs)
        return FlaxTokenClassifierOutput(logits=self.classifier(states), **asked)


class FlaxTDNNLayer(Module):
    """A dilated convolution over frames. On disk its weight is a matrix `(out, kernel * in)`."""

    def __init__(self, config: ModuleConfig, index: int) -> None:
        self.width, self.dilation = config.tdnn_kernel[index], config.tdnn_dilation[index]
        size = config.tdnn_dim[max(index - 1, 0)] * self.width
        self.kernel = Linear(size, config.tdnn_dim[index], init=Normal(config.initializer_range))

    def __call__(self, hidden_states: Array) -> Array:
        """`(batch, fewer frames, out)` of `(batch, frames, in)`."""
        matrix, bias = self.kernel.weight[...], self.kernel.bias
        assert bias is not None
        weight = matrix.reshape(len(matrix), self.width, -1).transpose(0, 2, 1)
        return jax.nn.relu(convolve(hidden_states, weight, bias[...], dilation=(self.dilation,)))


class FlaxAMSoftmaxObjective(Module):
    """What the loss compares recordings with (arXiv 1801.05599); a call of the model does not read it."""

    def __init__(self, size: int, num_labels: int) -> None:
        self.weight = parameter((size, num_labels), Normal(1.0))


class FlaxWav2Vec2ForXVectorModule(_Mixing):
    """Wav2Vec2 that tells speakers apart by one vector for each recording."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        init, size = Normal(config.initializer_range), config.xvector_output_dim
        self.projector = Linear(config.hidden_size, config.tdnn_dim[0], init=init)
        self.tdnn = Modules([FlaxTDNNLayer(config, index) for index in range(len(config.tdnn_dim))])
        self.feature_extractor = Linear(config.tdnn_dim[-1] * 2, size, init=init)
        self.classifier = Linear(size, size, init=init)
        self.objective = FlaxAMSoftmaxObjective(size, config.num_labels)

    def __call__(
        self, input_values: Array | None = None, attention_mask: Array | None = None, **inputs: Any
    ) -> FlaxXVectorOutput:
        """Logits and the vectors themselves, both `(batch, xvector_output_dim)`."""
        states, asked = self.mixed(input_values, attention_mask=attention_mask, **inputs)
        states = self.projector(states)
        for layer in self.tdnn:
            states = layer(states)
        embeddings = self.feature_extractor(self._statistics(states, attention_mask))
        return FlaxXVectorOutput(logits=self.classifier(embeddings), embeddings=embeddings, **asked)

    def _statistics(self, states: Array, attention_mask: Array | None) -> Array:
        """Mean and deviation over the frames of each recording, `(batch, 2 * size)`."""
        if attention_mask is None:
            return jnp.concatenate((states.mean(1), states.std(1, ddof=1)), -1)
        lengths = num_frames(self.config, attention_mask.astype(jnp.int32).sum(1))
        for kernel in self.config.tdnn_kernel:  # the models were trained with lengths that forget the dilation
            lengths = conv_length(lengths, kernel, 1)
        counted = (jnp.arange(states.shape[1]) < lengths[:, None])[..., None]
        num = counted.sum(1).astype(states.dtype)
        mean = jnp.where(counted, states, 0).sum(1) / num
        squares = jnp.where(counted, jnp.square(states - mean[:, None]), 0).sum(1)
        return jnp.concatenate((mean, jnp.sqrt(squares / (num - 1))), -1)


class FlaxWav2Vec2ForCTC(FlaxWav2Vec2PreTrainedModel):
    """Wav2Vec2 with token logits for each frame."""

    module_class = FlaxWav2Vec2ForCTCModule


class FlaxWav2Vec2ForSequenceClassification(FlaxWav2Vec2PreTrainedModel):
    """Wav2Vec2 with logits for the whole recording, from the mean of its frames."""

    module_class = FlaxWav2Vec2ForSequenceClassificationModule


class FlaxWav2Vec2ForAudioFrameClassification(FlaxWav2Vec2PreTrainedModel):
    """Wav2Vec2 with logits for each frame."""

    module_class = FlaxWav2Vec2ForAudioFrameClassificationModule


class FlaxWav2Vec2ForXVector(FlaxWav2Vec2PreTrainedModel):
    """Wav2Vec2 that tells speakers apart by one vector for each recording."""

    module_class = FlaxWav2Vec2ForXVectorModule
