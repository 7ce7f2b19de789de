"""From the waveform to feature vectors in TensorFlow, one for each frame; their positions; adapters after the encoder.

Modules and parameters have the names and layouts of torch's checkpoints. Shapes have the axes batch, frames, channels.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import tensorflow as tf

from ...errors import ConfigError, unknown_name
from ...module_config import ModuleConfig
from ...tf.kinds import NORM, NORM_BIAS, ONES, ZEROS, Constant, Kind, Normal, fan_in
from ...tf.layers import (
    Conv,
    LayerNorm,
    Linear,
    Module,
    activation,
    convolve,
    dropout,
    parameter,
    shape_of,
    value,
    wide_dtype,
)
from .frames import window_of

__all__ = [
    "TFWav2Vec2Adapter",
    "TFWav2Vec2AttnAdapterLayer",
    "TFWav2Vec2FeatureEncoder",
    "TFWav2Vec2FeatureProjection",
    "TFWav2Vec2PositionalConvEmbedding",
]

Tensor: TypeAlias = tf.Tensor


def _conv(channels: tuple[int, int], kernel: int, stride: int, padding: int = 0, bias: bool = True) -> Conv:
    """A convolution over time, drawn as these models' are (He et al., arXiv 1502.01852)."""
    fan = channels[0] * kernel
    init = Normal(math.sqrt(2 / fan))
    return Conv(channels, (kernel,), (stride,), (padding,), bias=bias, init=init, bias_init=fan_in(fan))


class TFWav2Vec2ChannelNorm(Module):
    """Mean 0 and variance 1 of each channel over time, then a learned scale and bias: a group norm of single channels.

    Statistics are float32.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = parameter((channels,), ONES, NORM)
        self.bias = parameter((channels,), ZEROS, NORM_BIAS)
        self.eps = eps

    def call(self, x: Tensor) -> Tensor:
        """`(batch, frames, channels)`, in the dtype of `x`."""
        wide = tf.cast(x, wide_dtype(x))
        centred = wide - tf.reduce_mean(wide, 1, keepdims=True)
        out = centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), 1, keepdims=True) + self.eps)
        return tf.cast(out * value(self.weight, wide.dtype) + value(self.bias, wide.dtype), x.dtype)


class TFWav2Vec2ConvLayer(Module):
    """One convolution over time, normalised as the model does it: "group", "layer" or not at all."""

    def __init__(self, config: ModuleConfig, index: int, norm: str | None) -> None:
        super().__init__()
        channels = config.conv_dim[index]
        before = config.conv_dim[index - 1] if index else 1
        self.conv = _conv(
            (before, channels), config.conv_kernel[index], config.conv_stride[index], bias=config.conv_bias
        )
        own: Any = None
        if norm is not None:
            own = TFWav2Vec2ChannelNorm(channels) if norm == "group" else LayerNorm(channels)
        self.layer_norm = own
        self.act = activation(config.feat_extract_activation, "feat_extract_activation")

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, frames, channels)`."""
        hidden_states = self.conv(hidden_states)
        return self.act(hidden_states if self.layer_norm is None else self.layer_norm(hidden_states))


