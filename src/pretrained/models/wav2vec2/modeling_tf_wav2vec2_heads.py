"""Wav2Vec2 in TensorFlow with its heads. Inputs that are not described here are those of `TFWav2Vec2Module`."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import ConfigError
from ...module_config import ModuleConfig
from ...tf import losses
from ...tf.headed import asked
from ...tf.kinds import Constant, Normal
from ...tf.layers import Linear, Module, convolve, dropout, folded, parameter, shape_of, value, wide_dtype
from ...tf.outputs import (
    TFCausalLMOutput,
    TFSequenceClassifierOutput,
    TFTokenClassifierOutput,
    TFXVectorOutput,
)
from .frames import conv_length, num_frames, refuse_adapter
from .modeling_tf_wav2vec2 import TFWav2Vec2Module, TFWav2Vec2PreTrainedModel, frame_mask, num_samples
from .modeling_tf_wav2vec2_losses import ctc_loss

__all__ = [
    "TFWav2Vec2ForAudioFrameClassification",
    "TFWav2Vec2ForCTC",
    "TFWav2Vec2ForSequenceClassification",
    "TFWav2Vec2ForXVector",
]

Tensor: TypeAlias = tf.Tensor


class TFWav2Vec2ForCTCModule(Module):
    """Wav2Vec2 with token logits for each frame."""

    inputs_like = TFWav2Vec2Module

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ConfigError("vocab_size is not set: how many tokens is each frame to be one of?", key="vocab_size")
        self.config = config
        self.rate = config.final_dropout
        self.wav2vec2 = TFWav2Vec2Module(config)
        size = config.output_hidden_size if config.add_adapter else config.hidden_size
        self.lm_head = Linear(size, config.vocab_size, init=Normal(config.initializer_range))

    def call(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        rng: Tensor | None = None,
        **inputs: Any,
    ) -> TFCausalLMOutput:
        """Logits `(batch, frames, vocab)`.

        With `labels` `(batch, tokens)`, the text and then -100 or the blank, the loss (CTC).
        """
        outputs = self.wav2vec2(input_values, attention_mask, rng=rng, **inputs)
        logits = self.lm_head(dropout(outputs.last_hidden_state, self.rate, folded(rng, 2)))
        loss = None
        if labels is not None:
            assert input_values is not None
            given = tf.ones_like(input_values) if attention_mask is None else attention_mask
            loss = ctc_loss(logits, labels, num_frames(self.config, num_samples(given)), self.config)
        return TFCausalLMOutput(loss=loss, logits=logits, **asked(outputs))


class _Mixing(Module):
    """A head that may read all layers: what enters the first and the result of each, by learned weights."""

    inputs_like = TFWav2Vec2Module

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.wav2vec2 = TFWav2Vec2Module(config)
        num = config.num_hidden_layers + 1
        self.layer_weights = parameter((num,), Constant(1 / num)) if config.use_weighted_layer_sum else None

    def mixed(
        self, input_values: Tensor | None, output_hidden_states: bool = False, **inputs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Hidden states `(batch, frames, hidden)`, and what was asked for of the layers."""
        is_mixed = self.layer_weights is not None
        outputs = self.wav2vec2(input_values, output_hidden_states=output_hidden_states or is_mixed, **inputs)
        states, layers = outputs.last_hidden_state, outputs.hidden_states
        if self.layer_weights is not None:
            weights = tf.cast(tf.nn.softmax(value(self.layer_weights)), states.dtype)
            assert layers is not None
            states = tf.einsum("l,lbfh->bfh", weights, tf.stack(layers))
        return states, {
            "hidden_states": layers if output_hidden_states else None,
            "attentions": outputs.attentions,
        }


