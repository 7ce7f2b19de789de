"""The caches by the names and arguments that people know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .kv_cache import EncoderDecoderKVCache, KVCache, StaticKVCache
from .kv_cache_kinds import OffloadedKVCache, QuantizedKVCache, SlidingKVCache

__all__ = [
    "DynamicCache",
    "EncoderDecoderCache",
    "OffloadedCache",
    "QuantizedCache",
    "SlidingWindowCache",
    "StaticCache",
    "decoder_layers",
    "windows_of",
    "windows_of_model",
]


def decoder_layers(config: Any) -> int:
    """How many layers the decoder of a config has."""
    text = config.get_text_config(decoder=True)
    return int(getattr(text, "num_decoder_layers", None) or text.num_hidden_layers)


# How often a layer is full where a config says so by its family alone, and who counts the first sliding layer.
_FULL_EVERY = {"gemma2": 2}
_FROM_A_LAYER_ON = ("qwen2", "qwen3")


def windows_of(config: Any) -> tuple[int | None, ...]:
    """How many tokens each decoder layer of a config sees, its own included; `None`: all."""
    text, count = config.get_text_config(decoder=True), decoder_layers(config)
    window = getattr(text, "sliding_window", None)
    if window is None or getattr(text, "use_sliding_window", True) is False:
        return (None,) * count
    every = getattr(text, "sliding_window_pattern", None) or _FULL_EVERY.get(text.model_type)
    if (kinds := getattr(text, "layer_types", None)) is not None:
        slides = [kind == "sliding_attention" for kind in kinds]
    elif every:
        slides = [index % every != 0 for index in range(1, count + 1)]
    else:
        first = text.max_window_layers if text.model_type in _FROM_A_LAYER_ON else 0
        slides = [index >= first for index in range(count)]
    return tuple(window if does else None for does in slides)


def windows_of_model(model: Any) -> tuple[int | None, ...]:
    """The same of a model: its layers know it themselves, where they have windows at all."""
    layers = getattr(model.base_model, "layers", None)
    return windows_of(model.config) if layers is None else tuple(getattr(layer, "window", None) for layer in layers)


class DynamicCache(KVCache):
    """A cache that grows.

    Args:
        ddp_cache_data: `(key, value)` per layer to begin with.
        config: accepted; layers are made as they come.
    """

    def __init__(self, ddp_cache_data: Iterable[tuple[Tensor, Tensor]] | None = None, config: Any = None) -> None:
        super().__init__(ddp_cache_data or ())

    @classmethod
    def from_legacy_cache(cls, past_key_values: Any = None) -> DynamicCache:
        """A cache that begins with a tuple of `(key, value)` per layer."""
        return cls(past_key_values)

    def to_legacy_cache(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """A tuple of `(key, value)` per layer."""
        return self.to_legacy()


class StaticCache(StaticKVCache):
    """A cache with room for `max_cache_len` tokens from the start.

    Args:
        config: of the model; says how many layers there are.
        max_batch_size: accepted; the first tokens say how many rows there are.
        max_cache_len: tokens there is room for, the longest that the model knows by default.
        device: accepted, as is `dtype`: buffers are made where and as the first keys are.
    """

    def __init__(
        self,
        config: Any,
        max_batch_size: int | None = None,
        max_cache_len: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        length = max_cache_len or config.get_text_config(decoder=True).max_position_embeddings
        super().__init__(decoder_layers(config), max_length=length)

    @property
    def max_cache_len(self) -> int:
        """Tokens there is room for."""
        return int(self.max_length or 0)


class EncoderDecoderCache(EncoderDecoderKVCache):
    """Two caches, of a decoder's own tokens and of the encoder's.

    Args:
        caches: the decoder's own, then the encoder's.
    """

    def __init__(self, *caches: Any) -> None:
        super().__init__(*caches)

    @property
    def self_attention_cache(self) -> Any:
        """Cache of the decoder's own tokens."""
        return self.self_attention

    @property
    def cross_attention_cache(self) -> Any:
        """Cache of the encoder's tokens."""
        return self.cross_attention


class SlidingWindowCache(SlidingKVCache):
    """A cache that holds of each layer what its window shows.

    Args:
        config: of the model; says which layers have a window.
        max_batch_size, max_cache_len, device, dtype: accepted; buffers are made as the first keys are.
    """

    def __init__(
        self,
        config: Any,
        max_batch_size: int | None = None,
        max_cache_len: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(windows_of(config))


class QuantizedCache(QuantizedKVCache):
    """A cache of few bits.

    Args:
        backend: accepted; numbers are packed here whatever it says.
        config: accepted.
        nbits, q_group_size, residual_length: as `QuantizedKVCache` has them.
        axis_key, axis_value: accepted; groups are along the channels of a head.
    """

    def __init__(
        self,
        backend: str | None = None,
        config: Any = None,
        nbits: int = 4,
        axis_key: int = 0,
        axis_value: int = 0,
        q_group_size: int = 64,
        residual_length: int = 128,
    ) -> None:
        super().__init__(nbits, q_group_size, residual_length)


class OffloadedCache(OffloadedKVCache):
    """A cache whose layers wait on the CPU."""