class TFWav2Vec2FeatureEncoder(Module):
    """The stack of convolutions."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        if config.feat_extract_norm not in ("group", "layer"):
            raise unknown_name("feat_extract_norm", config.feat_extract_norm, ("group", "layer"))
        self.config = config
        everywhere = config.feat_extract_norm == "layer"
        norms = ["layer" if everywhere else None if index else "group" for index in range(len(config.conv_dim))]
        self.window = window_of(config, 1)
        self.conv_layers = [TFWav2Vec2ConvLayer(config, index, norm) for index, norm in enumerate(norms)]

    def call(self, input_values: Tensor) -> Tensor:
        """`(batch, frames, channels)` of `(batch, samples)`."""
        shape = tuple(input_values.shape)
        if len(shape) != 2 or (shape[1] is not None and shape[1] < self.window):
            raise ValueError(f"input_values must be (batch, samples), at least {self.window} samples; found {shape}")
        dtype = self.config.compute_dtype or self.conv_layers[0].conv.weight.dtype
        hidden_states = tf.cast(input_values, dtype)[..., None]
        for layer in self.conv_layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class TFWav2Vec2FeatureProjection(Module):
    """Feature vectors as the encoder takes them."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        size = config.conv_dim[-1]
        self.layer_norm = LayerNorm(size, config.layer_norm_eps)
        self.projection = Linear(size, config.hidden_size, bias_init=fan_in(size))
        self.rate = config.feat_proj_dropout

    def call(self, features: Tensor, rng: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`(batch, frames, hidden)`, and the normalised features `(batch, frames, channels)` that it is made of."""
        features = self.layer_norm(features)
        return dropout(self.projection(features), self.rate, rng), features


class _Parts(Module):
    """Length and direction of a weight."""

    def __init__(self, shape: tuple[int, int, int], std: float) -> None:
        super().__init__()
        # One length for each place of the kernel: that of a direction, as it is on average.
        self.original0 = parameter((1, 1, shape[2]), Constant(std * math.sqrt(shape[0] * shape[1])), Kind(turns=True))
        self.original1 = parameter(shape, Normal(std))

    def joined(self) -> Tensor:
        """The weight, in float32 or better."""
        dtype = wide_dtype(value(self.original1))
        direction, length = value(self.original1, dtype), value(self.original0, dtype)
        return direction * (length / tf.sqrt(tf.reduce_sum(tf.square(direction), (0, 1), keepdims=True)))


class _Parametrizations(Module):
    """What torch's parametrized layers have in place of `weight`."""

    def __init__(self, shape: tuple[int, int, int], std: float) -> None:
        super().__init__()
        self.weight = _Parts(shape, std)


class TFWeightNormedConv(Module):
    """A convolution over time, its weight split into length and direction.

    There is one length for each place of the kernel (weight normalisation, arXiv 1602.07868, over the last axis).
    """

    def __init__(self, size: int, width: int, groups: int) -> None:
        super().__init__()
        self.parametrizations = _Parametrizations((size, size // groups, width), 2 * math.sqrt(1 / (width * size)))
        self.bias = parameter((size,), ZEROS)
        self.width, self.groups = width, groups

    def call(self, x: Tensor) -> Tensor:
        """`(batch, frames, size)`; one frame more where the kernel is even."""
        half = self.width // 2
        weight = tf.cast(self.parametrizations.weight.joined(), x.dtype)
        return convolve(x, weight, value(self.bias), padding=((half, half),), groups=self.groups)


class TFWav2Vec2PositionalConvEmbedding(Module):
    """What a frame's surroundings say of its place: a wide convolution."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        width, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        if config.hidden_size % groups:
            sizes = f"hidden_size={config.hidden_size}, num_conv_pos_embedding_groups={groups}"
            raise ConfigError(f"groups must divide the hidden size: {sizes}", key="num_conv_pos_embedding_groups")
        self.conv = TFWeightNormedConv(config.hidden_size, width, groups)
        self.act = activation(config.feat_extract_activation, "feat_extract_activation")

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, frames, hidden)`."""
        # An even kernel, padded by half of it on both sides, has one place too many.
        return self.act(self.conv(hidden_states)[:, : shape_of(hidden_states)[1]])


class TFWav2Vec2AttnAdapterLayer(Module):
    """A small layer at the end of a block, which one language trains for itself (arXiv 2305.13516)."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        init = Normal(config.initializer_range)
        self.norm = LayerNorm(config.hidden_size)
        self.linear_1 = Linear(config.hidden_size, config.adapter_attn_dim, init=init)
        self.linear_2 = Linear(config.adapter_attn_dim, config.hidden_size, init=init)

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, frames, hidden)`."""
        return self.linear_2(tf.nn.relu(self.linear_1(self.norm(hidden_states))))


class TFWav2Vec2AdapterLayer(Module):
    """A gated convolution that makes the sequence shorter."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        size = config.output_hidden_size
        self.conv = _conv((size, 2 * size), config.adapter_kernel_size, config.adapter_stride, padding=1)

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, fewer frames, size)`."""
        kept, gate = tf.split(self.conv(hidden_states), 2, -1)
        return kept * tf.sigmoid(gate)


class TFWav2Vec2Adapter(Module):
    """Convolutions between this encoder and a text decoder, whose sequences are shorter."""

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        size, init = config.output_hidden_size, Normal(config.initializer_range)
        is_resized = size != config.hidden_size
        self.proj = Linear(config.hidden_size, size, init=init) if is_resized else None
        self.proj_layer_norm = LayerNorm(size) if is_resized else None
        self.layers = [TFWav2Vec2AdapterLayer(config) for _ in range(config.num_adapter_layers)]

    def call(self, hidden_states: Tensor) -> Tensor:
        """`(batch, fewer frames, output_hidden_size)`."""
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_states = self.proj_layer_norm(self.proj(hidden_states))
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states
