"""Rotary position embeddings (RoFormer, arXiv 2104.09864) of tensors; the frequencies are in `rotary`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..rotary import dynamic_frequencies, exponents, frequencies, longrope_frequencies, rotary_dim
from .layers import DerivedBuffers

__all__ = ["RotaryEmbedding", "rotate"]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` `(batch, heads, seq, head_dim)` turned by its position; the first half of the channels pairs with the second.

    Args:
        x: queries or keys.
        cos: `(batch or 1, seq, dim)`; with `dim < head_dim` the last channels stay as they are.
        sin: of the same shape, its first half negated: so the halves need only be swapped.
    """
    cos, sin = cos[:, None], sin[:, None]
    dim = cos.shape[-1]
    if dim == x.shape[-1]:
        return torch.addcmul(x * cos, x.roll(dim // 2, -1), sin)
    turning = x[..., :dim]
    turned = torch.addcmul(turning * cos, turning.roll(dim // 2, -1), sin)
    return torch.cat((turned, x[..., dim:]), -1)


class RotaryEmbedding(DerivedBuffers):
    """Cosine and sine of each position. Its one table follows from the settings and is in no checkpoint.

    Nothing is remembered between calls: what "dynamic" and "longrope" use depends on the largest position of the
    call alone.
    """

    inv_freq: Tensor
    long_inv_freq: Tensor

    def __init__(self, settings: Mapping[str, Any], head_dim: int, max_position_embeddings: int) -> None:
        super().__init__()
        self.settings = dict(settings)
        self.dim = rotary_dim(settings, head_dim)
        self.max_position_embeddings = max_position_embeddings
        self.attention_factor = 1.0
        self.reset_buffers()

    def derive(self) -> dict[str, Tensor]:
        """`inv_freq` `(dim / 2,)`, and `long_inv_freq` for longrope."""
        plain, self.attention_factor = frequencies(torch, self.settings, self.dim, self.max_position_embeddings)
        buffers = {"inv_freq": plain}
        if self.settings["rope_type"] == "longrope":
            longest = self.max_position_embeddings
            buffers["long_inv_freq"], _ = longrope_frequencies(torch, self.settings, self.dim, longest, beyond=True)
        return buffers

    def _inv_freq_for(self, position_ids: Tensor) -> Tensor:
        kind = self.settings["rope_type"]
        if kind not in ("dynamic", "longrope"):
            return self.inv_freq
        # A choice between tensors, not between branches: the graph is the same for every length.
        seq_len = position_ids.max() + 1
        if kind == "longrope":
            trained = self.settings["original_max_position_embeddings"]
            return torch.where(seq_len > trained, self.long_inv_freq, self.inv_freq)
        longest = self.max_position_embeddings
        powers = exponents(torch, self.dim).to(seq_len.device)
        grown = dynamic_frequencies(self.settings, powers, longest, seq_len.clamp(min=longest))
        return torch.where(seq_len > longest, grown, self.inv_freq)

    @torch.no_grad()
    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each `(batch or 1, seq, dim)` in `dtype`, of `position_ids` `(batch or 1, seq)`.

        The first half of the sine is negated, as `rotate` takes it.
        """
        angles = position_ids[..., None].float() * self._inv_freq_for(position_ids)
        cos, sin = angles.cos() * self.attention_factor, angles.sin() * self.attention_factor
        return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)
