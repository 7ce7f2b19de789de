"""Rotary position embeddings (RoFormer, arXiv 2104.09864) and the ways to stretch them over longer contexts.

Each way is a function of the settings that returns the inverse frequencies `(dim / 2,)`, float32, and the factor
by which cosine and sine are multiplied. Settings are a dict in the spelling of release 5.x (`rope_type`,
`rope_theta`, …). Checked against transformers 5.23, `modeling_rope_utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .layers import DerivedBuffers, unknown_name

__all__ = ["ROPE", "RotaryEmbedding", "dynamic_frequencies", "frequencies", "rotary_dim", "rotate"]

Settings = Mapping[str, Any]
Frequencies = tuple[Tensor, float]


def _need(settings: Settings, *names: str) -> list[Any]:
    """The values of `names`, all of which this rope type must have."""
    missing = [name for name in names if settings.get(name) is None]
    if missing:
        kind = settings.get("rope_type")
        raise ConfigError(f"rope_type={kind!r} needs {', '.join(missing)} in rope_scaling or rope_parameters", key=kind)
    return [settings[name] for name in names]


def _exponents(dim: int, of: int | None = None) -> Tensor:
    return torch.arange(0, dim, 2, dtype=torch.float32) / (of or dim)


def _default(settings: Settings, dim: int, longest: int) -> Frequencies:
    return 1.0 / settings["rope_theta"] ** _exponents(dim), 1.0


def _linear(settings: Settings, dim: int, longest: int) -> Frequencies:
    """Positions divided by a factor (Position Interpolation, arXiv 2306.15595)."""
    (factor,) = _need(settings, "factor")
    return _default(settings, dim, longest)[0] / factor, 1.0


def _proportional(settings: Settings, dim: int, longest: int) -> Frequencies:
    """Only the first share of the angles turns; the rest have frequency 0. `dim` is the whole head here."""
    turning = int(settings.get("partial_rotary_factor", 1.0) * dim // 2)
    angles = 1.0 / settings["rope_theta"] ** _exponents(2 * turning, dim)
    still = torch.zeros(dim // 2 - turning, dtype=torch.float32)
    return torch.cat((angles, still)) / settings.get("factor", 1.0), 1.0


def _dynamic(settings: Settings, dim: int, longest: int) -> Frequencies:
    """Up to the trained length these are the plain frequencies; `dynamic_frequencies` has the rest."""
    _need(settings, "factor")
    return _default(settings, dim, longest)


def _yarn(settings: Settings, dim: int, longest: int) -> Frequencies:
    """High frequencies are kept, low ones interpolated, with a ramp between (YaRN, arXiv 2309.00071)."""
    base = settings["rope_theta"]
    (trained,) = _need(settings, "original_max_position_embeddings")
    factor = settings.get("factor") or longest / trained
    magnitude = settings.get("attention_factor")
    if magnitude is None:
        numerator, denominator = settings.get("mscale"), settings.get("mscale_all_dim")
        if numerator and denominator:
            magnitude = _yarn_magnitude(factor, numerator) / _yarn_magnitude(factor, denominator)
        else:
            magnitude = _yarn_magnitude(factor, 1.0)

    def turns_to_index(turns: float) -> float:
        """Index of the frequency that makes so many turns over the trained length."""
        return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = turns_to_index(settings.get("beta_fast") or 32)
    high = turns_to_index(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low or 0.001
    kept = 1 - ((torch.arange(dim // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
    wavelengths = base ** _exponents(dim)
    # The order of these operations is the reference's: another rounds the last bit differently, and a position of
    # some thousands multiplies that.
    return 1.0 / (factor * wavelengths) * (1 - kept) + 1.0 / wavelengths * kept, float(magnitude)


def _yarn_magnitude(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _longrope(settings: Settings, dim: int, longest: int, beyond: bool = False) -> Frequencies:
    """A searched factor per frequency, one list within the trained length, one beyond (LongRoPE, arXiv 2402.13753)."""
    trained, short, long = _need(settings, "original_max_position_embeddings", "short_factor", "long_factor")
    factors = torch.tensor(long if beyond else short, dtype=torch.float32)
    if len(factors) != dim // 2:
        raise ConfigError(f"longrope factors must be {dim // 2} numbers, found {len(factors)}", key="rope_scaling")
    factor = settings.get("factor") or longest / trained
    magnitude = settings.get("attention_factor")
    if magnitude is None:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return 1.0 / (factors * settings["rope_theta"] ** _exponents(dim)), float(magnitude)


def _llama3(settings: Settings, dim: int, longest: int) -> Frequencies:
    """Long wavelengths are stretched, short ones kept, with a ramp between ("The Llama 3 Herd", arXiv 2407.21783)."""
    factor, low, high, trained = _need(
        settings, "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"
    )
    plain = _default(settings, dim, longest)[0]
    wavelengths = 2 * math.pi / plain
    kept = (trained / wavelengths - low) / (high - low)
    blended = (1 - kept) * plain / factor + kept * plain
    blended = torch.where(wavelengths > trained / low, plain / factor, blended)
    return torch.where(wavelengths < trained / high, plain, blended), 1.0


ROPE: Mapping[str, Callable[[Settings, int, int], Frequencies]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
    "proportional": _proportional,
}


def rotary_dim(settings: Settings, head_dim: int) -> int:
    """How many of the `head_dim` channels turn. Proportional rotation covers all, some of them at frequency 0."""
    if settings["rope_type"] == "proportional":
        return head_dim
    return int(head_dim * settings.get("partial_rotary_factor", 1.0))


def frequencies(settings: Settings, dim: int, max_position_embeddings: int) -> Frequencies:
    """Inverse frequencies `(dim / 2,)` and the attention factor, for sequences within the trained length.

    Raises:
        ConfigError: the `rope_type` is unknown, or lacks a setting it needs.
    """
    kind = settings["rope_type"]
    if kind not in ROPE:
        raise unknown_name("rope_type", kind, ROPE)
    return ROPE[kind](settings, dim, max_position_embeddings)


def dynamic_frequencies(settings: Settings, dim: int, longest: int, seq_len: Tensor) -> Tensor:
    """Inverse frequencies `(dim / 2,)` of NTK-aware scaling for a 0-d `seq_len` beyond the trained length `longest`.

    The base grows with the length (bloc97 and emozilla, r/LocalLLaMA, July 2023; arXiv 2309.00071, section 3.3).
    """
    factor = settings["factor"]
    growth = factor * seq_len / longest - (factor - 1)
    base = settings["rope_theta"] * growth ** (dim / (dim - 2))
    return 1.0 / base ** _exponents(dim).to(seq_len.device)


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

    def __init__(self, settings: Settings, head_dim: int, max_position_embeddings: int) -> None:
        super().__init__()
        self.settings = dict(settings)
        self.dim = rotary_dim(settings, head_dim)
        self.max_position_embeddings = max_position_embeddings
        self.attention_factor = 1.0
        self.reset_buffers()

    def derive(self) -> dict[str, Tensor]:
        """`inv_freq` `(dim / 2,)`, and `long_inv_freq` for longrope."""
        plain, self.attention_factor = frequencies(self.settings, self.dim, self.max_position_embeddings)
        buffers = {"inv_freq": plain}
        if self.settings["rope_type"] == "longrope":
            buffers["long_inv_freq"], _ = _longrope(self.settings, self.dim, self.max_position_embeddings, beyond=True)
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
        grown = dynamic_frequencies(self.settings, self.dim, longest, seq_len.clamp(min=longest))
        return torch.where(seq_len > longest, grown, self.inv_freq)

    @torch.no_grad()
    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each `(batch or 1, seq, dim)` in `dtype`, of `position_ids` `(batch or 1, seq)`.

        The first half of the sine is negated, as `rotate` takes it.
        """
        angles = position_ids[..., None].float() * self._inv_freq_for(position_ids)
        cos, sin = angles.cos() * self.attention_factor, angles.sin() * self.attention_factor
        return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)
