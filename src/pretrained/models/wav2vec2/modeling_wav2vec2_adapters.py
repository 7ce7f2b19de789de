"""What is added to a Wav2Vec2 encoder: shorter sequences for a text decoder, small layers for one language."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_wav2vec2 import Wav2Vec2Config
from .modeling_wav2vec2_features import is_dropped

__all__ = ["Wav2Vec2Adapter", "Wav2Vec2AttnAdapterLayer"]


class Wav2Vec2AttnAdapterLayer(nn.Module):
    """A small layer at the end of a block, which one language trains for itself (arXiv 2305.13516)."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        width = cast(int, config.adapter_attn_dim)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.linear_1 = nn.Linear(config.hidden_size, width)
        self.linear_2 = nn.Linear(width, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, frames, hidden)`."""
        return self.linear_2(F.relu(self.linear_1(self.norm(hidden_states))))


class Wav2Vec2AdapterLayer(nn.Module):
    """A gated convolution that makes the sequence shorter."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        size = cast(int, config.output_hidden_size)
        self.conv = nn.Conv1d(size, 2 * size, config.adapter_kernel_size, config.adapter_stride, padding=1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, hidden, frames)`."""
        return F.glu(self.conv(hidden_states), 1)


class Wav2Vec2Adapter(nn.Module):
    """Convolutions between this encoder and a text decoder, whose sequences are shorter."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.layerdrop = config.layerdrop
        size = cast(int, config.output_hidden_size)
        resized = size != config.hidden_size
        self.proj = nn.Linear(config.hidden_size, size) if resized else None
        self.proj_layer_norm = nn.LayerNorm(size) if resized else None
        self.layers = nn.ModuleList(Wav2Vec2AdapterLayer(config) for _ in range(config.num_adapter_layers))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, fewer frames, output_hidden_size)`."""
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_states = self.proj_layer_norm(self.proj(hidden_states))
        hidden_states = hidden_states.transpose(1, 2)
        for layer in self.layers:
            if not is_dropped(self.layerdrop, self.training):
                hidden_states = layer(hidden_states)
        return hidden_states.transpose(1, 2)
