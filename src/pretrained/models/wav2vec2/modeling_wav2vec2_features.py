"""From the waveform to feature vectors, one for each frame; their positions; masks that hide some of them in training.

Modules and parameters have the names of the checkpoints. Shapes are written with the axes batch, channels, frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ...errors import ConfigError
from ...pt.layers import activation, unknown_name
from .configuration_wav2vec2 import Wav2Vec2Config
from .frames import window_of

__all__ = [
    "Wav2Vec2FeatureEncoder",
    "Wav2Vec2FeatureProjection",
    "Wav2Vec2PositionalConvEmbedding",
    "is_dropped",
    "span_mask",
]


class Wav2Vec2ConvLayer(nn.Module):
    """One convolution over time, normalised as the model does it: "group", "layer" or not at all."""

    def __init__(self, config: Wav2Vec2Config, index: int, norm: str | None) -> None:
        super().__init__()
        channels = config.conv_dim[index]
        self.conv = nn.Conv1d(
            config.conv_dim[index - 1] if index else 1,
            channels,
            config.conv_kernel[index],
            config.conv_stride[index],
            bias=config.conv_bias,
        )
        self.layer_norm: nn.GroupNorm | nn.LayerNorm | None = None
        if norm is not None:  # one group a channel: each is normalised over time
            self.layer_norm = nn.GroupNorm(channels, channels) if norm == "group" else nn.LayerNorm(channels)
        self.activation = activation(config.feat_extract_activation, "feat_extract_activation")

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, channels, frames)`."""
        hidden_states = self.conv(hidden_states)
        if isinstance(self.layer_norm, nn.LayerNorm):
            hidden_states = self.layer_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        elif self.layer_norm is not None:
            hidden_states = self.layer_norm(hidden_states)
        return self.activation(hidden_states)


class Wav2Vec2FeatureEncoder(nn.Module):
    """The stack of convolutions."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        if config.feat_extract_norm not in ("group", "layer"):
            raise unknown_name("feat_extract_norm", config.feat_extract_norm, ("group", "layer"))
        everywhere = config.feat_extract_norm == "layer"
        norms = ["layer" if everywhere else None if index else "group" for index in range(len(config.conv_dim))]
        self.window = window_of(config, 1)
        self.conv_layers = nn.ModuleList(Wav2Vec2ConvLayer(config, index, norm) for index, norm in enumerate(norms))

    def forward(self, input_values: Tensor) -> Tensor:
        """`(batch, channels, frames)` of `(batch, samples)`."""
        shape = tuple(input_values.shape)
        if len(shape) != 2 or shape[1] < self.window:
            raise ValueError(f"input_values must be (batch, samples), at least {self.window} samples; found {shape}")
        hidden_states = input_values[:, None]
        for layer in self.conv_layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class Wav2Vec2FeatureProjection(nn.Module):
    """Feature vectors as the encoder takes them."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden_size)
        self.dropout = nn.Dropout(config.feat_proj_dropout)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, frames, hidden)`, and the normalised features `(batch, frames, channels)` that it is made of."""
        features = self.layer_norm(features)
        return self.dropout(self.projection(features)), features


class Wav2Vec2PositionalConvEmbedding(nn.Module):
    """What a frame's surroundings say of its place: a wide convolution, its weight split into length and direction.

    There is one length for each place of the kernel (weight normalisation, arXiv 1602.07868, over the last axis).
    """

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        width, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        if config.hidden_size % groups:
            sizes = f"hidden_size={config.hidden_size}, num_conv_pos_embedding_groups={groups}"
            raise ConfigError(f"groups must divide the hidden size: {sizes}", key="num_conv_pos_embedding_groups")
        conv = nn.Conv1d(config.hidden_size, config.hidden_size, width, padding=width // 2, groups=groups)
        self.conv = parametrizations.weight_norm(conv, dim=2)
        self.activation = activation(config.feat_extract_activation, "feat_extract_activation")

    def reset_parameters(self) -> None:
        """Draws a weight and splits it. `conv.weight` is computed from its parts, so writing to it changes nothing."""
        parts: Any = self.conv.parametrizations
        length, direction = parts.weight.original0, parts.weight.original1
        std = 2 * math.sqrt(1 / (self.conv.kernel_size[0] * self.conv.in_channels))
        drawn = torch.randn(direction.shape) * std
        with torch.no_grad():
            direction.copy_(drawn)
            length.copy_(torch.norm_except_dim(drawn, 2, 2))
            nn.init.zeros_(self.conv.bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, frames, hidden)`."""
        positions = self.conv(hidden_states.transpose(1, 2))
        # An even kernel, padded by half of it on both sides, has one place too many.
        return self.activation(positions[..., : hidden_states.shape[1]]).transpose(1, 2)


def span_mask(lengths: Sequence[int], width: int, prob: float, span: int, min_spans: int = 0) -> Tensor:
    """`(rows, width)`, true in randomly placed spans: what SpecAugment (arXiv 1904.08779) hides.

    A row of length n gets about `prob * n / span` spans. They may overlap, so `prob` is the most that is hidden. The
    numbers come from torch's own generator.

    Args:
        lengths: how much of each row there is; nothing beyond is hidden.
        width: number of columns.
        prob: share of a row.
        span: length of a span.
        min_spans: least number of spans, where there is room.

    Raises:
        ValueError: a span has no length, or is longer than the rows.
    """
    if not 0 < span <= width:
        raise ValueError(f"spans of {span} cannot be hidden in {width} places; lower mask_time_length or its like")
    # Rounded up or down at random, so that the expectation is exact; once for all rows, which then are alike.
    rounding = torch.rand(()).item()
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in zip(mask, lengths, strict=True):
        num_starts = max(length - span + 1, 0)
        num_spans = min(max(int(prob * length / span + rounding), min_spans), width // span, num_starts)
        starts = torch.randperm(num_starts)[:num_spans]
        row[starts[:, None] + torch.arange(span)] = True
    return mask


def is_dropped(rate: float, training: bool) -> bool:
    """Whether LayerDrop (arXiv 1909.11556) leaves the next layer out: in training, with the probability `rate`."""
    return training and rate > 0 and torch.rand(()).item() < rate