class TFWav2Vec2ForSequenceClassificationModule(_Mixing):
    """Wav2Vec2 with logits for the whole recording, from the mean of its frames."""

    def __init__(self, config: ModuleConfig) -> None:
        refuse_adapter(config, "TFWav2Vec2ForSequenceClassification")
        super().__init__(config)
        init, size = Normal(config.initializer_range), config.classifier_proj_size
        self.projector = Linear(config.hidden_size, size, init=init)
        self.classifier = Linear(size, config.num_labels, init=init)

    def call(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> TFSequenceClassifierOutput:
        """Logits `(batch, labels)`; with `labels` `(batch,)` the loss."""
        states, rest = self.mixed(input_values, attention_mask=attention_mask, **inputs)
        states = self.projector(states)
        if attention_mask is None:
            pooled = tf.reduce_mean(states, 1)
        else:
            mask = frame_mask(self.config, shape_of(states)[1], attention_mask)[..., None]
            total = tf.reduce_sum(tf.where(mask, states, tf.zeros_like(states)), 1)
            pooled = total / tf.cast(tf.reduce_sum(tf.cast(mask, tf.int32), 1), states.dtype)
        logits = self.classifier(pooled)
        loss = None if labels is None else losses.cross_entropy(logits, labels)
        return TFSequenceClassifierOutput(loss=loss, logits=logits, **rest)


class TFWav2Vec2ForAudioFrameClassificationModule(_Mixing):
    """Wav2Vec2 with logits for each frame."""

    def __init__(self, config: ModuleConfig) -> None:
        refuse_adapter(config, "TFWav2Vec2ForAudioFrameClassification")
        super().__init__(config)
        self.classifier = Linear(config.hidden_size, config.num_labels, init=Normal(config.initializer_range))

    def call(
        self, input_values: Tensor | None = None, *, labels: Tensor | None = None, **inputs: Any
    ) -> TFTokenClassifierOutput:
        """Logits `(batch, frames, labels)`; with `labels` of that shape, 1 for the right class of a frame, the loss."""
        states, rest = self.mixed(input_values, **inputs)
        logits = self.classifier(states)
        loss = None if labels is None else losses.cross_entropy(logits, tf.argmax(labels, -1))
        return TFTokenClassifierOutput(loss=loss, logits=logits, **rest)


class TFTDNNLayer(Module):
    """A dilated convolution over frames. On disk its weight is a matrix `(out, kernel * in)`."""

    def __init__(self, config: ModuleConfig, index: int) -> None:
        super().__init__()
        self.width, self.dilation = config.tdnn_kernel[index], config.tdnn_dilation[index]
        size = config.tdnn_dim[max(index - 1, 0)] * self.width
        self.kernel = Linear(size, config.tdnn_dim[index], init=Normal(config.initializer_range))

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, fewer frames, out)` of `(batch, frames, in)`."""
        matrix = value(self.kernel.weight, hidden_states.dtype)
        weight = tf.transpose(tf.reshape(matrix, (matrix.shape[0], self.width, -1)), (0, 2, 1))
        return tf.nn.relu(convolve(hidden_states, weight, value(self.kernel.bias), dilation=(self.dilation,)))


class TFAMSoftmaxLoss(Module):
    """Cross entropy of angles in which the right class is put at a disadvantage (arXiv 1801.05599)."""

    def __init__(self, size: int, num_labels: int, scale: float = 30.0, margin: float = 0.4) -> None:
        super().__init__()
        self.weight = parameter((size, num_labels), Normal(1.0))
        self.scale, self.margin = scale, margin

    def call(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """`()` of `(batch, size)` and classes `(batch,)`."""
        weight = value(self.weight, embeddings.dtype)
        cosine = _unit(embeddings, 1) @ _unit(weight, 0)
        right = tf.one_hot(tf.reshape(labels, (-1,)), weight.shape[1], dtype=cosine.dtype)
        return losses.cross_entropy(self.scale * (cosine - self.margin * right), labels)


def _unit(x: Tensor, axis: int) -> Tensor:
    """`x` with vectors of length 1 along an axis, as torch's `normalize` makes them."""
    return x / tf.maximum(tf.norm(x, axis=axis, keepdims=True), tf.constant(1e-12, x.dtype))


class TFWav2Vec2ForXVectorModule(_Mixing):
    """Wav2Vec2 that tells speakers apart by one vector for each recording."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        init, size = Normal(config.initializer_range), config.xvector_output_dim
        self.projector = Linear(config.hidden_size, config.tdnn_dim[0], init=init)
        self.tdnn = [TFTDNNLayer(config, index) for index in range(len(config.tdnn_dim))]
        self.feature_extractor = Linear(config.tdnn_dim[-1] * 2, size, init=init)
        self.classifier = Linear(size, size, init=init)
        self.objective = TFAMSoftmaxLoss(size, config.num_labels)

    def call(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> TFXVectorOutput:
        """Logits and the vectors themselves, both `(batch, xvector_output_dim)`; with `labels` `(batch,)` the loss."""
        states, rest = self.mixed(input_values, attention_mask=attention_mask, **inputs)
        states = self.projector(states)
        for layer in self.tdnn:
            states = layer(states)
        embeddings = self.feature_extractor(self._statistics(states, attention_mask))
        logits = self.classifier(embeddings)
        loss = None if labels is None else self.objective(logits, labels)
        return TFXVectorOutput(loss=loss, logits=logits, embeddings=embeddings, **rest)

    def _statistics(self, states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Mean and deviation over the frames of each recording, `(batch, 2 * size)`."""
        dtype, states = states.dtype, tf.cast(states, wide_dtype(states))
        total = shape_of(states)[1]
        counted, num = tf.ones((1, total, 1), tf.bool), tf.cast(total, states.dtype)
        if attention_mask is not None:
            lengths = num_frames(self.config, num_samples(attention_mask))
            for kernel in self.config.tdnn_kernel:  # the models were trained with lengths that forget the dilation
                lengths = conv_length(lengths, kernel, 1)
            counted = (tf.range(total) < lengths[:, None])[..., None]
            num = tf.reduce_sum(tf.cast(counted, states.dtype), 1)
        zeros = tf.zeros_like(states)
        mean = tf.reduce_sum(tf.where(counted, states, zeros), 1) / num
        squares = tf.reduce_sum(tf.where(counted, tf.square(states - mean[:, None]), zeros), 1)
        return tf.cast(tf.concat((mean, _root(squares / (num - 1))), -1), dtype)


def _root(x: Tensor) -> Tensor:
    """The square root with a slope of 0, not infinity, at 0: that of a deviation where all frames are alike."""
    is_zero = x == 0
    return tf.where(is_zero, x, tf.sqrt(tf.where(is_zero, tf.ones_like(x), x)))


class TFWav2Vec2ForCTC(TFWav2Vec2PreTrainedModel):
    """Wav2Vec2 with token logits for each frame."""

    module_class = TFWav2Vec2ForCTCModule


class TFWav2Vec2ForSequenceClassification(TFWav2Vec2PreTrainedModel):
    """Wav2Vec2 with logits for the whole recording, from the mean of its frames."""

    module_class = TFWav2Vec2ForSequenceClassificationModule


class TFWav2Vec2ForAudioFrameClassification(TFWav2Vec2PreTrainedModel):
    """Wav2Vec2 with logits for each frame."""

    module_class = TFWav2Vec2ForAudioFrameClassificationModule


class TFWav2Vec2ForXVector(TFWav2Vec2PreTrainedModel):
    """Wav2Vec2 that tells speakers apart by one vector for each recording."""

    module_class = TFWav2Vec2ForXVectorModule
