"""Rotary position embeddings (RoFormer, arXiv 2104.09864) and the ways to stretch them over longer contexts.

Each way is a function of the settings that returns the inverse frequencies `(dim / 2,)`, float32, and the factor
by which cosine and sine are multiplied. Settings are a dict in the spelling of release 5.x (`rope_type`,
`rope_theta`, …). Checked against transformers 5.23, `modeling_rope_utils.py`.

No framework is imported: `xp` is the module whose arrays are wanted, `torch`, `numpy` or `jax.numpy`, which call what
is needed here by the same names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ConfigError, unknown_name

__all__ = ["ROPE", "dynamic_frequencies", "exponents", "frequencies", "longrope_frequencies", "rotary_dim"]

Settings = Mapping[str, Any]
Frequencies = tuple[Any, float]


def _need(settings: Settings, *names: str) -> list[Any]:
    """The values of `names`, all of which this rope type must have."""
    missing = [name for name in names if settings.get(name) is None]
    if missing:
        kind = settings.get("rope_type")
        raise ConfigError(f"rope_type={kind!r} needs {', '.join(missing)} in rope_scaling or rope_parameters", key=kind)
    return [settings[name] for name in names]


def exponents(xp: Any, dim: int, of: int | None = None) -> Any:
    """`(dim / 2,)`, the power of the base that each pair of channels has."""
    return xp.arange(0, dim, 2, dtype=xp.float32) / xp.asarray(of or dim, dtype=xp.float32)


def _default(xp: Any, settings: Settings, dim: int, longest: int) -> Frequencies:
    return 1.0 / settings["rope_theta"] ** exponents(xp, dim), 1.0


def _linear(xp: Any, settings: Settings, dim: int, longest: int) -> Frequencies:
    """Positions divided by a factor (Position Interpolation, arXiv 2306.15595)."""
    (factor,) = _need(settings, "factor")
    return _default(xp, settings, dim, longest)[0] / factor, 1.0


def _proportional(xp: Any, settings: Settings, dim: int, longest: int) -> Frequencies:
    """Only the first share of the angles turns; the rest have frequency 0. `dim` is the whole head here."""
    turning = int(settings.get("partial_rotary_factor", 1.0) * dim // 2)
    angles = 1.0 / settings["rope_theta"] ** exponents(xp, 2 * turning, dim)
    still = xp.zeros(dim // 2 - turning, dtype=xp.float32)
    return xp.concatenate((angles, still)) / settings.get("factor", 1.0), 1.0


def _dynamic(xp: Any, settings: Settings, dim: int, longest: int) -> Frequencies:
    """Up to the trained length these are the plain frequencies; `dynamic_frequencies` has the rest."""
    _need(settings, "factor")
    return _default(xp, settings, dim, longest)


def _yarn(xp: Any, settings: Settings, dim: int, longest: int) -> Frequencies:
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
    kept = 1 - xp.clip((xp.arange(dim // 2, dtype=xp.float32) - low) / width, 0, 1)
    wavelengths = base ** exponents(xp, dim)
    # The order of these operations is the reference's: another rounds the last bit differently, and a position of
    # some thousands multiplies that.
    return 1.0 / (factor * wavelengths) * (1 - kept) + 1.0 / wavelengths * kept, float(magnitude)


def _yarn_magnitude(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def longrope_frequencies(xp: Any, settings: Settings, dim: int, longest: int, beyond: bool = False) -> Frequencies:
    """A searched factor per frequency, one list within the trained length, one beyond (LongRoPE, arXiv 2402.13753)."""
    trained, short, long = _need(settings, "original_max_position_embeddings", "short_factor", "long_factor")
    factors = xp.asarray(long if beyond else short, dtype=xp.float32)
    if len(factors) != dim // 2:
        raise ConfigError(f"longrope factors must be {dim // 2} numbers, found {len(factors)}", key="rope_scaling")
    factor = settings.get("factor") or longest / trained
    magnitude = settings.get("attention_factor")
    if magnitude is None:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return 1.0 / (factors * settings["rope_theta"] ** exponents(xp, dim)), float(magnitude)


def _llama3(xp: Any, settings: Settings, dim: int, longest: int) -> Frequencies:
    """Long wavelengths are stretched, short ones kept, with a ramp between ("The Llama 3 Herd", arXiv 2407.21783)."""
    factor, low, high, trained = _need(
        settings, "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"
    )
    plain = _default(xp, settings, dim, longest)[0]
    wavelengths = 2 * math.pi / plain
    kept = (trained / wavelengths - low) / (high - low)
    blended = (1 - kept) * plain / factor + kept * plain
    blended = xp.where(wavelengths > trained / low, plain / factor, blended)
    return xp.where(wavelengths < trained / high, plain, blended), 1.0


ROPE: Mapping[str, Callable[[Any, Settings, int, int], Frequencies]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": longrope_frequencies,
    "llama3": _llama3,
    "proportional": _proportional,
}


def rotary_dim(settings: Settings, head_dim: int) -> int:
    """How many of the `head_dim` channels turn. Proportional rotation covers all, some of them at frequency 0."""
    if settings["rope_type"] == "proportional":
        return head_dim
    return int(head_dim * settings.get("partial_rotary_factor", 1.0))


def frequencies(xp: Any, settings: Settings, dim: int, max_position_embeddings: int) -> Frequencies:
    """Inverse frequencies `(dim / 2,)` and the attention factor, for sequences within the trained length.

    Raises:
        ConfigError: the `rope_type` is unknown, or lacks a setting it needs.
    """
    kind = settings["rope_type"]
    if kind not in ROPE:
        raise unknown_name("rope_type", kind, ROPE)
    return ROPE[kind](xp, settings, dim, max_position_embeddings)


def dynamic_frequencies(settings: Settings, powers: Any, longest: int, seq_len: Any) -> Any:
    """Inverse frequencies `(dim / 2,)` of NTK-aware scaling for a 0-d `seq_len` beyond the trained length `longest`.

    The base grows with the length (bloc97 and emozilla, r/LocalLLaMA, July 2023; arXiv 2309.00071, section 3.3).
    `powers` are the `exponents`, where `seq_len` is.
    """
    dim = 2 * len(powers)
    factor = settings["factor"]
    growth = factor * seq_len / longest - (factor - 1)
    base = settings["rope_theta"] * growth ** (dim / (dim - 2))
    return 1.0 / base**powers
